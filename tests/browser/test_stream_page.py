"""The page of one stream in a real Chromium: live data, zoom, marks, regions, reconnection."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from tests.browser.assertions import expect
from tests.browser.growth import SPEC, Growth, regions_of
from tests.live_server import LiveServer
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
NUMBER = re.compile(r"\d+\.\d+")


async def at_page(page: Any, growth: Growth, seconds: float = 12.0) -> None:
    """Push the beginning of a growth and open its page."""
    await growth.push(seconds)
    await page.goto(growth.path)
    await expect(page.locator("#canvas")).to_have_attribute("data-frame", re.compile(r"\d+"))
    await expect(page.locator("#range")).to_have_text(re.compile(rf"– 0:{max(10.0, seconds):04.1f}$"))


async def frame_shown(page: Any) -> int:
    """The number of the frame in the image."""
    return int(await page.locator("#canvas").get_attribute("data-frame"))


async def events_of(server: LiveServer, data_id: str) -> list[dict[str, Any]]:
    """The user's events that the server stores."""
    async with WireClient(server) as client:
        _, events = await client.ask("GET", f"/rheed/stream/{data_id}/events")
    return [event for event in events if event["by"] == "user"]


def seconds(text: str) -> float:
    """``1:02.5`` as seconds."""
    total = 0.0
    for part in text.strip().split(":"):
        total = 60.0 * total + float(part)
    return total


async def range_of(page: Any) -> tuple[float, float]:
    """The time range of the charts, in s."""
    first, last = (await page.locator("#range").inner_text()).split("–")
    return seconds(first), seconds(last)


async def test_the_page_follows_live(logged_in: Any, growth: Growth) -> None:
    """Rate, image, charts and counts are shown, agree with the simulator, and update without a reload.

    At 1280 x 800 the digits of the rate are at least 60 px high, those of the uncertainty 26: readable from three
    metres.
    """
    page = logged_in
    await at_page(page, growth)
    await expect(page.locator("#rate-value")).to_have_text(NUMBER)
    rate = float(await page.locator("#rate-value").inner_text())
    sigma = float((await page.locator("#rate-sigma").inner_text()).removeprefix("± "))
    assert abs(rate - SPEC["rate_ml_s"]) < max(0.02, 4 * sigma)
    await expect(page.locator("#rate-unit")).to_have_text("ML/s")
    size = "id => 0.727 * parseFloat(getComputedStyle(document.getElementById(id)).fontSize)"
    assert await page.evaluate(size, "rate-value") >= 60
    assert await page.evaluate(size, "rate-sigma") >= 26
    await expect(page.locator(".chart canvas")).to_have_count(3)
    before = await frame_shown(page)
    _, end = await range_of(page)
    await growth.push(4)
    await page.wait_for_function("before => Number(canvas.dataset.frame) > before", arg=before)
    await page.wait_for_function(
        "end => Number(document.getElementById('range').textContent.split('–')[1].split(':')[1]) > end + 2",
        arg=end,
    )
    assert (await frame_shown(page)) < growth.chunks * 40
    await expect(page.locator("#waterfall")).to_have_attribute("data-columns", re.compile(r"[1-9]\d*"))


async def test_undetermined_is_shown_with_its_reason(logged_in: Any, server: LiveServer) -> None:
    """Without a signal the page shows "undetermined" and the reason, never a number."""
    async with Growth.begin(server, rate_ml_s=0.0, gain=0.0) as growth:
        await at_page(logged_in, growth, 4.0)
        await expect(logged_in.locator("#rate-value")).to_have_text("undetermined")
        await expect(logged_in.locator("#rate-why")).to_have_text(re.compile(r"\w+.*\.$"))
        await expect(logged_in.locator("#rate-unit")).to_have_text("")


