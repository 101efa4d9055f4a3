"""Compressed, endless, slow or malformed replies: each ends in a typed error at a bounded cost."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from atomstream.errors import (
    AuthenticationError,
    ConflictError,
    ConnectionFailedError,
    NotFoundError,
    RejectedError,
    ServerBusyError,
    ServiceError,
    UrlExpiredError,
)
from atomstream.records import ShardInfo, StreamSpec, Timestamp
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import MAX_ID_CHARS, MAX_URL_CHARS, NewStreamBody
from atomstream.service.proxies import is_address
from atomstream.service.reply_limits import CompressionError, decompress
from tests.service.recorder import EVENT, Recorder, calling, recording

TAGS = "GET /tags/"
STREAMS = "POST /rheed/stream/"
URLS = "POST /data_entries/raw_data/staged/upload_urls/"
NEW = NewStreamBody("n", 1.0, 0.0)
SPEC = StreamSpec("d", 10.0, 0.0, 5)
SHARD = ShardInfo(
    data_id="d",
    index=0,
    dims=(5, 2, 2),
    dtype="uint8",
    timestamp=Timestamp(0.0),
    nbytes=1,
    crc32c=0,
    digest=b"",
)
LIST = json.dumps([{"id": "a", "name": "b"}]).encode()


@asynccontextmanager
async def answering(head: bytes, piece: bytes, pause_s: float = 0.0) -> AsyncIterator[str]:
    """A server that answers every request with ``head`` and then ``piece`` again and again, every ``pause_s``."""
    clients: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            while True:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "head by bytes": (OK, b"X", 0.01),
    "body by bytes": (OK + b"Content-Length: 100000\r\n\r\n", b" ", 0.01),
    "one header line": (OK + b"X-A: ", b"a" * 65536, 0.0),
    "header lines": (OK, b"".join(b"X-%d: aaaa\r\n" % k for k in range(2000)), 0.0),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, 0.0),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 100, 0.001),
    "chunk extension": (CHUNKED + b"1;", b"a" * 65536, 0.0),
    "chunk size": (CHUNKED, b"0" * 65536, 0.0),
    "trailers": (CHUNKED + b"2\r\n[]\r\n0\r\n", b"".join(b"X-%d: a\r\n" % k for k in range(2000)), 0.0),
    "body": (CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n", 0.0),
    "error body": (CHUNKED.replace(b"200 OK", b"500 No"), b"10000\r\n" + b"a" * 65536 + b"\r\n", 0.0),
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_an_endless_reply_ends_in_an_error(name: str) -> None:
    """A reply without an end, fast or slow, is an error after the time limit of the request at the latest."""
    head, piece, pause_s = ENDLESS[name]
    async with answering(head, piece, pause_s) as url, calling(url, request_timeout_s=0.5) as api:
        tracemalloc.start()
        try:
            with pytest.raises(ServiceError):
                await api.list_tags()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 60_000_000


async def test_an_upload_ends_although_its_reply_drips() -> None:
    """The time limit of an upload counts the sent bytes as progress, and not those of the reply."""
    head, piece, pause_s = ENDLESS["body by bytes"]
    async with answering(head, piece, pause_s) as url, calling(url, upload_timeout_s=0.3) as api:
        with pytest.raises(ConnectionFailedError):
            await api.put_shard(f"{url}/shard", [bytes(100)], 100, crc32c=0)


def compressed(body: bytes, encoding: str) -> bytes:
    """``body`` in that encoding."""
    return zlib.compress(body) if encoding == "deflate" else gzip.compress(body)


def zeros(nbytes: int) -> bytes:
    """Return ``nbytes`` zeros (rounded down to MiB), gzip-compressed, without holding them in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(nbytes >> 20)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP ", "x-gzip"])
async def test_a_compressed_reply_is_read(encoding: str) -> None:
    """The client does not ask for compression, but reads it if a proxy has applied it; errors too."""
    body = compressed(LIST, encoding)
    refusal = compressed(b'{"detail": "no such tag"}', encoding)
    async with recording() as server, calling(server.url) as api:
        headers = {"Content-Encoding": encoding}
        server.on(TAGS, lambda *_: web.Response(body=body, headers=headers))
        assert [tag.name for tag in await api.list_tags()] == ["b"]
        server.on(TAGS, lambda *_: web.Response(body=refusal, headers=headers, status=422))
        with pytest.raises(RejectedError, match="no such tag"):
            await api.list_tags()


