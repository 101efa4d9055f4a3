"""Alarms on the page: set in the dialog, shown as a banner until the cause is gone; in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_an_alarm_is_set_and_silenced(page_for_axe: Any, server: LiveServer, growth: Growth) -> None:
    """A limit that the rate breaks raises the banner; Silence ends the sound, removing the rule ends the alarm.

    The page with its panels, dialogs and banner has no violation of WCAG 2.1 AA, in both themes.
    """
    page = page_for_axe
    await growth.push(4)
    await page.goto(f"{server.url}{growth.path}")
    await page.wait_for_function("() => /\\d/.test(document.getElementById('rate-value').textContent)")
    await page.get_by_role("button", name="Alarms").press("Enter")
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Set the alarm").press("Enter")
    await expect(dialog.get_by_role("alert")).to_contain_text("Choose when it is an alarm")
    await dialog.get_by_label("Alarm below").fill("2,5")
    await dialog.get_by_label("Alarm below").press("Enter")
    await expect(dialog.get_by_role("listitem")).to_contain_text("Growth rate below 2.5 ML/s")
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    banner = page.locator("#alarm-banner")
    await expect(banner.get_by_role("alert")).to_contain_text("below 2.5.")
    await banner.get_by_role("button", name="Silence").press("Enter")
    await expect(banner.get_by_role("button", name="Silence")).to_be_hidden()
    await page.get_by_role("button", name="Look").press("Enter")
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Light").click()
    assert await violations(page) == []
    await page.get_by_role("button", name="Alarms: 1").press("Enter")
    await dialog.get_by_role("button", name="Remove the alarm on Growth rate").press("Enter")
    await expect(dialog.get_by_role("listitem")).to_contain_text("No alarm is set")
    await expect(banner).to_be_hidden()
