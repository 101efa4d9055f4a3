"""The page that compares a growth with an earlier one, in a real Chromium."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.accessibility import violations
from tests.browser.assertions import expect
from tests.live_server import LiveServer
from tests.wire_client import WireClient, make_frames

SHARE_OF_WHITE = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((value, k) => k % 4 === 0 && value === 255).length / (data.length / 4);
}"""

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


async def test_a_growth_over_an_earlier_one(page_for_axe: Any, server: LiveServer) -> None:
    """Chart, rule, both pictures and their difference; without enough growths the page states why there is no band."""
    page = page_for_axe
    async with WireClient(server) as client:
        ids = []
        for name in ("Earlier <b>", "Today"):
            ids.append(await client.create(name))
            await client.send(ids[-1], 0, make_frames(4, seed=len(ids)) // 4)
            await client.ask("PATCH", f"/rheed/stream/{ids[-1]}", {"sample_name": "Wafer"})
            await client.end(ids[-1])
    await page.goto(f"{server.url}/streams/{ids[1]}")
    await page.get_by_role("link", name="Compare").click()
    await expect(page.locator("#name")).to_have_text("Today")
    await expect(page.locator("#ghost")).to_have_value(ids[0])
    await expect(page.locator("#verdict")).to_contain_text("needs 3 ended growths")
    await expect(page.locator("#rule")).to_contain_text("“Earlier <b>”, the best of the same sample, Wafer")
    await expect(page.locator("#notes")).to_contain_text("no mark begins a segment")
    await page.get_by_label("Aligned on").select_option("start")
    await page.get_by_label("Quantity").select_option("specular_intensity")
    await page.get_by_label("Place on the axis").focus()
    await page.keyboard.press("Home")
    for name in ("today", "ghost", "difference"):
        await expect(page.locator(f"#picture-{name}")).to_have_attribute("data-frame", "0")
    await expect(page.locator("#caption-difference")).to_contain_text("counts")
    await expect(page.locator("#caption-today")).to_contain_text("white:")
    shares = [await page.locator(f"#picture-{name}").evaluate(SHARE_OF_WHITE) for name in ("today", "ghost")]
    assert max(shares) >= 0.001  # dim pictures are shown brightly
    assert await violations(page) == []