@pytest.mark.parametrize("status", [200, 500])
async def test_a_compressed_bomb_is_an_error(status: int) -> None:
    """A reply of 64 kB that would be 64 MB is decompressed up to the limit only."""
    bomb = zeros(64 << 20)
    async with recording() as server, calling(server.url) as api:
        bombed = {"Content-Encoding": "gzip"}
        server.on(TAGS, lambda *_: web.Response(body=bomb, headers=bombed, status=status))
        tracemalloc.start()
        try:
            with pytest.raises(ServerBusyError, match="too large" if status == 200 else "HTTP 500"):
                await api.list_tags()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 50_000_000


@pytest.mark.parametrize(
    ("encoding", "body", "why"),
    [
        ("gzip", b"junk" * 100, "damaged"),
        ("deflate", b"\x00" * 100, "damaged"),
        ("br", LIST, "not supported"),
        ("gzip, gzip", LIST, "not supported"),
    ],
)
async def test_a_body_that_cannot_be_decompressed(encoding: str, body: bytes, why: str) -> None:
    """A list with a damaged or an unknown compression is a ServerBusyError that states the problem."""
    async with recording() as server, calling(server.url) as api:
        headers = {"Content-Encoding": encoding}
        server.on(TAGS, lambda *_: web.Response(body=body, headers=headers))
        with pytest.raises(ServerBusyError, match=why):
            await api.list_tags()
    with pytest.raises(CompressionError, match=why):
        decompress(body, encoding, 1000)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, RejectedError),
        (401, AuthenticationError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, RejectedError),
        (503, ServerBusyError),
    ],
)
@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_a_refusal_that_cannot_be_decompressed(
    status: int, kind: type[ServiceError], encoding: str
) -> None:
    """The status decides about the error, even if the body can't be read: a refusal is not taken for a busy server."""
    async with recording() as server, calling(server.url) as api:
        headers = {"Content-Encoding": encoding}
        for route in (TAGS, "PUT /shard"):
            server.on(route, lambda *_: web.Response(body=b"junk" * 9, headers=headers, status=status))
        with pytest.raises(kind, match=f"HTTP {status}") as caught:
            await api.list_tags()
        assert type(caught.value) is kind
        with pytest.raises(UrlExpiredError if status == 401 else kind, match=f"HTTP {status}"):
            await api.put_shard(f"{server.url}/shard", [b"x"], 1, crc32c=0)


@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_a_reply_whose_body_is_not_needed(encoding: str) -> None:
    """Uploads and calls that return nothing succeed by their status, whatever the body is."""
    async with recording() as server, calling(server.url) as api:
        headers = {"Content-Encoding": encoding}
        for route in ("PUT /shard", "POST /rheed/stream/d/end", "PUT /rheed/stream/d/calibration"):
            server.on(route, lambda *_: web.Response(body=b"junk" * 9, headers=headers))
        await api.put_shard(f"{server.url}/shard", [b"x"], 1, crc32c=0)
        await api.end_stream("d")
        await api.results.calibrate("d", {})
    assert len(server.requests) == 3


async def test_an_empty_body_has_no_compression() -> None:
    """An error without a body is that of its status although the header names a compression."""
    assert decompress(b"", "br", 10) == b""
    async with recording() as server, calling(server.url) as api:
        headers = {"Content-Encoding": "gzip"}
        server.on(TAGS, lambda *_: web.Response(status=404, headers=headers))
        with pytest.raises(NotFoundError):
            await api.list_tags()


def create(server: Recorder, reply: Any) -> Callable[[ServiceApi], Any]:
    """``reply`` to the creation of a stream."""
    server.on_json(STREAMS, reply)
    return lambda api: api.create_stream(NEW)


def tags(server: Recorder, reply: Any) -> Callable[[ServiceApi], Any]:
    """``reply`` to the request for the tags."""
    server.on_json(TAGS, reply)
    return lambda api: api.list_tags()


def new_tag(server: Recorder, reply: Any) -> Callable[[ServiceApi], Any]:
    """``reply`` to the creation of a tag."""
    server.on_json("POST /tags/", reply)
    return lambda api: api.create_tag("t")


def url(server: Recorder, reply: Any) -> Callable[[ServiceApi], Any]:
    """``reply`` to the request for an upload URL."""
    server.on_json(URLS, reply if isinstance(reply, list) else [{"upload_id": "u", "url": reply, "part": 0}])
    return lambda api: api.upload_url(SPEC, SHARD)


def mark(server: Recorder, reply: Any) -> Callable[[ServiceApi], Any]:
    """``reply`` to a new event."""
    server.on_json("POST /rheed/stream/d/events", reply)
    return lambda api: api.results.mark("d", {"label": "x"})


