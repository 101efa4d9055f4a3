"""Uploads over real connections, good and bad."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import google_crc32c
import pytest
from aiohttp import web

from atomstream.errors import (
    ChecksumMismatchError,
    ConnectionFailedError,
    RejectedError,
    ServerBusyError,
    SpoolError,
    UrlExpiredError,
)
from atomstream.records import Piece
from tests.service.recorder import KEY, calling, listening, recording

MIB = 1 << 20


@asynccontextmanager
async def raw_server(serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]):  # type: ignore[no-untyped-def]
    """A TCP server that the test controls. Yields its URL and the list of its connections."""
    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        with contextlib.suppress(ConnectionError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", handlers
    finally:
        server.close()
        await asyncio.wait(handlers, timeout=10)


def crc_header(body: bytes) -> dict[str, str]:
    """The header with the checksum of the received body."""
    return {"x-amz-checksum-crc32c": base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()}


async def test_upload_arrives_complete() -> None:
    """A 20 MiB body arrives equal: with its length, without chunking, type and key. Its CRC is checked."""
    data = bytes(range(256)) * (20 * MIB // 256)
    pieces: list[Piece] = [b"head", memoryview(data), b"tail"]
    crc = google_crc32c.value(b"head" + data + b"tail")
    async with recording() as store, calling(store.url) as api:
        store.on("PUT /shard", lambda _, body: web.Response(headers=crc_header(body)))
        got = await api.put_shard(f"{store.url}/shard?sig=a%2Fb", pieces, len(data) + 8, crc32c=crc)
    [asked] = store.requests
    assert asked.body == b"head" + data + b"tail"
    assert got == crc
    assert asked.headers["content-length"] == str(len(asked.body))
    assert asked.headers["accept"] == "*/*"
    assert asked.headers["user-agent"].startswith("atomstream/")
    assert not {"transfer-encoding", "content-type", "x-api-key", "expect", "cookie"} & asked.headers.keys()
    assert KEY not in str(asked.headers)


async def test_signed_query_is_unchanged() -> None:
    """The upload URL is used unchanged, because the signature covers every escape in it."""
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        seen.append(request.raw_path)
        return web.Response()

    path = "/a%2Fb/c+d?X-Sig=%41%2b/~&e=a+b%20c"
    async with listening(handle) as url, calling(url) as api:
        await api.put_shard(url + path, [b"x"], 1, crc32c=0)
    assert seen == [path]


async def test_wrong_checksum_is_transient() -> None:
    """If the server received other bytes, the chunk does not count as stored."""
    async with recording() as store, calling(store.url) as api:
        store.on("PUT /shard", lambda _, body: web.Response(headers=crc_header(body + b"!")))
        with pytest.raises(ChecksumMismatchError, match="other bytes") as caught:
            await api.put_shard(f"{store.url}/shard", [b"x"], 1, crc32c=0)
    assert caught.value.retriable


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_put_redirects_are_not_followed(status: int) -> None:
    """A redirect is an error that names the target; neither frames nor key are sent there."""
    async with recording() as other, recording() as store, calling(store.url) as api:
        to = {"Location": f"{other.url}/elsewhere?token=T"}
        store.on("PUT /shard", lambda *_: web.Response(status=status, headers=to))
        store.on("GET /tags/", lambda *_: web.Response(status=status, headers=to))
        for call in (api.put_shard(f"{store.url}/shard", [b"x"], 1, crc32c=0), api.list_tags()):
            with pytest.raises(RejectedError, match=r"redirects to http://127\.0\.0\.1") as caught:
                await call
            assert "token" not in str(caught.value)
        assert other.requests == []


async def test_cookies_are_ignored() -> None:
    """A cookie of one reply is not sent with the next request."""
    async with recording() as store, calling(store.url.replace("127.0.0.1", "localhost")) as api:
        store.on_json("GET /tags/", [], **{"Set-Cookie": "a=b"})
        await api.list_tags()
        await api.list_tags()
    assert [asked.headers.get("cookie") for asked in store.requests] == [None, None]


async def test_reset_midway_is_one_failed_attempt() -> None:
    """A connection reset during the body is a transient error, and the HTTP library sends nothing again."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 * MIB)
        writer.transport.abort()

    async with raw_server(reset) as (url, connections), calling(url) as api:
        with pytest.raises(ConnectionFailedError) as caught:
            await api.put_shard(f"{url}/shard?sig=S", [bytes(MIB)] * 30, 30 * MIB, crc32c=0)
        assert not caught.value.never_sent
        assert "sig=S" not in str(caught.value)
        assert len(connections) == 1