async def test_zoom(logged_in: Any, growth: Growth) -> None:
    """A drag zooms in, loads finer data, and the range stays while new data arrive; a double click shows all.

    Plus and minus zoom, arrows move, 0 shows all, F follows; the wheel zooms at the pointer.
    """
    page = logged_in
    await at_page(page, growth)
    whole = await range_of(page)
    over = page.locator(".chart .u-over").first
    # The parts above the charts grow with the first values, which arrive after the frames.
    await expect(page.locator("#rate-value")).to_have_text(NUMBER)
    await expect(page.locator(".chart").first).to_have_attribute(
        "aria-label", re.compile(r" at 0:1[12]\.\d$")
    )
    box = await over.bounding_box()
    y = box["y"] + box["height"] / 2
    async with page.expect_request(re.compile(r"/series\?.*from=")):
        await page.mouse.move(box["x"] + 0.4 * box["width"], y)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 0.5 * box["width"], y, steps=5)
        await page.mouse.up()
    zoomed = await range_of(page)
    assert zoomed[1] - zoomed[0] == pytest.approx(0.1 * (whole[1] - whole[0]), abs=0.3)
    await expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "false")
    before = await frame_shown(page)
    await growth.push(2)
    await page.wait_for_function("before => Number(canvas.dataset.frame) > before", arg=before)
    assert await range_of(page) == zoomed
    await over.dblclick()
    await expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "true")
    assert (await range_of(page))[0] == 0.0
    await expect(page.locator("#range")).to_have_text(re.compile(r"– 0:14\.0$"))  # the newest data are there

    def span(range_: tuple[float, float]) -> float:
        return range_[1] - range_[0]

    whole = await range_of(page)
    await page.locator(".chart").first.focus()
    await page.keyboard.press("+")
    await page.keyboard.press("+")
    closer = await range_of(page)
    assert span(closer) < 0.5 * span(whole)
    await page.keyboard.press("ArrowLeft")
    moved = await range_of(page)
    assert moved[0] < closer[0]
    assert span(moved) == pytest.approx(span(closer), abs=0.2)
    await page.keyboard.press("f")
    assert (await range_of(page))[1] == pytest.approx(whole[1], abs=0.2)
    await page.keyboard.press("0")
    assert await range_of(page) == whole
    await over.hover()
    await page.mouse.wheel(0, -300)
    assert span(await range_of(page)) < span(whole)


async def test_a_drag_holds_the_time_under_the_pointer(logged_in: Any, growth: Growth) -> None:
    """Data that arrive during a drag do not move the axis: the selected range is the one that was visible."""
    page, chart = logged_in, logged_in.locator(".chart").first
    await at_page(page, growth)
    await expect(chart).to_have_attribute("aria-label", re.compile(r" at 0:1[12]\.\d$"))
    box = await chart.locator(".u-over").bounding_box()
    y = box["y"] + box["height"] / 2
    await page.mouse.move(box["x"] + 0.4 * box["width"], y)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 0.45 * box["width"], y, steps=3)
    await growth.push(4)
    await expect(chart).to_have_attribute("aria-label", re.compile(r" at 0:1[56]\.\d$"))
    assert await range_of(page) == (0.0, 12.0)
    await page.mouse.move(box["x"] + 0.5 * box["width"], y, steps=3)
    await page.mouse.up()
    assert await range_of(page) == pytest.approx((4.8, 6.0), abs=0.15)


async def test_the_page_reconnects_after_a_restart(
    logged_in: Any, growth: Growth, server: LiveServer
) -> None:
    """The page shows that the server stopped; when it is back, the page continues without a reload or login."""
    page = logged_in
    await at_page(page, growth)
    await expect(page.locator("body")).to_have_attribute("data-link", "up")
    await page.evaluate("window.same = true")
    await server.stop()
    await expect(page.locator("body")).to_have_attribute("data-link", "down")
    await expect(page.get_by_text("The connection to the server is lost")).to_be_visible()
    await server.start()
    await expect(page.locator("body")).to_have_attribute("data-link", "up")
    await expect(page.locator("#notice")).to_be_hidden()
    before = await frame_shown(page)
    await growth.push(4)
    await page.wait_for_function("before => Number(canvas.dataset.frame) > before", arg=before)
    await page.wait_for_function("() => document.getElementById('range').textContent.endsWith('0:16.0')")
    assert await page.evaluate("window.same")


async def test_charts_repeat_a_failed_request(logged_in: Any, server: LiveServer) -> None:
    """A failed request of the charts is repeated, although no new result triggers it."""
    page = logged_in
    async with Growth.begin(server, rate_ml_s=0.8, tau_ml=60.0) as growth:
        await at_page(page, growth)
        await page.route("**/series?*", lambda route: route.abort("connectionreset"))
        async with page.expect_event("requestfailed"):
            await growth.push(4)
        # The last result is on the page, so that no result triggers a request of the charts.
        await page.wait_for_function("() => document.getElementById('tiles').textContent.includes('12.8')")
        async with page.expect_event("requestfailed"):
            pass
        await page.unroute("**/series?*")
        await expect(page.locator("#range")).to_have_text(re.compile(r"– 0:16\.0$"))


