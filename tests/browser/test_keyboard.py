"""The pages without a pointer, in a real Chromium: the focus is always visible and never lost."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.growth import Growth, regions_of
from tests.live_server import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]
STOPS = 120
RING = """() => {
  const at = document.activeElement, style = getComputedStyle(at.querySelector(":scope > .shape") ?? at);
  const drawn = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const box = at.getBoundingClientRect();
  return {
    name: at === document.body ? null : `${at.tagName} ${at.id || at.textContent.trim().slice(0, 30)}`,
    seen: (drawn || parseFloat(style.strokeWidth) > 3)
      && box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


async def tab_to(page: Any, selector: str) -> None:
    """Press Tab until the element has the focus, as a user without a pointer does."""
    for _ in range(STOPS):
        await page.keyboard.press("Tab")
        if await page.evaluate("wanted => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


async def at_page(page: Any, growth: Growth, seconds: float = 4.0) -> None:
    """Push the beginning of a growth and open its page, until it shows values."""
    await growth.show(page, seconds)
    await expect(page.locator("#canvas")).to_have_attribute("data-frame", re.compile(r"\d+"))


async def test_from_the_key_to_the_results(page: Any, growth: Growth, server: LiveServer) -> None:
    """Log in, choose a stream, mark, zoom, download the results and log out with keys only."""
    await growth.push(8)
    await page.goto("/login")
    await page.keyboard.type(server.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/")
    await expect(page.get_by_role("link", name=re.compile("Growth 001"))).to_be_visible()
    await tab_to(page, f'a[href="{growth.path}"]')
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}{growth.path}")
    await expect(page.locator("#rate-value")).to_have_text(re.compile(r"\d"))
    await page.keyboard.press("m")
    await expect(page.locator("#events li.user .label")).to_have_text("Mark 1")
    await tab_to(page, "#more-button")
    await page.keyboard.press("Enter")
    await tab_to(page, "#csv")
    async with page.expect_download() as download:
        await page.keyboard.press("Enter")
    assert (await (await download.value).path()).read_text().startswith("frame,time_s,time_utc,")
    await tab_to(page, ".chart")
    before = await page.locator("#range").inner_text()
    await page.keyboard.press("+")
    assert await page.locator("#range").inner_text() != before
    for _ in range(STOPS):
        await page.keyboard.press("Shift+Tab")
        if await page.evaluate("document.activeElement.id === 'logout'"):
            break
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/login")
    await expect(page.get_by_label("API key")).to_be_focused()


async def test_each_focused_element_is_visible(logged_in: Any, growth: Growth) -> None:
    """Tab visits all controls of a stream's page; each has a focus ring and is inside the window."""
    page = logged_in
    await at_page(page, growth)
    await expect(page.locator('#overlay g[data-name="specular"]')).to_have_count(1)
    await page.keyboard.press("m")
    await expect(page.locator("#events li.user")).to_have_count(1)
    stops = []
    while len(stops) < STOPS:
        await page.keyboard.press("Tab")
        stop = await page.evaluate(RING)
        if stop["name"] is None:
            break
        stops.append(stop)
    assert [stop["name"] for stop in stops if not stop["seen"]] == []
    names = " ".join(stop["name"] for stop in stops)
    for wanted in ("mark", "more-button", "logout", "azimuths", "specular", "follow", "waterfall-line"):
        assert wanted in names
    assert 20 < len(stops) < STOPS


def put_body(reply: Any) -> str:
    """The body of a PUT request; "" for other requests."""
    return (reply.request.post_data or "") if reply.request.method == "PUT" else ""


async def test_a_region_is_created_by_keys(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """Enter on "+ Box" creates a focused box in the middle; Delete removes it and moves the focus back.

    Delete also does that while the creation of the box is still being saved.
    """
    page = logged_in
    height, width = growth.spec.height, growth.spec.width
    await at_page(page, growth)
    await tab_to(page, "#draw-box")
    # A slow machine may send one request per step: wait for the last one.
    async with page.expect_response(lambda reply: f'"height":{height // 5 + 1}' in put_body(reply)) as kept:
        await page.keyboard.press("Enter")
        await expect(page.locator('#overlay g[data-name="box1"]')).to_be_focused()
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("Shift+ArrowDown")
    await kept.value
    (box,) = await regions_of(server, growth)
    assert (box["x"], box["width"]) == (width // 2 + 1, width // 5)
    assert box["height"] == height // 5 + 1
    await expect(page.locator('#overlay g[data-name="box1"]')).to_be_focused()
    async with page.expect_response(
        lambda reply: put_body(reply) and "box1" not in put_body(reply)
    ) as removed:
        await page.keyboard.press("Delete")
    await removed.value
    await expect(page.locator("#draw-box")).to_be_focused()
    assert await regions_of(server, growth) == []

    # A box that is deleted while its creation is still being saved stays deleted.
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(route: Any) -> None:
        if route.request.method == "PUT":
            arrived.set()
            await go_on.wait()
        await route.continue_()

    await page.route("**/regions", slowly)
    await page.keyboard.press("Enter")
    await arrived.wait()
    await page.keyboard.press("Delete")
    async with page.expect_response(
        lambda reply: put_body(reply) and "box1" not in put_body(reply)
    ) as removed:
        go_on.set()
    await removed.value
    await expect(page.locator('#overlay g[data-name="box1"]')).to_have_count(0)
    assert await regions_of(server, growth) == []


async def test_the_focus_returns_to_the_opening_button(logged_in: Any, growth: Growth) -> None:
    """Enter opens, Escape closes at once, and the focus is where it was before. Escape also cancels a drawing."""
    page = logged_in
    await at_page(page, growth)
    await page.get_by_role("button", name="+ Box").click()
    await expect(page.locator("#draw-box")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("Escape")
    await expect(page.locator("#draw-box")).to_have_attribute("aria-pressed", "false")
    for opener, opened in (
        ("#health-button", "#health"),
        ("#more-button", "#more"),
        ("#azimuths", "#azimuth-dialog"),
        ("#calibrate", "#calibrate-dialog"),
    ):
        await tab_to(page, opener)
        await page.keyboard.press("Enter")
        await expect(page.locator(opened)).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(page.locator(opened)).to_be_hidden()
        await expect(page.locator(opener)).to_be_focused()


async def test_lists_keep_the_focus_while_they_grow(logged_in: Any, growth: Growth) -> None:
    """A focused event or segment keeps the focus when new ones arrive."""
    page = logged_in
    await at_page(page, growth)
    await page.keyboard.press("m")
    await expect(page.locator("#events li.user")).to_have_count(1)
    newest = page.locator("#segments tr").first
    for within in ("#segments button", "#events button"):
        line = page.locator(within).last
        await line.focus()
        before, marks = await newest.inner_text(), await page.locator("#events li.user").count()
        await page.keyboard.press("m")
        await growth.push(4)
        await expect(page.locator("#events li.user")).to_have_count(marks + 1)
        await expect(newest).not_to_have_text(before, use_inner_text=True)
        await expect(line).to_be_focused()


async def test_the_image_of_a_past_time_and_back(logged_in: Any, growth: Growth) -> None:
    """Enter on a chart shows the image at its middle; "Back to live" moves the focus to the main part of the page."""
    page = logged_in
    await at_page(page, growth, 12.0)
    await tab_to(page, ".chart")
    await page.keyboard.press("Enter")
    await page.wait_for_function("() => Math.abs(Number(canvas.dataset.frame) - 120) < 4")
    await page.locator("#to-live").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#to-live")).to_be_hidden()
    await page.wait_for_function("() => Number(canvas.dataset.frame) > 230")
    await expect(page.locator("#main")).to_be_focused()
