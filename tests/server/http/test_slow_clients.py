"""Clients that send half of something: each is cut off, leaves no file, and holds nobody else up."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from atomstream.server.streams.ingest import WRITE_BYTES
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames, raw_connection, request_head, shard_bytes

DIMS = (4, 8, 12)
BODY = shard_bytes(make_frames(4))
NOISE = np.random.default_rng(0).integers(0, 256, (4, 640, 640), dtype=np.uint8)
LARGE = shard_bytes(NOISE)


def half_sent(url: str) -> bytes:
    """The head and so much of ``LARGE`` that some of it is in a file, which tells that it is being received."""
    return request_head("PUT", url, {"Content-Length": str(len(LARGE))}) + LARGE[: WRITE_BYTES + 200_000]


async def status_of(reader: asyncio.StreamReader) -> int:
    """The status of the reply that ends the wait; 0 where the server just closes."""
    line = await reader.readline()
    return int(line.split()[1]) if line else 0


def bodies_left(server: LiveServer, data_id: str) -> list[str]:
    """Files of uploads that are neither stored nor refused."""
    folder = server.folder(data_id) / "incoming"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize("sent", [0, 1, 100], ids=["nothing", "a byte", "100 bytes"])
async def test_resting_body_is_408(serve: Serve, sent: int) -> None:
    """A body that stops coming is answered 408 after ``body_idle_s``, and its file is gone."""
    server = await serve(body_idle_s=0.05, linger_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, DIMS)
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(BODY))}) + BODY[:sent])
            assert await status_of(reader) == 408
        assert bodies_left(server, data_id) == []


async def test_trickling_body_is_408(serve: Serve) -> None:
    """A byte now and then is no rest, but below ``body_min_rate`` the upload ends all the same."""
    server = await serve(body_idle_s=0.2, body_min_rate=1 << 30, linger_s=0.05)
    async with WireClient(server) as client:
        url = await client.url(await client.create(), 0, DIMS)
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(BODY))}))
            trickle = asyncio.create_task(trickle_into(writer))
            assert await status_of(reader) == 408
            trickle.cancel()


async def trickle_into(writer: asyncio.StreamWriter) -> None:
    """One byte each 10 ms."""
    for byte in BODY:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.01)


async def test_torn_body_leaves_nothing(serve: Serve) -> None:
    """A client that goes away in the middle leaves no file and no chunk; another attempt is stored."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        body, half = (
            shard_bytes(NOISE),
            WRITE_BYTES + 200_000,
        )  # so much that the first part of it is in a file
        url = await client.url(data_id, 0, NOISE.shape)
        async with raw_connection(url) as (_, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(body))}) + body[:half])
            await until(lambda: bodies_left(server, data_id) != [])
        await until(lambda: bodies_left(server, data_id) == [])
        assert server.archive(data_id).chunks() == {}
        assert (await client.put(url, LARGE))[0] == 200


async def until(true: object) -> None:
    """Wait for a state of the server's disk, which nothing announces; the test's timeout bounds it."""
    while not true():  # type: ignore[operator]
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "head", [b"", b"GET /gateway/time HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half:"], ids=["none", "half"]
)
async def test_half_sent_heads_are_closed(serve: Serve, head: bytes) -> None:
    """A connection on which no whole head arrives is closed after ``idle_timeout_s``."""
    server = await serve(idle_timeout_s=0.05)
    async with raw_connection(server.url) as (reader, writer):
        writer.write(head)
        assert await reader.read() == b""


async def test_half_sent_json_is_408(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON body that stops coming is answered 408."""
    monkeypatch.setattr("atomstream.server.http.requests.JSON_DEADLINE_S", 0.05)
    server = await serve(linger_s=0.05)
    async with raw_connection(server.url) as (reader, writer):
        head = request_head("POST", f"{server.url}/tags/", {**server.headers, "Content-Length": "100"})
        writer.write(head + b'{"name":')
        assert await status_of(reader) == 408


async def test_slow_ones_hold_nobody_up(serve: Serve) -> None:
    """With a dozen half-sent uploads open, another client's chunk is stored at once."""
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
    """Over ``max_uploads`` at once the answer is 503 with Retry-After, and room comes back."""
    server = await serve(max_uploads=1)
    async with WireClient(server) as client:
        data_id = await client.create()
        url, other = [await client.url(data_id, index, NOISE.shape) for index in range(2)]
        async with raw_connection(url) as (_, writer):
            writer.write(half_sent(url))
            await until(lambda: bodies_left(server, data_id) != [])
            status, _, headers = await client.put(other, LARGE)
            assert (status, headers["Retry-After"]) == (503, "1")
        await until(lambda: bodies_left(server, data_id) == [])
        assert (await client.put(other, LARGE))[0] == 200


async def test_stop_ends_half_sent_uploads(serve: Serve) -> None:
    """A server told to stop does not wait for a body that rests: it answers 503 and leaves no file."""
    server = await serve(body_idle_s=1000.0, linger_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, NOISE.shape)
    async with raw_connection(url) as (reader, writer):
        writer.write(half_sent(url))
        await until(lambda: bodies_left(server, data_id) != [])
        await server.stop()
        assert await status_of(reader) == 503
    assert bodies_left(server, data_id) == []
