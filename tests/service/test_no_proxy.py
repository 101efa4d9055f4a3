"""Which hosts are reached without the proxy of the environment: as urllib of the standard library decides."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.request import Request, getproxies, proxy_bypass

import aiohttp
import pytest
from aiohttp import web

from atomstream.errors import ServiceError
from atomstream.service.proxies import Proxies
from tests.service.recorder import Recorder, calling, listening, recording

PROXY = "http://proxy.lab:3128"

CASES = [
    # NO_PROXY, host, direct
    ("", "pc.lab.example", False),
    ("*", "pc.lab.example", True),
    ("pc.lab.example", "pc.lab.example", True),
    ("PC.Lab.Example", "pc.lab.example", True),
    ("pc.lab.example", "PC.LAB.example", True),
    ("lab.example", "pc.lab.example", True),
    (".lab.example", "pc.lab.example", True),
    (".lab.example", "lab.example", True),
    ("lab.example", "otherlab.example", False),
    ("lab.example", "lab.example.org", False),
    ("a, lab.example ,b", "pc.lab.example", True),
    ("a lab.example", "lab.example", False),
    ("lab.example:8765", "lab.example:8765", True),
    ("lab.example:8765", "pc.lab.example:8765", True),
    ("lab.example:8765", "lab.example:9000", False),
    ("lab.example:8765", "lab.example", False),
    ("lab.example", "lab.example:8765", True),
    ("10.0.0.5", "10.0.0.5", True),
    ("10.0.0.5", "10.0.0.5:8765", True),
    ("10.0.0.0/8", "10.0.0.5", False),
    ("10.", "10.0.0.5", False),
    ("*.lab.example", "pc.lab.example", False),
    ("[fd00::1]", "[fd00::1]:8765", True),
    ("[fd00::1]:8765", "[fd00::1]:8765", True),
    ("[fd00::1]:8765", "[fd00::1]:1", False),
]


@pytest.fixture(autouse=True)
def no_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings of proxies."""
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(("setting", "host", "direct"), CASES)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
async def test_every_kind_of_entry(
    monkeypatch: pytest.MonkeyPatch, variable: str, setting: str, host: str, direct: bool
) -> None:
    """Each case is what urllib does with a request to that host, for http and https."""
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv(variable, setting)
    for scheme in ("http", "https"):
        url = f"{scheme}://{host}/tags/"
        by_urllib = scheme in getproxies() and not proxy_bypass(Request(url).host)
        assert by_urllib is not direct
        assert await Proxies().for_url(url) == (None if direct else PROXY)


async def test_lower_case_goes_before_upper_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in urllib: the names in lower case win, also when they are empty."""
    monkeypatch.setenv("HTTP_PROXY", "http://wrong:1")
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("NO_PROXY", "lab.example")
    monkeypatch.setenv("no_proxy", "other.example")
    proxies = Proxies()
    assert await proxies.for_url("http://lab.example/") == PROXY
    assert await proxies.for_url("http://other.example/") is None
    monkeypatch.setenv("http_proxy", "")
    assert await Proxies().for_url("http://lab.example/") is None


@pytest.fixture
async def lab(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Recorder]:
    """A server with the name ``pc.lab.example`` in the DNS; its URL has that name."""
    resolve = socket.getaddrinfo

    def in_the_lab(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve("127.0.0.1" if host == "pc.lab.example" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", in_the_lab)
    async with recording() as server:
        server.url = server.url.replace("127.0.0.1", "pc.lab.example")
        yield server


async def _echo(request: web.Request, _body: bytes) -> web.StreamResponse:
    socket = web.WebSocketResponse(protocols=["msgpack"])
    await socket.prepare(request)
    await socket.close()
    return socket


@pytest.mark.parametrize("direct", [True, False], ids=["NO_PROXY", "another host in NO_PROXY"])
async def test_calls_uploads_and_feeds_obey_it(
    monkeypatch: pytest.MonkeyPatch, lab: Recorder, direct: bool
) -> None:
    """With the host in NO_PROXY nothing goes to the proxy, neither HTTP nor the WebSocket; else everything does."""
    asked: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        asked.append(request.raw_path.removeprefix(lab.url))
        return web.Response(status=502)

    lab.on_json("GET /tags/", [])
    lab.on_json("PUT /shard", {})
    lab.on("GET /rheed/stream/d/feed", _echo)
    async with listening(proxy) as url, calling(lab.url) as api:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "lab.example" if direct else "lab2.example")
        for ask in (
            api.list_tags,
            lambda: api.put_shard(f"{lab.url}/shard", [bytes(4)], 4, crc32c=0),
            lambda: anext(api.results.feed("d", 0), None),
        ):
            try:
                await ask()
            except (ServiceError, aiohttp.ClientError):
                assert not direct or ask is not api.list_tags
    received = {request.path for request in lab.requests}
    paths = {"/tags/", "/shard", "/rheed/stream/d/feed"}
    assert received == (paths if direct else set())
    assert {path.partition("?")[0] for path in asked} == (set() if direct else paths)
