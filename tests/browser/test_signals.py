"""Signals of instruments as lanes under the growth rate; in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_lanes_under_the_growth_rate(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Each channel of the sample is a lane with its unit and newest value, and follows the range; names are text."""
    page, begin = logged_in, growth.start_ms / 1000.0
    await growth.show(page, 4)
    await expect(page.locator("#signals")).to_be_hidden()
    async with WireClient(server) as client:
        _, tool = await client.ask("POST", "/tool-state/stream/initialize", {})
        _, sample = await client.ask("POST", "/physical_samples/", {"name": "GaN"})
        links = {"data_ids": [growth.data_id, tool["data_id"]], "physical_sample_id": sample["id"]}
        await client.ask("POST", "/data_entries/physical_sample", links)
        channels = {
            "T <b>sub</b>": {"timestamps": [begin, begin + 1], "values": [500.0, 612.5], "units": "°C"},
            "shutter": {"timestamps": [begin - 1, begin + 2], "values": [0, 1]},
        }
        body = {"data_id": tool["data_id"], "chunk_index": 0, "channels": channels}
        assert (await client.ask("POST", "/tool-state/stream/chunk/multi", body))[0] == 200
    await expect(page.locator("#signals h3")).to_have_text(["T <b>sub</b>", "shutter"])
    await expect(page.locator("#signals .now")).to_have_text(["612.5", "1"])
    await expect(page.locator("#signals canvas")).to_have_count(2)
    lane = page.locator("#signals .lane-plot").first
    await expect(lane).to_have_attribute("aria-label", "T <b>sub</b> from 0:00.0 to 0:10.0: newest 612.5 °C")
    order = await page.locator("#charts h3, #charts select").evaluate_all(
        "(all) => all.map((one) => one.textContent)"
    )
    assert order.index("Growth rate") < order.index("shutter") < len(order) - 1
