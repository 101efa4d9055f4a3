"""Rename, move, end and delete a stream on its page, in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.live_server import LiveServer
from tests.wire_client import WireClient, make_frames

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def choose(page: Any, action: str) -> Any:
    """Open "Data" and the dialog of an action; returns the dialog."""
    if await page.locator("#more").is_hidden():
        await page.get_by_role("button", name="Data", exact=True).click()
    await page.locator("#more").get_by_role("button", name=action, exact=True).click()
    dialog = page.locator("#manage-dialog")
    await expect(dialog).to_be_visible()
    return dialog


async def test_the_buttons(logged_in: Any, server: LiveServer) -> None:
    """Name, project and status change on page and server; a deletion asks, and Enter alone deletes nothing."""
    page = logged_in
    async with WireClient(server) as client:
        await client.ask("POST", "/projects/", {"name": "Oxides"})
        data_id, kept = await client.create("Before"), await client.create("Kept")
        await client.send(data_id, 0, make_frames(4))
        await page.goto(f"/streams/{data_id}")
        await expect(page.locator("#name")).to_have_text("Before")
        dialog = await choose(page, "Rename")
        await dialog.get_by_label("New name").fill("  ")
        await dialog.get_by_role("button", name="Rename").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("name is empty")
        await dialog.get_by_label("New name").fill("After <b>")
        await page.keyboard.press("Enter")
        await expect(page.locator("#name")).to_have_text("After <b>")
        dialog = await choose(page, "Move")
        await dialog.get_by_role("button", name="Move").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("there already")
        await dialog.get_by_label("Project").select_option("Oxides")
        await dialog.get_by_label("Sample").fill("Wafer 12")
        await dialog.get_by_role("button", name="Move").click()
        await expect(dialog).to_be_hidden()
        await expect(page.locator("#notice")).to_contain_text("to sample 'Wafer 12'")
        await expect(page.locator("#facts")).to_contain_text("Wafer 12")
        assert [one["name"] for one in (await client.entry(data_id))["projects"]] == ["Oxides"]
        dialog = await choose(page, "End")
        await dialog.get_by_role("button", name="End the stream").click()
        await expect(dialog).to_be_hidden()
        assert (await client.entry(data_id))["pipeline_status"] == "success"
        dialog = await choose(page, "Delete")
        await expect(dialog).to_contain_text("After <b>")
        await page.keyboard.press("Enter")
        await expect(dialog).to_be_hidden()
        assert (await client.entry(data_id))["raw_name"] == "After <b>"
        dialog = await choose(page, "Delete")
        await dialog.get_by_role("button", name="Delete for ever").click()
        await expect(page.locator("#list")).to_contain_text("Kept")
        assert [one["data_id"] for one in (await client.ask("GET", "/data_entries/"))[1]] == [kept]
        await page.goto(f"/streams/{data_id}")
        await expect(page.locator("#name")).to_have_text("Deleted stream")
