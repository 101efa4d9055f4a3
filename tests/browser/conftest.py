"""A real Chromium and a real server; the real client sends the simulator's frames."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import pytest_asyncio

from tests.browser.growth import Growth
from tests.leftovers import no_new_tasks
from tests.live_server import LiveServer, Serve, serving

ARGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A renderer takes 0.8 s of processor time to start: the pages of a context share one, and none is in reserve.
    "--renderer-process-limit=1",
    "--disable-features=IsolateOrigins,site-per-process,SpareRendererForSitePerProcess",
]
VIEWPORT = {"width": 1280, "height": 800}
EXPECTED = re.compile(
    r"401 \(Unauthorized\)|ERR_CONNECTION_(REFUSED|RESET|CLOSED)|ERR_EMPTY_RESPONSE|WebSocket connection to"
    r"|404 \(Not Found\)|409 \(Conflict\)|410 \(Gone\)"
)
"""Console errors of Chromium about replies that the pages handle."""


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome on this machine."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests of this folder in one event loop: the connection to the one Chromium belongs to its loop."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


in_one_loop = partial(pytest_asyncio.fixture, loop_scope="session")


@in_one_loop(scope="session")
async def chromium() -> AsyncIterator[Any]:
    """One Chromium for all tests, because a start takes a second of processor time."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with api.async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=path, args=ARGS)
        yield launched
        await launched.close()


@in_one_loop(scope="session")
async def context(chromium: Any) -> AsyncIterator[Any]:
    """The context of the fixture ``page``, with one empty page that keeps its renderer alive between the tests."""
    made = await chromium.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    await made.new_page()
    yield made
    await made.close()


@in_one_loop()
async def browser(chromium: Any, context: Any) -> AsyncIterator[Any]:
    """The Chromium, for contexts of the test's own, which share neither cookies nor storage."""
    yield chromium
    for made in chromium.contexts:
        if made is not context:
            await made.close()


@in_one_loop()
async def no_tasks_left() -> AsyncIterator[None]:
    """Fail a test that leaves asyncio tasks behind; those of the browser began before the test."""
    async with no_new_tasks():
        yield


@in_one_loop()
async def serve() -> AsyncIterator[Serve]:
    """A factory of real servers, as in ``tests/conftest.py``, in the loop that all browser tests share."""
    async with serving() as factory:
        yield factory


@in_one_loop()
async def page(context: Any, server: LiveServer) -> AsyncIterator[Any]:
    """An empty page at 1280 x 800. A script error, a blocked script or a request to another host fails the test.

    Its cookies and storage are empty: other tests have other ports, and the cookies are deleted. ``goto`` accepts a
    path on the server.
    """
    made, problems = await context.new_page(), []
    absolute = made.goto
    made.goto = lambda address, **options: absolute(urljoin(server.url, address), **options)
    made.set_default_timeout(60_000)
    made.on("pageerror", lambda error: problems.append(f"error: {error}"))
    made.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
    made.on("console", lambda message: note_problem(problems, message))
    made.on("request", lambda asked: _note_request(problems, asked.url, server.url))
    yield made
    await made.close()
    # A page of another test has another port, so another storage, unless the system gives the port again. Chromium
    # rarely never answers this command; then the storage stays.
    with suppress(TimeoutError):
        async with asyncio.timeout(10.0):
            devtools = await context.new_cdp_session(context.pages[0])
            await devtools.send("Storage.clearDataForOrigin", {"origin": server.url, "storageTypes": "all"})
            await devtools.detach()
    await context.clear_cookies()
    assert problems == []


def note_problem(problems: list[str], message: Any) -> None:
    """Add a console message to ``problems``, if it is an error that no page handles."""
    if message.type == "error" and not EXPECTED.search(message.text):
        problems.append(f"console: {message.text}")


def _note_request(problems: list[str], asked: str, own: str) -> None:
    if not asked.startswith(f"{own}/"):
        problems.append(f"a request to elsewhere: {asked}")


@in_one_loop()
async def server(serve: Serve) -> LiveServer:
    """A server."""
    return await serve()


@in_one_loop()
async def growth(server: LiveServer) -> AsyncIterator[Growth]:
    """A simulated growth, streamed by the real client."""
    async with Growth.begin(server) as made:
        yield made


@in_one_loop()
async def logged_in(page: Any, server: LiveServer) -> Any:
    """An empty page that is logged in."""
    await log_in(page.context, server)
    return page


async def log_in(context: Any, server: LiveServer, key: str = "") -> None:
    """Log a browser's context in, with ``key`` or the server's own."""
    body, origin = {"key": key or server.api_key}, {"Origin": server.url}
    assert (await context.request.post(f"{server.url}/session", data=body, headers=origin)).ok


@in_one_loop()
async def page_for_axe(browser: Any, server: LiveServer) -> AsyncIterator[Any]:
    """An empty page that is logged in, for the checks of its accessibility. A script error fails the test.

    It has a context of its own, without the policy of our pages: the checks run a script of their own.
    """
    problems: list[str] = []
    made = await (await browser.new_context(viewport=VIEWPORT, bypass_csp=True)).new_page()
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda message: note_problem(problems, message))
    await log_in(made.context, server)
    yield made
    assert problems == []