async def test_m_sets_a_mark(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """M sets a note at the current time, stored by the server, shown in list and lane; a count begins, no segment."""
    page = logged_in
    await at_page(page, growth)
    await expect(page.locator("#rate-value")).to_have_text(NUMBER)
    await page.keyboard.press("m")
    await expect(page.locator("#events li.user .label")).to_have_text("Mark 1")
    await expect(page.get_by_text("Oscillations since “Mark 1”")).to_be_visible()
    await expect(page.locator("[data-name=layers_grown] dt")).to_have_text("Layers since the start")
    (event,) = await events_of(server, growth.data_id)
    assert (event["label"], event["kind"]) == ("Mark 1", "note")
    await growth.push(event["time_s"] + 4 - 12)  # until the frames reach the time of the mark
    await expect(page.locator("#lane")).to_contain_text("Mark 1")
    counted = page.locator("[data-name=counted] .value")
    await expect(counted).to_have_text("0.0")
    await growth.push(6)
    await expect(counted).to_have_text(re.compile(r"^[1-9]\.\d$|^1\d\.\d$"))


async def test_shift_m_names_it_first(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Shift+M keeps the time while name and kind are entered; a typed m sets no mark, nor does Escape.

    The tile of the layers names the mark, because a shutter begins a segment.
    """
    page = logged_in
    await at_page(page, growth, 4.0)
    await page.keyboard.press("Shift+M")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.keyboard.press("Shift+M")
    await expect(page.get_by_label("What happened")).to_be_focused()
    await page.keyboard.type("mmm open")
    await page.get_by_label("Kind").select_option("shutter")
    await page.get_by_role("button", name="Set mark").click()
    await expect(page.locator("#events li.user .label")).to_have_text("mmm open")
    await expect(page.locator("[data-name=layers_grown] dt")).to_have_text("Layers since “mmm open”")
    (event,) = await events_of(server, growth.data_id)
    assert (event["label"], event["kind"]) == ("mmm open", "shutter")


async def test_the_layers_of_a_shuttered_growth(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Shutter marks so close that no rate is found between them: the tile gives the reason, not 0 layers."""
    async with WireClient(server) as client:
        for number in range(1, 5):
            mark = {"label": "open", "kind": "shutter", "time_ms_utc": growth.start_ms + 500.0 * number}
            assert (await client.ask("POST", f"/rheed/stream/{growth.data_id}/events", mark))[0] == 200
    await at_page(logged_in, growth, 4.0)
    tile = logged_in.locator("[data-name=layers_grown]")
    await expect(tile.locator("dt")).to_have_text("Layers since “open”")
    await expect(logged_in.locator("#rate-why")).to_contain_text("Shuttered growth")
    await expect(tile.locator(".value")).to_have_text("undetermined")
    await expect(tile.locator(".under")).to_have_text("for the same reason as the growth rate")


async def test_the_image_of_a_past_time(logged_in: Any, growth: Growth) -> None:
    """A click into a chart shows the frame of that time, also while new data arrive; a button returns to the newest."""
    page = logged_in
    await at_page(page, growth)
    box = await page.locator(".chart .u-over").first.bounding_box()
    await page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 20)
    back = page.get_by_role("button", name="Back to live")
    await expect(back).to_be_visible()
    await page.wait_for_function("() => Math.abs(Number(canvas.dataset.frame) - 60) < 4")
    await growth.push(4)
    await page.wait_for_function("() => document.getElementById('range').textContent.endsWith('0:16.0')")
    assert abs(await frame_shown(page) - 60) < 4
    await back.click()
    await page.wait_for_function("() => Number(canvas.dataset.frame) > 239")
    await expect(back).to_be_hidden()


def is_put_of_regions(response: Any) -> bool:
    """Whether this is the answer to changed regions; the page also reads them every two seconds."""
    return response.url.endswith("/regions") and response.request.method == "PUT"


async def test_regions_are_drawn_and_moved(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """A box is drawn by pointer, moved by keys, stored by the server and removed by Delete; its trace is charted.

    If the user drags the specular box found by the analysis, it becomes the user's region.
    """
    page = logged_in
    await at_page(page, growth, 4.0)

    await page.get_by_role("button", name="+ Box").click()
    stage = await page.locator("#stage").bounding_box()
    x, y = stage["x"] + 0.2 * stage["width"], stage["y"] + 0.6 * stage["height"]
    async with page.expect_response(is_put_of_regions) as drawn:
        await page.mouse.move(x, y)
        await page.mouse.down()
        await page.mouse.move(x + 0.25 * stage["width"], y + 0.25 * stage["height"], steps=4)
        await page.mouse.up()
    await drawn.value
    (box,) = await regions_of(server, growth)
    assert (box["name"], box["width"], box["height"]) == (
        "box1",
        pytest.approx(80, abs=2),
        pytest.approx(60, abs=2),
    )
    region = page.get_by_role("button", name=re.compile("^box1: box at"))
    await region.focus()
    async with page.expect_response(lambda reply: reply.request.method == "PUT") as moved:
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
    await moved.value
    assert (await regions_of(server, growth))[0]["x"] == box["x"] + 2
    await expect(
        page.get_by_label("Quantity of the third chart").locator("option", has_text="Region box1")
    ).to_have_count(1)
    await region.focus()
    async with page.expect_response(lambda reply: reply.request.method == "PUT") as removed:
        await page.keyboard.press("Delete")
    await removed.value
    assert await regions_of(server, growth) == []
    spot = page.locator('#overlay g[data-name="specular"] .grab')
    while (box := await spot.bounding_box()) is None:  # the overlay is being drawn again after the change
        await expect(spot).to_be_visible()
    async with page.expect_response(lambda reply: reply.request.method == "PUT") as moved:
        await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await page.mouse.down()
        await page.mouse.move(box["x"] + box["width"] / 2 + 30, box["y"] + box["height"] / 2 + 20, steps=4)
        await page.mouse.up()
    (dragged,) = (await (await moved.value).json())["regions"]
    assert (dragged["name"], dragged["tracked"]) == ("specular", True)
    await expect(page.locator('#overlay g.own[data-name="specular"]')).to_have_count(1)


async def test_a_rotating_sample_is_shown_aligned(logged_in: Any, server: LiveServer) -> None:
    """During rotation the aligned view shows frames of one azimuth only."""
    async with Growth.begin(server, rpm=30.0, length_s=20.0) as growth:
        await at_page(logged_in, growth, 16.0)
        view = logged_in.get_by_label("View of the rotating sample")
        await expect(view.locator("option", has_text="Aligned")).not_to_have_count(0)
        choice = await view.locator("option", has_text="Aligned").first.get_attribute("value")
        before = await frame_shown(logged_in)
        await view.select_option(choice)
        await logged_in.wait_for_function("before => Number(canvas.dataset.frame) !== before", arg=before)
        first = await frame_shown(logged_in)
        await growth.push(4)
        await logged_in.wait_for_function("before => Number(canvas.dataset.frame) > before", arg=first)
        per_turn = 60.0 * 20.0 / 30.0
        assert ((await frame_shown(logged_in)) - first) % per_turn == pytest.approx(0.0, abs=1.0)


async def test_the_end_is_reported(logged_in: Any, growth: Growth) -> None:
    """After the end of the stream the page shows it, with the report and the results with units."""
    page = logged_in
    await at_page(page, growth, 4.0)
    await growth.streamer.finalize(growth.data_id)
    await expect(page.locator("#status")).to_have_text("Complete")
    report = page.get_by_role("region", name="Report")
    await expect(report).to_contain_text("2, none missing")
    await expect(report).to_contain_text("80 stored, 80 analysed")
    await page.get_by_role("button", name="Data").click()
    await expect(page.locator("#zarr-path")).to_have_text(re.compile(r"frames\.zarr$"))
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Results as CSV").click()
    lines = (await (await download.value).path()).read_text().splitlines()
    assert lines[0].startswith("frame,time_s,time_utc,specular_intensity [counts],")
    assert len(lines) == 1 + 80


async def test_a_stream_that_does_not_exist(logged_in: Any, server: LiveServer) -> None:
    """The link to a missing stream shows that it does not exist, with a way to the others."""
    reply = await logged_in.goto("/streams/00000000-0000-4000-8000-000000000000")
    assert reply.status == 404
    await expect(logged_in.get_by_role("heading", level=1)).to_have_text("Not found")
    await logged_in.get_by_role("link", name="All streams").click()
    await logged_in.wait_for_url(f"{server.url}/")
    async with aiohttp.ClientSession() as session, session.get(f"{server.url}/streams/nonsense") as reply:
        assert reply.status == 404
