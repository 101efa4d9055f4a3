"""Traces of regions in one chart, their spectra, and a line profile with its fits; in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import SPEC, Growth

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_traces_spectra_and_profiles(logged_in: Any, growth: Growth) -> None:
    """Regions join the chart; the spectrum's peak is the growth rate; a profile has the fits of its three streaks.

    What is chosen stays after a reload.
    """
    page = logged_in
    await growth.show(page, 12)
    await page.locator("#draw-box").press("Enter")
    chart = page.locator("#traces-chart")
    await chart.scroll_into_view_if_needed()
    await expect(chart).to_have_attribute(
        "aria-label", re.compile(r"Traces over .*Specular: highest .*box1: highest")
    )
    await page.get_by_role("checkbox", name=re.compile("^box1")).uncheck()
    await page.get_by_role("button", name="Spectrum").press("Enter")
    await expect(chart).to_have_attribute("aria-label", re.compile(r"^Amplitude spectra .*Specular: highest"))
    label = await chart.get_attribute("aria-label")
    assert "box1" not in label
    assert float(re.findall(r"Specular: highest .* at ([\d.]+)$", label)[0]) == pytest.approx(
        SPEC["rate_ml_s"], abs=0.08
    )
    await chart.press("+")
    await expect(page.locator("#traces-note")).to_contain_text("amplitude in counts")
    await page.reload()
    await expect(page.get_by_role("button", name="Spectrum")).to_have_attribute("aria-pressed", "true")
    await expect(page.get_by_role("checkbox", name=re.compile("^box1"))).not_to_be_checked()
    await page.get_by_role("button", name="Profile", exact=True).press("Enter")
    await chart.scroll_into_view_if_needed()
    await expect(page.locator("#profile-rows tr")).to_have_count(3)
    await expect(page.locator("#profile-rows td").first).to_have_text(re.compile(r"^\d+\.\d+ ± \d\.\d+ px$"))
    await expect(chart).to_have_attribute("aria-label", re.compile(r"Fit: highest \d"))