@pytest.mark.parametrize(
    ("ask", "reply"),
    [
        (create, ""),
        (create, "a b"),
        (create, "a\r\nX-Evil: 1\x00\u202e"),
        (create, "\ud800"),
        (create, "é"),
        (create, "a" * (MAX_ID_CHARS + 1)),
        (create, 5),
        (tags, [{"id": "a", "name": {"a": []}}]),
        (tags, [{"id": ["a"], "name": "b"}]),
        (tags, [None]),
        (tags, {"id": "a"}),
        (new_tag, {"id": "a" * (MAX_ID_CHARS + 1)}),
        (new_tag, ["a"]),
        (url, "http://127.0.0.1/" + "a" * MAX_URL_CHARS),
        (url, "http://127.0.0.1/\r\nX-Evil: 1"),
        (url, "http://127.0.0.1:99999999/"),
        (url, "http://[::1/"),
        (url, "file:///etc/passwd"),
        (url, [5]),
        (url, []),
        (mark, {}),
        (mark, {**EVENT, "time_s": "x"}),
        (mark, {**EVENT, "time_s": True}),
        (mark, {**EVENT, "value": 10**400}),
        (mark, {**EVENT, "value": float("nan")}),
        (mark, {**EVENT, "label": None}),
        (mark, [EVENT]),
    ],
    ids=lambda value: getattr(value, "__name__", None) or repr(value)[:40],
)
async def test_a_reply_of_another_shape_is_a_typed_error(
    ask: Callable[[Recorder, Any], Callable[[ServiceApi], Any]], reply: Any
) -> None:
    """Wrong types, invalid ids, invalid URLs, and numbers beyond the floats: ServerBusyError."""
    async with recording() as server, calling(server.url) as api:
        call = ask(server, reply)
        with pytest.raises(ServerBusyError, match="not with what was asked for"):
            await call(api)


async def test_ids_and_names_of_a_real_service_are_read() -> None:
    """A UUID, a name with accents, and a null name are valid."""
    async with recording() as server, calling(server.url) as api:
        server.on_json(STREAMS, "06f34b41-c1ff-466f-bc3c-812ce4ea3d9d")
        assert (await api.create_stream(NEW)).data_id == "06f34b41-c1ff-466f-bc3c-812ce4ea3d9d"
        server.on_json(TAGS, [{"id": "1", "name": "Größe é"}, {"id": "2", "name": None}, {"id": "3"}])
        assert [tag.name for tag in await api.list_tags()] == ["Größe é", "", ""]
        server.on_json("POST /rheed/stream/d/events", EVENT)
        assert (await api.results.mark("d", {"label": "x"})).time_s == 1.0


NO_HOSTS = [f"{'a' * 64}.invalid", f"{'é' * 60}.invalid", "a..invalid", ".invalid"]
"""Host names that the DNS can't have: a label with more than 63 characters, and an empty one."""


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_a_host_name_that_cannot_be_encoded_is_a_typed_error(host: str) -> None:
    """A host name that can't be encoded is refused before any kind of request, and nothing is sent."""
    async with calling(f"http://{host}") as api:
        requests: list[Callable[[], Awaitable[Any]]] = [
            api.list_tags,
            lambda: api.put_shard(f"http://{host}/shard", [bytes(4)], 4, crc32c=0),
            lambda: anext(api.results.feed("d", 0)),
        ]
        for ask in requests:
            with pytest.raises(ConnectionFailedError, match="its host name or port is not valid") as caught:
                await ask()
            assert caught.value.never_sent


@pytest.mark.parametrize("proxy", [*NO_HOSTS, "http://[::1", "http://127.0.0.1:99999"])
async def test_a_proxy_that_is_not_an_address_is_a_typed_error(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of a wrong proxy setting names the proxy."""
    monkeypatch.setenv("http_proxy", proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with calling("http://service.invalid") as api:
        with pytest.raises(ConnectionFailedError, match="of the proxy is not valid") as caught:
            await api.list_tags()
    assert caught.value.never_sent


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:80", "https://[::1]:8765/a", "http://[fe80::1%25eth0]/", "http://lab_pc", "http://größe.de"],
)  # fmt: skip
def test_an_address_is_accepted(url: str) -> None:
    """Addresses of both versions of IP, names with underscores, and names that need an encoding."""
    assert is_address(url)


@pytest.mark.parametrize("location", ["http://[::1", "//[", "http://" + "a" * 5000 + "/", "\x85"])
async def test_a_malformed_location_is_a_refusal(location: str) -> None:
    """A redirect to something that is not a URL is the same error as another redirect, and a short one."""
    async with recording() as server, calling(server.url) as api:
        server.on(TAGS, lambda *_: web.Response(status=302, headers={"Location": location}))
        with pytest.raises(RejectedError, match="redirects are not followed") as caught:
            await api.list_tags()
    assert len(str(caught.value)) < 1000
