"""The list of streams with pictures and filters, and the page of a sample, in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.assertions import expect
from tests.live_server import LiveServer
from tests.wire_client import WireClient, make_frames

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_from_the_list_to_the_sample(page_for_axe: Any, server: LiveServer) -> None:
    """Pictures, filters that the address keeps, the link to the sample, and both axes of its page."""
    page = page_for_axe
    async with WireClient(server) as client:
        await client.ask("POST", "/projects/", {"name": "Oxides"})
        for name in ("First", "Second", "Elsewhere"):
            data_id = await client.create(name)
            await client.send(data_id, 0, make_frames(4))
            if name != "Elsewhere":
                await client.ask("PATCH", f"/rheed/stream/{data_id}", {"sample_name": "Wafer <i>"})
        await client.end(data_id)
    await page.goto(server.url)
    await expect(page.locator("#list li")).to_have_count(3)
    await expect(page.locator("#list .thumbnail").first).to_have_attribute("data-frame", re.compile(r"\d"))
    assert await violations(page) == []
    await page.get_by_label("Status").select_option("Complete")
    await expect(page.locator("#list .name")).to_have_text(["Elsewhere"])
    await page.reload()
    await expect(page.locator("#list .name")).to_have_text(["Elsewhere"])
    await page.get_by_label("to", exact=True).fill("2001-01-01")
    await page.get_by_label("to", exact=True).dispatch_event("change")
    await expect(page.locator("#empty")).to_contain_text("No stream fits")
    await page.get_by_role("button", name="Clear filters").click()
    await expect(page.locator("#list li")).to_have_count(3)
    await page.get_by_role("link", name="Wafer <i>").first.click()
    await expect(page.locator("#name")).to_have_text("Wafer <i>")
    await expect(page.locator("#rows a[dir=auto]")).to_have_text(["First", "Second"])
    await page.get_by_label("Quantity").select_option("specular_intensity")
    await expect(page.locator("#chart")).to_have_attribute(
        "aria-label", re.compile("Specular intensity of 2 streams")
    )
    await page.get_by_label("Leave out").uncheck()
    assert await violations(page) == []
    await page.get_by_role("link", name="Compare First").click()
    await expect(page.locator("#name")).to_have_text("First")
