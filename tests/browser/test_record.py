"""The capture page in a real Chromium: record, pause, mark and stop by keys and buttons."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from atomstream.record.recorder import Recorder
from atomstream.record.snapshot import snapshot
from atomstream.record.states import RecorderState
from atomstream.record.web import live
from atomstream.record.web.app import listen, serving, url_of
from tests.browser.accessibility import violations
from tests.browser.assertions import expect
from tests.record.manual_camera import ManualCamera, recording_of, taken, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

HOSTILE = "GaN <img src=x onerror=alert(1)> \u202e"


async def test_a_growth_is_recorded_from_the_page(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link leads to a saved recording with frames from before Record; no script error, no violation found by
    axe."""
    camera, problems = ManualCamera(age_s=40.0), list[str]()
    listening = listen(0)
    async with (
        recording_of(tmp_path, camera, monkeypatch) as recorder,
        serving(listening, recorder) as sessions,
    ):
        context = await browser.new_context(bypass_csp=True, reduced_motion="reduce")
        page = await context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        await taken(recorder, camera, *range(800))
        await page.goto(url_of(listening) + sessions.make_link())
        await expect(page.locator("#canvas")).to_have_attribute("data-frame", "799")
        assert "link=" not in page.url
        await expect(page.locator("#saturated")).to_contain_text("no pixel")
        await page.get_by_role("textbox", name="Name").fill(HOSTILE)
        await page.get_by_role("textbox", name="Sample").fill("GaN-14")
        await page.get_by_label("Begin").select_option("30")
        await page.locator("#main").focus()
        await page.keyboard.press("r")
        await expect(page.locator("#state-word")).to_have_text("Recording")
        await page.keyboard.press("m")
        await page.keyboard.press("Shift+M")
        await page.keyboard.type("Ga shutter open")
        await page.keyboard.press("Enter")
        await expect(page.locator("#marks .label")).to_have_text(["Ga shutter open", "Mark 1"])
        await until(recorder, lambda: recorder.recording and recorder.recording.saved_ms)
        await expect(page.locator("#name")).to_have_value(HOSTILE.replace("\u202e", "\ufffd"))
        await expect(page.locator("#state-line")).to_contain_text("0 frames lost")
        await expect(page.locator("#state-line")).to_contain_text(re.compile(r"saved up to \d\d:\d\d:\d\d"))
        assert "\n".join(await violations(page)) == ""
        await page.keyboard.press("p")
        await expect(page.locator("#state-word")).to_have_text("Paused")
        await page.get_by_role("button", name="Go on").click()
        await expect(page.locator("#state-word")).to_have_text("Recording")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.locator("#state-word")).to_have_text("Not recording")
        await expect(page.locator("#recordings td").first).to_contain_text("<img src=x onerror=alert(1)>")
        await page.locator("#theme").click()
        box = await page.locator("#stage").bounding_box()
        await page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 3 / 4)
        await page.mouse.up()
        await expect(page.locator("#crop")).to_have_value("8 6 8 12")
        await expect(page.locator("#source")).to_be_focused()
        await expect(page.locator("#source")).to_have_value("manual:0")
        assert "\n".join(await violations(page)) == ""
        await page.keyboard.press("Escape")
        await page.set_viewport_size({"width": 360, "height": 740})
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await page.evaluate(wide) == 0
        assert problems == []
        assert recorder.state is RecorderState.IDLE
        await context.close()
    assert recorder.entries[0].name == HOSTILE.strip()
    assert recorder.entries[0].frames > 0  # all were captured before the button was pressed


async def test_two_pages_and_a_recorder_that_hangs(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page shows the name of a recording that another one began; none shows a state that has become old."""
    camera, listening, hangs = ManualCamera(), listen(0), asyncio.Event()

    async def shown(recorder: Recorder) -> dict[str, Any]:
        while hangs.is_set():
            await asyncio.sleep(0.01)
        return await snapshot(recorder)

    monkeypatch.setattr(live, "snapshot", shown)
    async with (
        recording_of(tmp_path, camera, monkeypatch) as recorder,
        serving(listening, recorder) as sessions,
    ):
        pages = [await (await browser.new_context()).new_page() for _ in range(2)]
        for page in pages:
            await page.goto(url_of(listening) + sessions.make_link())
            await expect(page.locator("#state-word")).to_have_text("Not recording")
        one, two = pages
        await two.locator("#name").fill("for later")
        await two.locator("#rpm").fill("5")
        await taken(recorder, camera, 0, 1, 2)
        await one.locator("#sample").fill("GaN-14")
        await one.locator("#name").fill("Growth 12")
        await one.locator("#record").click()
        for page in pages:
            await expect(page.locator("#state-word")).to_have_text("Recording")
            await expect(page.locator("#name")).to_have_value("Growth 12")
            await expect(page.locator("#sample")).to_have_value("GaN-14")
            await expect(page.locator("#rpm")).to_have_value("0")
            await expect(page.locator("#name")).to_be_disabled()
        hangs.set()
        await expect(one.locator("#state-word")).to_have_text("Recorder does not answer")
        await expect(one.locator("#state-time")).to_have_text("")
        await expect(one.locator("#state-line")).to_contain_text("It answered last at")
        hangs.clear()
        await expect(one.locator("#state-word")).to_have_text("Recording")
        await one.locator("#stop").click()
        await expect(two.locator("#state-word")).to_have_text("Not recording")
        await expect(two.locator("#name")).to_have_value("for later")
        await expect(two.locator("#rpm")).to_have_value("5")
