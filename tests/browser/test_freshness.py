"""No number on a stream's page looks fresh that is not, in a real Chromium."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import pytest

from tests.browser.assertions import expect, playwright
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

GREY = """() => getComputedStyle(document.querySelector("[data-name=lattice_spacing] dd")).color
    === getComputedStyle(document.querySelector("h2")).color"""
LIVE = f"() => document.getElementById('status').textContent === 'Live' && !({GREY})()"
ALL = {
    "status": "running",
    "frames_stored": 400,
    "frames_analysed": 400,
    "newest_s": 20.0,
    "newest_stored_s": 20.0,
}
EMPTY, DONE = {**ALL, "frames_stored": 0}, {**ALL, "status": "ended"}
BEHIND = {**ALL, "frames_analysed": 140, "newest_s": 7.0}
FRESH: dict[str, Any] = {
    "status": "stream_active", "link": True, "chunkS": 1.0, "silentS": 0.5, "ageS": 0.8, "analysis": ALL,
}  # fmt: skip
SILENT = {**FRESH, "silentS": 130.0, "ageS": 131.0}
ENDED = {**FRESH, "status": "success", "silentS": 900.0, "ageS": 900.0}


CASES: list[tuple[dict[str, Any], str, bool, str]] = [
    (FRESH, "Live", False, r"^Newest result 0\.8 s ago$"),
    ({**FRESH, "analysis": EMPTY, "ageS": None, "silentS": None}, "Waiting for frames", False, "^$"),
    ({**FRESH, "silentS": 3.2, "ageS": 3.4}, "No new frames", True, r"for 3 seconds\. These.* 3 seconds old"),
    ({**FRESH, "silentS": 2.2, "ageS": 2.8}, "No new frames", True, r"for 2 seconds"),
    ({**FRESH, "chunkS": 10.0, "silentS": 9.0, "ageS": 9.5}, "Live", False, "9.5 s ago"),
    ({**FRESH, "ageS": 300.0}, "Delayed", True, "late.* 5 minutes old"),
    (
        {**FRESH, "ageS": 13.0, "analysis": BEHIND},
        "Analysis behind, 35 %",
        True,
        r"^35 % .*of 0:07\.0;.* 0:20\.0",
    ),
    (
        {**FRESH, "silentS": 4.0, "ageS": 17.0, "analysis": BEHIND},
        "No new frames",
        True,
        r"4 seconds\. 35 % of",
    ),
    ({**FRESH, "link": False, "ageS": 4.0}, "No connection", True, "No connection.* 4 seconds old"),
    ({**FRESH, "link": False, "silentS": 100.0}, "No connection", True, "No connection"),
    ({**SILENT, "status": "stream_interrupted"}, "Interrupted", True, "2 minutes old"),
    ({**SILENT, "status": "stream_error"}, "No data for a long time", True, "2 minutes old"),
    ({**ENDED, "analysis": {**DONE, "newest_unix_ms": 1.7e12}}, "Complete", False, "^Analysed .*2023"),
    ({**ENDED, "analysis": BEHIND}, "Analysing, 35 %", True, "^35 %"),
    ({**ENDED, "analysis": {**ALL, "reanalysis": True}}, "Analysing again", False, "earlier results"),
    ({**ENDED, "analysis": DONE, "link": False}, "Complete", False, "No connection"),
    ({**ENDED, "analysis": {**EMPTY, "status": "ended"}}, "Complete", False, "^No frames were received"),
]


async def test_what_the_page_says(logged_in: Any) -> None:
    """Status, age and colour of the digits for each cause; an abandoned stream is offered to be ended."""
    await logged_in.goto("/")
    call = 'async (facts) => (await import("/dashboard/static/js/freshness.js")).freshness(facts)'
    for facts, label, stale, text in CASES:
        shown = await logged_in.evaluate(call, facts)
        assert (shown["label"], shown["stale"]) == (label, stale), facts
        assert re.search(text, shown["text"]), (facts, shown["text"])
        abandoned = facts["link"] and facts["status"] != "success" and (facts["silentS"] or 0) > 60
        assert bool(shown["abandoned"]) == abandoned, facts


async def until_live(page: Any, growth: Growth) -> None:
    """Send new frames until the page shows that they are: on a slow machine the first ones are late."""
    for _ in range(20):
        growth.start_ms = 1000.0 * (time.time() - 2.0 * growth.chunks)
        await growth.push(2.0)
        with contextlib.suppress(playwright.TimeoutError):
            await page.wait_for_function(LIVE, timeout=3000)
            return
    pytest.fail("the page never showed new frames as live")


async def test_the_digits_lose_their_colour(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Live while frames come; grey with the age in words when they stop, when the server stops, and not for longer."""
    page = logged_in
    growth.start_ms = 1000.0 * (time.time() - 8.0)
    await growth.show(page, 8.0)
    await expect(page.locator("#status")).to_have_text("No new frames")
    await expect(page.locator("#age")).to_have_text(
        re.compile(r"These numbers are \d+ seconds old"), timeout=60_000
    )
    assert await page.evaluate(GREY)
    await until_live(page, growth)
    clock_set_back = "() => { const now = Date.now.bind(Date); Date.now = () => now() - 3600e3; }"
    await page.evaluate(clock_set_back)
    await server.stop()
    await expect(page.locator("#status")).to_have_text("No connection")
    await expect(page.locator("#age")).to_have_text(re.compile(r"These numbers are [1-9]\d* seconds old"))
    await expect(page.locator("#health-text")).to_have_text("No connection")
    assert await page.evaluate(GREY)


async def test_an_abandoned_stream_is_ended(logged_in: Any, server: LiveServer) -> None:
    """If no frames come for long, page and list show it; one button ends the stream, which is then complete."""
    page = logged_in
    async with Growth.begin(server) as growth:
        await growth.show(page, 8.0)
        lifecycle = server.context.lifecycle
        lifecycle._last_activity[growth.data_id] -= 500.0
        lifecycle._check(growth.data_id, 0.0)
        await lifecycle.expire_idle()
        await expect(page.locator("#status")).to_have_text("Interrupted")
        await expect(page.locator("#abandoned-text")).to_contain_text("end the stream")
        await page.locator("#abandoned-end").click()
        await page.locator("#manage-submit").click()
        await expect(page.locator("#status")).to_have_text("Complete")
        await expect(page.locator("#abandoned")).to_be_hidden()
        await expect(page.locator("#age")).to_have_text(re.compile("^Analysed "))
        assert not await page.evaluate(GREY)


async def test_a_stream_that_is_deleted_or_has_no_frames(
    logged_in: Any, growth: Growth, server: LiveServer
) -> None:
    """The numbers of a stream that was deleted meanwhile are grey; one without frames does not wait for them."""
    page = logged_in
    empty = await growth.streamer.initialize(20.0, 0.0, 40, "Nothing")
    await growth.streamer.finalize(empty)
    await page.goto(f"/streams/{empty}")
    await expect(page.locator("#age")).to_have_text("No frames were received.")
    await expect(page.locator("#rate-why")).to_have_text("No frames were received.")
    await expect(page.locator("#stage-empty")).to_have_text("No frames were received.")
    await growth.show(page, 8.0)
    async with WireClient(server) as client:
        assert (await client.ask("DELETE", f"/rheed/stream/{growth.data_id}"))[0] == 200
    await expect(page.locator("#status")).to_have_text("Deleted")
    await expect(page.locator("#name")).to_have_text("Growth 001 (deleted)")
    await expect(page.locator("#notice")).to_contain_text("was deleted")
    assert await page.evaluate(GREY)
