"""A real Chromium and a real server; the real client sends the simulator's frames."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser.growth import Growth
from tests.live_server import LiveServer, Serve

ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXPECTED = re.compile(
    r"401 \(Unauthorized\)|ERR_CONNECTION_(REFUSED|RESET|CLOSED)|ERR_EMPTY_RESPONSE|WebSocket connection to"
    r"|404 \(Not Found\)"
)
"""Console errors of Chromium about replies that the pages handle."""


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """A new Chromium for each test."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with api.async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=path, args=ARGS)
        yield launched
        await launched.close()


@pytest.fixture
async def page(browser: Any, server: LiveServer) -> AsyncIterator[Any]:
    """An empty page at 1280 x 800. A script error, a blocked script or a request to another host fails the test."""
    context = await browser.new_context(
        viewport={"width": 1280, "height": 800}, base_url=server.url, reduced_motion="reduce"
    )
    made, problems = await context.new_page(), []
    made.set_default_timeout(20_000)
    made.on("pageerror", lambda error: problems.append(f"error: {error}"))
    made.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    made.on("console", lambda message: _note(problems, message))
    made.on("request", lambda asked: _note_request(problems, asked.url, server.url))
    yield made
    await context.close()
    assert problems == []


def _note(problems: list[str], message: Any) -> None:
    if message.type == "error" and not EXPECTED.search(message.text):
        problems.append(f"console: {message.text}")


def _note_request(problems: list[str], asked: str, own: str) -> None:
    if not asked.startswith(f"{own}/"):
        problems.append(f"a request to elsewhere: {asked}")


@pytest.fixture
async def server(serve: Serve) -> LiveServer:
    """A server."""
    return await serve()


@pytest.fixture
async def growth(server: LiveServer) -> AsyncIterator[Growth]:
    """A simulated growth, streamed by the real client."""
    async with Growth.begin(server) as made:
        yield made


@pytest.fixture
async def logged_in(page: Any, server: LiveServer) -> Any:
    """A page that is logged in and shows the list of streams."""
    await page.goto("/login")
    await page.get_by_label("API key").fill(server.api_key)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/")
    return page