async def test_reset_on_reused_connection_is_not_replayed() -> None:
    """On a reused connection, where the library would send a body again, there is only one attempt."""
    bodies: list[int] = []

    async def once_then_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for keep in (True, False):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(MIB)
            bodies.append(MIB)
            if keep:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.transport.abort()

    async with raw_server(once_then_reset) as (url, connections), calling(url) as api:
        await api.put_shard(f"{url}/shard", [bytes(MIB)], MIB, crc32c=0)
        with pytest.raises(ConnectionFailedError):
            await api.put_shard(f"{url}/shard", [bytes(MIB)], MIB, crc32c=0)
        assert (len(connections), len(bodies)) == (1, 2)


async def test_a_stalled_upload_ends() -> None:
    """If the server accepts no more bytes, the attempt fails after the limit without progress."""
    stop = asyncio.Event()

    async def swallow_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await stop.wait()

    async with raw_server(swallow_nothing) as (url, _), calling(url, upload_timeout_s=0.5) as api:
        with pytest.raises(ConnectionFailedError, match="nothing moved"):
            await api.put_shard(f"{url}/shard", [bytes(MIB)] * 64, 64 * MIB, crc32c=0)
        stop.set()


async def test_an_unanswered_upload_ends() -> None:
    """If the server accepts the body but never answers, the attempt fails after the limit."""
    stop = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        await stop.wait()
        return web.Response()

    async with listening(handle) as url, calling(url, upload_timeout_s=0.5) as api:
        with pytest.raises(ConnectionFailedError):
            await api.put_shard(f"{url}/shard", [b"x"], 1, crc32c=0)
        stop.set()


async def test_slow_uplink_is_not_a_stall() -> None:
    """An upload that makes progress may take many times the stall limit."""
    limit_s = 2.0

    async def slowly() -> AsyncIterator[Piece]:
        for _ in range(6):
            await asyncio.sleep(limit_s / 5)
            yield bytes(MIB)

    async with recording() as store, calling(store.url, upload_timeout_s=limit_s) as api:
        store.on("PUT /shard", lambda *_: web.Response())
        await api.put_shard(f"{store.url}/shard", slowly(), 6 * MIB, crc32c=0)
    assert len(store.requests[0].body) == 6 * MIB


async def test_early_success_is_not_accepted() -> None:
    """A 200 before the whole body was sent does not confirm the upload."""

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    never = asyncio.Event()

    async def half() -> AsyncIterator[Piece]:
        yield bytes(MIB)
        await never.wait()

    async with raw_server(hasty) as (url, _), calling(url) as api:
        with pytest.raises(ServerBusyError, match="before it had received the whole body"):
            await api.put_shard(f"{url}/shard", half(), 2 * MIB, crc32c=0)


async def test_early_refusal_is_received() -> None:
    """A refusal after the headers is received without sending the whole body, although the server keeps reading."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        while await reader.read(MIB):
            pass

    async with raw_server(refuse) as (url, _), calling(url) as api:
        with pytest.raises(UrlExpiredError):
            await api.put_shard(f"{url}/shard", [bytes(MIB)] * 64, 64 * MIB, crc32c=0)


async def test_errors_of_the_source_are_unchanged() -> None:
    """An error of the source of the pieces is raised unchanged, and the source is closed."""
    closed = []

    async def broken() -> AsyncIterator[Piece]:
        try:
            yield bytes(MIB)
            raise SpoolError("EIO under the record")
        finally:
            closed.append(True)

    async with recording() as store, calling(store.url) as api:
        with pytest.raises(SpoolError, match="EIO under the record"):
            await api.put_shard(f"{store.url}/shard", broken(), 2 * MIB, crc32c=0)
    assert closed == [True]


async def test_cancelled_upload_closes_its_source() -> None:
    """A cancelled upload leaves neither an open connection nor an open source."""
    asked, never, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[Piece]:
        try:
            yield bytes(MIB)
            asked.set()
            await never.wait()
        finally:
            closed.set()

    async with recording() as store, calling(store.url) as api:
        task = asyncio.create_task(api.put_shard(f"{store.url}/shard", endless(), 2 * MIB, crc32c=0))
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed.is_set()


async def test_uploads_do_not_block_calls() -> None:
    """API calls still work while stalled uploads occupy all upload connections."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        if request.method == "PUT":
            arrived.set()
            await release.wait()
            return web.Response()
        return web.json_response([])

    async with listening(handle) as url, calling(url, connections=1) as api:
        upload = asyncio.create_task(api.put_shard(f"{url}/shard", [b"x"], 1, crc32c=0))
        await arrived.wait()
        assert await api.list_tags() == []
        release.set()
        await upload
