"""What the page shows about late chunks, and the button that analyses a finished stream again; in a real Chromium."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.assertions import expect
from tests.browser.conftest import in_one_loop
from tests.browser.growth import CHUNK, FPS, Growth, chunk_of
from tests.live_helpers import batches_until, feed
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(180)]


@in_one_loop()
async def server(serve: Serve) -> LiveServer:
    """A server that does not wait for a missing chunk."""
    return await serve(gap_wait_s=0.05)


async def push_chunk(growth: Growth, index: int) -> None:
    """Push one chunk, in any order."""
    frames = chunk_of(growth.spec, index)
    await growth.streamer.push(growth.data_id, index, frames, growth.start_ms + 1000.0 * index * CHUNK / FPS)
    await growth.streamer.flush(growth.data_id)


async def test_a_late_chunk_is_shown(logged_in: Any, growth: Growth, server: LiveServer) -> None:
    """The page shows which chunk the results do not include and when they will; after the end nothing."""
    page, notice = logged_in, logged_in.locator("#missing-text")
    for index in (0, 1, 2, 4, 5):
        await push_chunk(growth, index)
    async with WireClient(server) as client, feed(client, growth.data_id) as socket:
        await batches_until(socket, 6 * CHUNK)  # the gap was skipped
    await page.goto(growth.path)
    await expect(page.locator("#missing")).to_be_hidden()
    await push_chunk(growth, 3)
    await expect(notice).to_contain_text("do not include chunk 3, which arrived late")
    await growth.streamer.finalize(growth.data_id)
    await expect(page.locator("#status")).to_have_text("Complete")
    await expect(page.locator("#missing")).to_be_hidden()


async def test_a_finished_stream_is_analysed_again(logged_in: Any, growth: Growth) -> None:
    """A button under Data, shown after the end of the stream, starts it; the page shows the progress."""
    page = logged_in
    await growth.show(page, 4)
    await page.get_by_role("button", name="Data").click()
    button = page.get_by_role("button", name="Analyse again")
    await expect(button).to_be_hidden()
    await growth.streamer.finalize(growth.data_id)
    await expect(button).to_be_visible()
    await page.locator("#missing-text").evaluate(
        "box => { window.texts = []; new MutationObserver(() => texts.push(box.textContent))"
        ".observe(box, { childList: true, characterData: true, subtree: true }); }"
    )
    await button.click()
    await expect(button).to_be_hidden()
    await expect(button).to_be_visible()
    await expect(page.locator("#missing")).to_be_hidden()
    assert any("being analysed again" in text for text in await page.evaluate("texts"))
    await expect(page.locator("#rate-value")).to_have_text(re.compile(r"\d+\.\d+"))


async def test_missing_views_have_a_reason(logged_in: Any, server: LiveServer) -> None:
    """A sample that rotates too fast for the camera has no views, and the page shows what to change."""
    async with Growth.begin(server, rpm=30.0) as growth:
        await growth.push(8)
        await logged_in.goto(growth.path)
        tile = logged_in.locator('.tile[data-name="views"]')
        await expect(tile).to_contain_text("a turn has 40 frames")
        await expect(tile).to_contain_text("rotate at most at 20 rpm")
        # Text is longer than a number: it must fit into its tile.
        wide = "tiles => tiles.every(tile => [...tile.querySelectorAll('span')].every(s => s.getBoundingClientRect()"
        wide += ".right <= tile.getBoundingClientRect().right + 1))"
        assert await logged_in.locator(".tile:visible").evaluate_all(wide)
