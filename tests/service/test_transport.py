"""Calls over real connections: connection errors, large replies, proxies."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web

from atomstream.config import is_loopback
from atomstream.errors import ConnectionFailedError, ServerBusyError, ServiceError
from atomstream.service import replies
from atomstream.service.payloads import NewStreamBody
from atomstream.service.proxies import Proxies
from tests.service.recorder import calling, listening, recording


def free_port() -> int:
    """A loopback port without a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_refused_connection_was_never_sent() -> None:
    """Without a server on the port, the error states that it can't be reached and that nothing was sent."""
    url = f"http://127.0.0.1:{free_port()}"
    async with calling(url) as api:
        with pytest.raises(ConnectionFailedError, match="no connection to " + url) as caught:
            await api.create_stream(NewStreamBody("n", 1.0, 0.0))
    assert caught.value.never_sent


async def test_unknown_host_was_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown host name has its own message."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with calling("http://no-such-host.invalid:1") as api:
        with pytest.raises(ConnectionFailedError, match="unknown to the DNS") as caught:
            await api.list_tags()
    assert caught.value.never_sent


async def test_plain_server_behind_https_was_never_sent() -> None:
    """https to an http server fails in the handshake, before anything is sent."""
    async with recording() as plain, calling(plain.url.replace("http:", "https:")) as api:
        with pytest.raises(ConnectionFailedError, match="TLS handshake") as caught:
            await api.list_tags()
    assert caught.value.never_sent
    assert plain.requests == []


async def test_lost_answer_may_have_been_received() -> None:
    """If the connection breaks after the request, the error does not state that it was never sent."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with listening(handle) as url, calling(url) as api:
        with pytest.raises(ConnectionFailedError, match="not known") as caught:
            await api.create_stream(NewStreamBody("n", 1.0, 0.0))
    assert not caught.value.never_sent


async def test_silent_server_times_out() -> None:
    """A call without an answer ends after its limit; the request may have been received."""
    stop = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    async with listening(handle) as url, calling(url, request_timeout_s=0.5) as api:
        with pytest.raises(ConnectionFailedError, match="no answer in time") as caught:
            await api.list_tags()
        stop.set()
    assert not caught.value.never_sent


async def test_other_protocols_are_detected() -> None:
    """The error for a server without HTTP names that."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        async with calling(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
            with pytest.raises(ServiceError, match="is not HTTP"):
                await api.list_tags()
    finally:
        server.close()


async def test_huge_reply_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list above the limit is rejected without reading all of it; one just below it is accepted."""
    monkeypatch.setattr(replies, "REPLY_BODY_BYTES", 100_000)
    async with recording() as server, calling(server.url) as api:
        server.on_json("GET /tags/", [{"id": "a", "name": "n" * 99_900}])
        assert len(await api.list_tags()) == 1
        server.on_json("GET /tags/", [{"id": "a", "name": "n" * 100_000}])
        with pytest.raises(ServerBusyError, match="too large"):
            await api.list_tags()


async def test_huge_error_is_cut_off() -> None:
    """At most 64 kB of an error body are read, although the server sends endlessly."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=500)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"no " * 10_000)
        except ConnectionError:
            return response

    async with listening(handle) as url, calling(url) as api:
        with pytest.raises(ServerBusyError, match=r"HTTP 500 \(no no"):
            await api.list_tags()


async def test_project_id_is_one_path_segment() -> None:
    """A project id with slashes stays one segment of the path."""
    async with recording() as server, calling(server.url) as api:
        route = "POST /projects/..%2F..%2Fx%3Fy%23z%20%C3%A9/configuration/tracking_samples"
        server.on_json(route, {})
        await api.track_sample("../../x?y#z é", "s")
        assert server.routes() == [route]


async def test_calls_use_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host is reached through the proxy of the environment, with the whole URL in the request."""
    seen: list[str] = []

    async def proxy(request: web.Request) -> web.Response:
        seen.append(f"{request.raw_path} {request.headers.get('Proxy-Authorization', '')[:5]}")
        return web.json_response([])

    async with listening(proxy) as url:
        monkeypatch.setenv("http_proxy", url.replace("//", "//user:word@"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with calling("http://service.invalid") as api:
            assert await api.list_tags() == []
    assert seen == ["http://service.invalid/tags/ Basic"]


async def test_loopback_never_uses_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is always reached directly."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with recording() as server, calling(server.url) as api:
        server.on_json("GET /tags/", [])
        assert await api.list_tags() == []


async def test_a_proxy_that_needs_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 407 of a proxy is a connection error: it neither pauses a stream nor quarantines a chunk."""

    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=407)

    async with listening(refuse) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("https_proxy", url)
        for scheme in ("http", "https"):
            async with calling(f"{scheme}://service.invalid") as api:
                with pytest.raises(ConnectionFailedError, match="proxy") as caught:
                    await api.list_tags()
                assert caught.value.never_sent


async def test_proxy_of_another_kind_is_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy that is not http is not used; this is logged once per server."""
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "127.0.0.1:3128")
    proxies = Proxies()
    assert [await proxies.for_url("https://h.invalid/a") for _ in range(2)] == [None, None]
    assert len(caplog.records) == 1
    assert await proxies.for_url("http://h.invalid/") == "http://127.0.0.1:3128"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("lab-pc", False),
    ],
)
def test_loopback_hosts(host: str, loopback: bool) -> None:
    """This machine is recognised by name and by address."""
    assert is_loopback(host) is loopback
