"""The calibration dialog in a real Chromium: running and finished streams, keyboard, clear errors."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
ENTRIES = {
    "Layer thickness nm": "0.3905",
    "Beam energy keV": "20",
    "Distance from sample to screen mm": "300",
    "Screen scale px/mm": "3,5",
}
"""The geometry of the simulator at half size; one number has a decimal comma."""


async def calibration_of(server: LiveServer, growth: Growth) -> dict[str, Any]:
    """The calibration that the server stores."""
    async with WireClient(server) as client:
        known: dict[str, Any] = (await client.ask("GET", f"/rheed/stream/{growth.data_id}/calibration"))[1]
    return known


async def fill(page: Any) -> None:
    """Open the dialog and fill it in."""
    await page.get_by_role("button", name="Calibrate").click()
    for label, text in ENTRIES.items():
        await page.get_by_label(label, exact=True).fill(text)


async def expect_lengths(page: Any) -> None:
    """Expect nm/s, Å and strain on the page, correct for the simulated crystal."""
    await expect(page.locator("#rate-second")).to_have_text(re.compile(r"^0\.62\d* ± .* nm/s$"))
    lattice = page.locator('.tile[data-name="lattice_parameter"]')
    await expect(lattice.locator(".value")).to_have_text(re.compile(r"^3\.(89|9[0-2])\d*$"))
    await expect(lattice.locator(".unit")).to_have_text(" Å")
    await expect(page.locator('.tile[data-name="referenced_strain"] .unit')).to_have_text(" %")


async def test_a_running_stream_is_calibrated(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Units are relative; after a calibration the next result has nm/s, Å and strain; the dialog has the values.

    eV instead of keV, or text, is refused at its field, which gets the focus; Escape changes nothing.
    """
    page = logged_in
    await growth.show(page, 6.0)
    await expect(page.locator("#units-note")).to_contain_text("Relative units")
    await expect(page.locator('.tile[data-name="lattice_parameter"]')).to_be_hidden()
    await page.get_by_role("button", name="Calibrate").press("Enter")
    energy = page.get_by_label("Beam energy keV")
    await energy.fill("20000")
    await page.get_by_label("Distance from sample to screen mm").fill("far")
    await page.keyboard.press("Enter")
    await expect(energy).to_be_focused()
    await expect(energy).to_have_attribute("aria-invalid", "true")
    await expect(page.locator("#cal-beam_energy-error")).to_have_text(
        "A number from 1 to 200 keV, or nothing."
    )
    await expect(page.locator("#cal-screen_sample_distance-error")).not_to_be_empty()
    await energy.fill("20")
    await expect(page.locator("#cal-beam_energy-error")).to_be_empty()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    assert await calibration_of(server, growth) == {}
    await fill(page)
    await expect(page.locator("#calibrate-gives")).to_have_text(
        "Gives growth rate in nm/s, lattice parameter in Å."
    )
    await page.get_by_role("button", name=re.compile("^Use the current")).click()
    await page.get_by_role("button", name="Set", exact=True).click()
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await growth.push(2)
    await expect_lengths(page)
    await expect(page.locator("#units-note")).to_contain_text("20 keV, 300 mm, 3.5 px/mm")
    assert (await calibration_of(server, growth))["px_per_mm"] == 3.5
    await page.reload()
    await page.get_by_role("button", name="Calibrate").click()
    await expect(page.get_by_label("Beam energy keV")).to_have_value("20")


async def test_a_finished_stream_is_calibrated(logged_in: Any, growth: Growth) -> None:
    """All results of an ended stream are computed again with the calibration, on the open page."""
    page = logged_in
    await growth.show(page, 6.0)
    await growth.streamer.finalize(growth.data_id)
    await expect(page.locator("#status")).to_have_text("Complete")
    await page.reload()
    await expect(page.locator("#rate-value")).to_have_text(re.compile(r"\d+\.\d+"))
    await fill(page)
    await page.get_by_role("button", name=re.compile("^Use the current")).click()
    await page.get_by_role("button", name="Set", exact=True).click()
    await expect_lengths(page)


async def test_the_lattice_parameter_over_time(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """The third chart shows the relative change; with a calibration it shows Å, also for earlier data."""
    page = logged_in
    chart = page.get_by_role("group", name=re.compile(" over "))
    quantity = page.get_by_label("Quantity of the third chart")
    await growth.show(page, 6.0)
    await expect(quantity).to_have_value("relative_lattice_change")
    await expect(quantity.locator("option", has_text="Lattice parameter")).to_have_count(0)
    await growth.streamer.calibrate(
        growth.data_id, beam_energy=20.0, screen_sample_distance=300.0, px_per_mm=3.5
    )
    await growth.push(2)
    await expect(quantity).to_have_value("lattice_parameter")
    label = re.compile(
        r"^Lattice parameter over 0:00.* from 3\.(89|9[01])\d* to 3\.9[0-2]\d*, newest 3\.9\d* Å"
    )
    await expect(chart.nth(2)).to_have_attribute("aria-label", label)
    await quantity.select_option("lattice_spacing")
    await growth.push(2)
    await expect(quantity).to_have_value("lattice_spacing")  # the choice of the user stays
