"""Azimuth labels are entered on the page, in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def labels_of(server: LiveServer, growth: Growth) -> dict[str, str | None]:
    """The labels that clients read, by view."""
    async with WireClient(server) as client:
        views = (await client.ask("GET", f"/rheed/{growth.data_id}/azimuths"))[1]
    return {view["view_id"]: view["azimuth_label"] for view in views}


async def test_the_azimuth_of_a_stationary_sample(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """With the keyboard alone a label is set and kept over a reload; Escape changes nothing, an empty text removes it.

    If a label could not be saved, the dialog shows it and keeps the entered text.
    """
    page = logged_in
    await growth.show(page, 4)
    button, entry = (
        page.get_by_role("button", name="Azimuth", exact=True),
        page.get_by_label("The sample’s azimuth"),
    )
    await button.press("Enter")
    await entry.fill(" [1-10] ")
    await entry.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await expect(button).to_be_focused()
    await expect(page.locator("#facts")).to_contain_text("[1-10]")
    assert await labels_of(server, growth) == {"stationary": "[1-10]"}
    await page.reload()
    await expect(page.locator("#facts")).to_contain_text("[1-10]")
    await button.press("Enter")
    await expect(entry).to_have_value("[1-10]")
    await entry.fill("no")
    await page.keyboard.press("Escape")
    assert await labels_of(server, growth) == {"stationary": "[1-10]"}
    await button.press("Enter")
    await entry.fill("")
    await entry.press("Enter")
    await expect(page.locator("#facts")).not_to_contain_text("[1-10]")
    assert await labels_of(server, growth) == {"stationary": None}
    await button.press("Enter")
    await entry.fill("[110]")
    await page.route("**/azimuths/*", lambda route: route.abort("connectionrefused"))
    await entry.press("Enter")
    await expect(page.get_by_role("alert").filter(has_text="does not answer")).to_be_visible()
    await expect(entry).to_have_value("[110]")


async def test_each_view_of_a_rotating_sample(logged_in: Any, server: LiveServer) -> None:
    """A view's label is shown in the list of views and at its spacing, and stays while the growth continues."""
    async with Growth.begin(server, rpm=20.0, length_s=40.0) as growth:
        page = logged_in
        await growth.push(20)
        await page.goto(growth.path)
        aligned = page.get_by_label("View of the rotating sample").locator("option", has_text="Aligned, view")
        await expect(aligned).not_to_have_count(0)
        view_id = await aligned.first.get_attribute("value")
        await page.get_by_role("button", name="Azimuth", exact=True).click()
        await page.get_by_label(re.compile(f"^View {view_id} at ")).fill("[11-20]")
        await page.get_by_role("button", name="Set", exact=True).click()
        await expect(page.locator("#view option", has_text="Aligned, [11-20] (")).to_have_count(1)
        await growth.push(4)
        await expect(page.locator(f'.tile[data-name="view {view_id}"] dt')).to_have_text(
            re.compile(r"^Spacing, \[11-20\] at \d")
        )
        assert (await labels_of(server, growth))[str(view_id)] == "[11-20]"
