"""The main values fit on the screen, and hours of a growth stay readable; in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
FORMAT = "/dashboard/static/js/format.js"
HEALTH = "/dashboard/static/js/health.js"
CHARTS = "/dashboard/static/js/charts.js"


CUT_TEXTS = """() => [...document.querySelectorAll(".tile .under, .tile dt, .rate-why, #age")]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
    .filter((e) => getComputedStyle(e).display !== "inline" && e.checkVisibility()).map((e) => e.textContent)"""


async def test_the_main_parts_fit(logged_in: Any, growth: Growth) -> None:
    """Rate, image, charts and waterfall are visible without scrolling; a lower window makes the charts lower."""
    page = logged_in
    await growth.push(4)
    for width, height in ((1280, 800), (1920, 1080)):
        size = f"{width} x {height}"
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(growth.path)
        await expect(page.locator("#rate-value"), size).to_have_text(re.compile(r"\d"))
        await expect(page.locator("#waterfall"), size).to_have_attribute("data-columns", re.compile(r"[1-9]"))
        for wanted in ("#rate", "#stage", ".chart >> nth=0", ".chart >> nth=2", "#waterfall"):
            await expect(page.locator(wanted), size).to_be_in_viewport(ratio=1)
        assert await page.evaluate(CUT_TEXTS) == []
        before = (await page.locator(".chart").first.bounding_box())["height"]
        await page.set_viewport_size({"width": width, "height": height + 100})
        await page.wait_for_function(
            "before => document.querySelector('.chart').clientHeight > before", arg=before
        )
        await expect(page.locator("#waterfall"), size).to_be_in_viewport(ratio=1)


async def test_many_marks(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Marks too close for their labels are strokes in the lane; their table scrolls inside its own frame."""
    page = logged_in
    await growth.push(2)
    async with WireClient(server) as client:
        for k in range(60):
            event = {
                "label": f"Pulse {k}",
                "kind": "shutter",
                "time_ms_utc": growth.start_ms + 2000.0 + 150.0 * k,
            }
            status, _ = await client.ask("POST", f"/rheed/stream/{growth.data_id}/events", event)
            assert status < 300
    await growth.push(10)
    await page.goto(growth.path)
    await page.wait_for_function("""() => {  // in one step, because the lane is redrawn when results arrive
      const box = document.querySelector("#lane span.bare")?.getBoundingClientRect();
      return box?.height >= 8 && box.width >= 1;
    }""")
    await page.evaluate("""() => {
      const rows = document.getElementById("segments");
      for (let k = 0; k < 60; k++) rows.append(rows.firstElementChild.cloneNode(true));
    }""")
    table = await page.locator(".segments .scroll").bounding_box()
    assert table["height"] <= 400


async def test_times_of_the_axis(logged_in: Any) -> None:
    """Hours after the start, a time label has enough digits, is rounded correctly, and fits next to the last tick."""
    page = logged_in
    await page.goto("/")
    clock = f"""async () => (await import("{FORMAT}")).clock"""
    for seconds, decimals, wanted in [
        (7384.25, 2, "2:03:04.25"), (7384.25, 0, "2:03:04"), (59.96, 1, "1:00.0"), (3599.7, 0, "1:00:00"),
        (4.2, 1, "0:04.2"), (-1.5, 1, "\u22120:01.5"), (-0.02, 1, "0:00.0"), (0.125, 3, "0:00.125"),
    ]:  # fmt: skip
        made = f"([s, d]) => ({clock})().then((clock) => clock(s, d))"
        assert await page.evaluate(made, [seconds, decimals]) == wanted
    steps = await page.evaluate(f'async () => (await import("{FORMAT}")).TIME_STEPS')
    assert [step for step in steps if 1 <= step <= 3600] == [
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
        3600,
    ]
    assert 25 not in steps
    gaps = [{"value": 3, "time_s": 12.2}, {"value": 1200, "time_s": 41.0}]
    missing = f'async (gaps) => (await import("{HEALTH}")).missingFrames(gaps)'
    assert await page.evaluate(missing, gaps) == "1\u202f203 in 2 places: 3 at 0:12.2, 1\u202f200 at 0:41.0"
    assert await page.evaluate(missing, []) == "none"


async def test_the_last_label_is_whole(logged_in: Any, growth: Growth) -> None:
    """Half of the longest label, at ten hours and hundredths of a second, fits to the right of the last tick."""
    page = logged_in
    await growth.push(2)
    await page.goto(growth.path)
    half = await page.evaluate("""() => {
      const context = document.createElement("canvas").getContext("2d");
      context.font = "12px Inter, system-ui, sans-serif";
      return document.fonts.load(context.font).then(() => context.measureText("10:44:44.44").width / 2);
    }""")
    right = await page.evaluate(f'() => import("{CHARTS}").then(({{ RIGHT }}) => RIGHT)')
    assert 20 < half <= right
