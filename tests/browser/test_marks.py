"""Marks on a stream's page, in a real Chromium: set with a value, changed, moved, deleted, and edited by two people."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_mark_from_its_words_to_its_deletion(
    page_for_axe: Any, growth: Growth, server: LiveServer
) -> None:
    """The list follows each step; of two people the second one reads what the mark is now, and loses nothing."""
    page = page_for_axe
    await growth.push(4)
    await page.goto(f"{server.url}{growth.path}")
    await expect(page.locator("#status")).not_to_be_empty()
    dialog, line = page.locator("#mark-dialog"), page.locator("#events li.user")
    await page.keyboard.press("Shift+M")
    await dialog.get_by_label("What happened").fill("Ga shutter open")
    await dialog.get_by_label("Value").fill("abc")
    await dialog.get_by_role("button", name="Set mark").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("not a number")
    await dialog.get_by_label("Value").fill("580,5")
    await dialog.get_by_label("Unit").fill("°C")
    await page.keyboard.press("Enter")
    await expect(line).to_contain_text("Ga shutter open: 580.5 °C")
    await expect(line.locator(".kind")).to_have_text("shutter")

    await line.get_by_role("button", name="Change the mark").click()
    await dialog.get_by_label("Time").fill("0:01.5")
    await dialog.get_by_label("Kind").select_option("laser")
    assert await violations(page) == []
    await page.keyboard.press("Enter")
    await expect(line).to_contain_text("0:01.5")
    await expect(line.locator(".kind")).to_have_text("laser")
    await expect(line.get_by_role("button", name="Change the mark")).to_be_focused()

    await page.keyboard.press("Enter")
    await dialog.get_by_label("What happened").fill("mine")
    async with WireClient(server) as client:
        path = f"/rheed/stream/{growth.data_id}/events"
        (event,) = [one for one in (await client.ask("GET", path))[1] if one["by"] == "user"]
        assert (event["time_s"], event["version"]) == (pytest.approx(1.5), 2)
        await client.ask("PATCH", f"{path}/{event['id']}", {"version": 2, "label": "theirs"})
        await page.keyboard.press("Enter")
        await expect(dialog.get_by_role("alert")).to_contain_text("“theirs”")
        await expect(dialog.get_by_label("What happened")).to_have_value("mine")
        await page.keyboard.press("Enter")
        await expect(line).to_contain_text("mine")

        await line.get_by_role("button", name="Change the mark").click()
        await client.ask("DELETE", f"{path}/{event['id']}?version=4")
        await dialog.get_by_role("button", name="Save").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("deleted")
        await dialog.get_by_role("button", name="Set mark").click()
        await expect(line).to_contain_text("mine")
    await line.get_by_role("button", name="Change the mark").click()
    await dialog.get_by_role("button", name="Delete").click()
    await expect(line).to_have_count(0)
