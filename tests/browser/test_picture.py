"""The look of the picture: palettes, gain, gamma, zoom, full screen, names of regions; in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth, regions_of
from tests.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
STATIC = "/dashboard/static/js"
COLOURS = f"""async (look) => {{
  const {{ colourTable }} = await import("{STATIC}/palettes.js");
  const table = colourTable(look, 256, (code) => code / 255);
  return [0, 64, 254, 255].map((code) => [0, 8, 16].map((bits) => (table[code] >>> bits) & 255));
}}"""
MEAN = """() => { const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.reduce((sum, value, k) => sum + (k % 4 === 1 ? value : 0), 0) / (pixels.length / 4); }"""

HUD = """() => { const hud = document.getElementById("hud"), rate = document.getElementById("hud-rate");
  return [0.727 * parseFloat(getComputedStyle(rate).fontSize) > 0.09 * innerHeight,
          hud.getBoundingClientRect().bottom <= innerHeight + 1]; }"""


async def test_palettes_gain_and_gamma(logged_in: Any) -> None:
    """Each palette has the colours that its name states, gain and gamma brighten, and full scale differs from all other
    levels.
    """
    page = logged_in
    await page.goto("/")
    gray = {"palette": "gray", "gain": 1, "gamma": 1}
    assert await page.evaluate(COLOURS, gray) == [[0] * 3, [64] * 3, [254] * 3, [255, 90, 74]]
    assert (await page.evaluate(COLOURS, {**gray, "gain": 2}))[1:3] == [[128] * 3, [255] * 3]
    assert (await page.evaluate(COLOURS, {**gray, "gamma": 2}))[1] == [128] * 3
    inverted = await page.evaluate(COLOURS, {**gray, "palette": "inverted"})
    assert inverted[:3] == [[255] * 3, [191] * 3, [1] * 3]
    viridis = await page.evaluate(COLOURS, {**gray, "palette": "viridis"})
    assert viridis[0] == [0x44, 0x01, 0x54]
    assert viridis[2] == pytest.approx([0xFD, 0xE7, 0x25], abs=2)
    green = (await page.evaluate(COLOURS, {**gray, "palette": "phosphor"}))[1]
    assert green[1] > 2 * max(green[0], green[2])


WITHOUT = f"""async ([dark, darkLevel, pixels, level]) => {{
  const {{ paintWithout }} = await import("{STATIC}/dark_frame.js");
  const image = new Uint32Array(pixels.length);
  paintWithout(dark, darkLevel, pixels, level, image, Uint32Array.from({{ length: 101 }}, (_, k) => k));
  return [...image];
}}"""


async def test_a_dark_frame_is_subtracted(logged_in: Any) -> None:
    """It is subtracted in counts, also after full scale has changed; nothing becomes negative, full scale stays."""
    page = logged_in
    await page.goto("/")
    half = round(255 * 0.5**0.5)
    for dark, dark_level, pixels, level, wanted in (
        ([0.0, 0.2, 0.9, 0.2], 255, [102, 102, 102, 255], 255, [40, 20, 0, 100]),
        ([0.2, 0.2], 1023, [half, 0], 4095, [45, 0]),
        ([0.1, 0.1], 4095, [102, 255], 255, [0, 100]),
    ):
        assert await page.evaluate(WITHOUT, [dark, dark_level, pixels, level]) == wanted


async def test_the_display_settings_are_kept(logged_in: Any, growth: Growth) -> None:
    """Palette, gain and zoom are used at once and after a reload; the wheel and the keys zoom, 0 shows all.

    V shows the picture on the full screen, with the rate in digits of a tenth of its height.
    """
    page = logged_in
    await growth.show(page, 4)
    await expect(page.locator("#canvas")).to_have_attribute("data-frame", re.compile(r"\d+"))
    plain = await page.evaluate(MEAN)
    await page.get_by_role("button", name="Look").press("Enter")
    await expect(page.get_by_label("Colours")).to_be_focused()
    await page.get_by_label("Colours").select_option("inverted")
    assert await page.evaluate(MEAN) > 2 * plain
    await page.get_by_label("Gain").press("ArrowRight")
    await expect(page.locator("#look-gain-now")).to_have_text("1.1×")
    await page.keyboard.press("Escape")
    await expect(page.locator("#look")).to_be_hidden()
    stage, film = page.locator("#stage"), page.locator("#film")
    box = await stage.bounding_box()
    await page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 0.25 * box["height"])
    await page.mouse.wheel(0, -300)
    await expect(stage).to_have_attribute("data-zoom", "1.65")
    near = await film.bounding_box()
    # The place under the pointer stays there.
    assert near["x"] - box["x"] == pytest.approx(
        -0.25 * box["width"] * (near["width"] / box["width"] - 1), abs=2
    )
    await page.reload()
    await expect(stage).to_have_attribute("data-zoom", "1.65")
    await expect(page.locator("#look-palette")).to_have_value("inverted")
    await expect(page.get_by_role("button", name="Fit").first).to_be_visible()
    await stage.press("+")
    await stage.press("ArrowLeft")
    moved = await film.bounding_box()
    assert moved["width"] > near["width"]
    await stage.press("0")
    assert await film.bounding_box() == await stage.bounding_box()
    await page.keyboard.press("v")
    await expect(page.locator("#hud-rate")).to_have_text(re.compile(r"\d"))
    assert await page.evaluate(HUD) == [True, True]
    await page.keyboard.press("v")
    await expect(page.locator("#hud")).to_be_hidden()


async def test_a_region_gets_a_name(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """F2 on a region asks for its name; one that another region has is refused, and the region keeps the focus."""
    page = logged_in
    await growth.show(page, 4)
    await expect(page.locator('#overlay g[data-name="specular"]')).to_have_count(1)
    await page.locator("#draw-box").press("Enter")
    region = page.locator("#overlay g.own")
    await expect(region).to_be_focused()
    await page.keyboard.press("F2")
    name = page.get_by_role("dialog").get_by_label("Name", exact=True)
    await expect(name).to_have_value("box1")
    await name.fill("Specular")
    await name.press("Enter")
    await expect(page.locator("#region-problem")).to_contain_text("Another region has this name")
    await name.fill("(01) streak")
    async with page.expect_response(lambda reply: "(01) streak" in (reply.request.post_data or "")) as saved:
        await name.press("Enter")
    await saved.value
    await expect(page.locator('#overlay g[data-name="(01) streak"]')).to_be_focused()
    assert [box["name"] for box in await regions_of(server, growth)] == ["(01) streak"]
