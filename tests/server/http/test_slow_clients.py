"""Clients that send only part of a request: each is cut off, leaves no file, and delays no other client."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from atomstream.server.streams.ingest import WRITE_BYTES
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames, raw_connection, request_head, shard_bytes

DIMS = (4, 8, 12)
BODY = shard_bytes(make_frames(4))
NOISE = np.random.default_rng(0).integers(0, 256, (4, 640, 640), dtype=np.uint8)
LARGE = shard_bytes(NOISE)


def half_sent(url: str) -> bytes:
    """Headers and a part of ``LARGE``, enough that the server writes it to a file, which the tests can see."""
    return request_head("PUT", url, {"Content-Length": str(len(LARGE))}) + LARGE[: WRITE_BYTES + 200_000]


async def status_of(reader: asyncio.StreamReader) -> int:
    """The status of the final reply; 0 if the server only closes the connection."""
    line = await reader.readline()
    return int(line.split()[1]) if line else 0


@pytest.mark.parametrize("sent", [0, 1, 100], ids=["nothing", "a byte", "100 bytes"])
async def test_stalled_body_is_408(serve: Serve, sent: int) -> None:
    """A body that stalls is answered with 408 after ``body_idle_s``, and its file is removed."""
    server = await serve(body_idle_s=0.05, linger_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, DIMS)
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(BODY))}) + BODY[:sent])
            assert await status_of(reader) == 408
        assert server.incoming(data_id) == []


async def test_trickling_body_is_408(serve: Serve) -> None:
    """A slow body does not stall, but below ``body_min_rate`` the upload ends with 408 too."""
    server = await serve(body_idle_s=0.2, body_min_rate=1 << 30, linger_s=0.05)
    async with WireClient(server) as client:
        url = await client.url(await client.create(), 0, DIMS)
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(BODY))}))
            trickle = asyncio.create_task(trickle_into(writer))
            assert await status_of(reader) == 408
            trickle.cancel()


async def trickle_into(writer: asyncio.StreamWriter) -> None:
    """Send one byte every 10 ms."""
    for byte in BODY:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)


async def test_torn_body_leaves_nothing(serve: Serve) -> None:
    """A client that disconnects during an upload leaves no file and no chunk; another attempt is stored."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        body, half = (
            shard_bytes(NOISE),
            WRITE_BYTES + 200_000,
        )  # enough that the first part of it is in a file
        url = await client.url(data_id, 0, NOISE.shape)
        async with raw_connection(url) as (_, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(body))}) + body[:half])
            await until(lambda: server.incoming(data_id) != [])
        await until(lambda: server.incoming(data_id) == [])
        assert server.archive(data_id).chunks() == {}
        assert (await client.put(url, LARGE))[0] == 200


async def until(true: object) -> None:
    """Wait for a state of the server's disk, for which there is no signal; the test's timeout bounds it."""
    while not true():  # type: ignore[operator]
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "head", [b"", b"GET /gateway/time HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half:"], ids=["none", "half"]
)
async def test_incomplete_headers_are_closed(serve: Serve, head: bytes) -> None:
    """A connection without complete request headers is closed after ``idle_timeout_s``."""
    server = await serve(idle_timeout_s=0.05)
    async with raw_connection(server.url) as (reader, writer):
        writer.write(head)
        assert await reader.read() == b""


async def test_incomplete_json_is_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON body that stalls is answered with 408."""
    monkeypatch.setattr("atomstream.server.http.requests.JSON_DEADLINE_S", 0.05)
    server = await serve(linger_s=0.05)
    async with raw_connection(server.url) as (reader, writer):
        head = request_head("POST", f"{server.url}/tags/", {**server.headers, "Content-Length": "100"})
        writer.write(head + b'{"name":')
        assert await status_of(reader) == 408


async def test_slow_uploads_delay_no_other(serve: Serve) -> None:
    """With a dozen incomplete uploads open, the chunk of another client is stored at once."""
    server = await serve(linger_s=0.05)
    async with WireClient(server) as client, asyncio.TaskGroup() as group:
        data_id = await client.create()
        hold, held = asyncio.Event(), asyncio.Semaphore(0)
        for index in range(12):
            url = await client.url(data_id, index, DIMS)
            group.create_task(hold_open(url, hold, held))
        for _ in range(12):
            await held.acquire()
        assert (await client.send(data_id, 20, make_frames(4)))[0] == 200
        hold.set()


async def hold_open(url: str, release: asyncio.Event, held: asyncio.Semaphore) -> None:
    """Send half of an upload and wait."""
    async with raw_connection(url) as (_, writer):
        writer.write(request_head("PUT", url, {"Content-Length": str(len(BODY))}) + BODY[:50])
        await writer.drain()
        held.release()
        await release.wait()


async def test_too_many_uploads_are_503(serve: Serve) -> None:
    """Above ``max_uploads`` the reply is 503 with Retry-After, and slots become free again."""
    server = await serve(max_uploads=1)
    async with WireClient(server) as client:
        data_id = await client.create()
        url, other = [await client.url(data_id, index, NOISE.shape) for index in range(2)]
        async with raw_connection(url) as (_, writer):
            writer.write(half_sent(url))
            await until(lambda: server.incoming(data_id) != [])
            status, _, headers = await client.put(other, LARGE)
            assert (status, headers["Retry-After"]) == (503, "1")
        await until(lambda: server.incoming(data_id) == [])
        assert (await client.put(other, LARGE))[0] == 200


async def test_stop_ends_incomplete_uploads(serve: Serve) -> None:
    """A stopping server does not wait for a stalled body: it replies 503 and leaves no file."""
    server = await serve(body_idle_s=1000.0, linger_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, NOISE.shape)
    async with raw_connection(url) as (reader, writer):
        writer.write(half_sent(url))
        await until(lambda: server.incoming(data_id) != [])
        await server.stop()
        assert await status_of(reader) == 503
    assert server.incoming(data_id) == []
