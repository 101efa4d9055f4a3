"""What a viewer sees of a stream's page in a real Chromium: nothing that the server would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from atomstream.server.people.records import Actor
from atomstream.server.people.store import People
from tests.browser.assertions import expect
from tests.browser.conftest import log_in
from tests.browser.growth import Growth
from tests.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]

CHANGES = [
    "mark",
    "calibrate",
    "azimuths",
    "draw-box",
    "draw-line",
    "stream-rename",
    "stream-move",
    "stream-end",
]
SHOWN = "ids => ids.filter((id) => document.getElementById(id).checkVisibility())"
CLICK_ALL = """() => [...document.querySelectorAll("button:not(#logout)")]
    .filter((button) => button.checkVisibility()).forEach((button) => button.click())"""


async def log_in_as(page: Any, server: LiveServer, scope: str) -> None:
    """Log the page in by a new key of this scope."""
    made = People(server.data_dir).create_key(Actor("test", "command line"), scope, instrument=scope)
    await log_in(page.context, server, made.secret)


async def test_a_viewer_sees_no_button_that_is_refused(page: Any, growth: Growth, server: LiveServer) -> None:
    """All that a viewer can click and press is answered; an operator sees all but the deletion."""
    await growth.push(4)
    await log_in_as(page, server, "write")
    await page.goto(growth.path)
    await page.get_by_role("button", name="Data", exact=True).click()
    await expect(page.locator("#mark")).to_be_visible()
    assert await page.evaluate(SHOWN, [*CHANGES, "stream-delete"]) == CHANGES
    # Without its cookie the page would go to the login by itself, at the same time as the test.
    await page.goto("about:blank")
    await page.context.clear_cookies()
    await log_in_as(page, server, "read")
    refused: list[str] = []
    page.on("response", lambda reply: refused.append(reply.url) if reply.status == 403 else None)
    await page.goto(growth.path)
    await expect(page.locator('#overlay g[data-name="specular"]')).to_have_count(1)
    await page.get_by_role("button", name="Data", exact=True).click()
    assert await page.evaluate(SHOWN, [*CHANGES, "stream-delete"]) == []
    await expect(page.locator("#overlay [tabindex]")).to_have_count(0)
    await page.locator("#more").click()
    for key in ("m", "Shift+M", "f"):
        await page.keyboard.press(key)
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.evaluate(CLICK_ALL)
    await page.wait_for_load_state("networkidle")
    await page.locator("#main").press("m")
    await expect(page.locator("#events")).to_have_text("None yet.")
    assert refused == []
