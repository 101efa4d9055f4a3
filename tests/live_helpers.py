"""Streams of simulated growths, sent to a real server without pacing, and their results."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any

import aiohttp
import msgpack
import numpy as np
import numpy.typing as npt

from atomstream.sources import GrowthSpec, Simulator
from tests.live_server import LiveServer, Serve
from tests.wire_client import START_MS, WireClient

FPS = 60.0
CHUNK = 60
RATE = 1.6
"""Layers a second. Each second of a growth costs a quarter second of processor time, so growths are fast and short."""
Frames = npt.NDArray[np.uint8]
SPEC = GrowthSpec(240, 320, FPS, seed=3, rate_ml_s=RATE)


@cache
def growth(n_frames: int = 240, spec: GrowthSpec = SPEC) -> Frames:
    """Frames (n, H, W) of a growth at ``RATE`` layers a second."""
    return np.concatenate(list(Simulator(spec).chunks(CHUNK, n_frames)))


def stamps(index: float, n: int, chunk: int = CHUNK, fps: float = FPS) -> dict[str, str]:
    """The time fields of chunk ``index``, for frames at even intervals from ``START_MS`` on."""
    start = START_MS + 1000.0 * index * chunk / fps
    return {"start_unix_ms_utc": f"{start:.0f}", "end_unix_ms_utc": f"{start + 1000.0 * n / fps:.0f}"}


async def send_chunks(
    client: WireClient,
    data_id: str,
    frames: npt.NDArray[Any],
    indices: Iterable[int] | None = None,
    chunk: int = CHUNK,
    fps: float = FPS,
) -> None:
    """PUT the chunks of ``frames`` (only ``indices``, in that order), with times at ``fps`` frames a second."""
    for index in range(-(-len(frames) // chunk)) if indices is None else indices:
        part = frames[index * chunk : (index + 1) * chunk]
        status, reply = await client.send(data_id, index, part, chunk, **stamps(index, len(part), chunk, fps))
        assert status == 200, reply


async def follow(client: WireClient, data_id: str, after: int = 0, **query: str) -> list[dict[str, Any]]:
    """All messages of the feed until the server closes it normally, without heartbeats and progress."""
    async with feed(client, data_id, after, **query) as socket:
        found = [msgpack.unpackb(message.data) async for message in socket]
        assert socket.close_code == 1000
    return [message for message in found if message["type"] not in ("heartbeat", "progress")]


def feed(client: WireClient, data_id: str, after: int = 0, **query: str) -> Any:
    """Connect to the feed, with msgpack messages."""
    url = f"{client.server.url}/rheed/stream/{data_id}/feed"
    params = {"after": str(after), **query}
    return client.session.ws_connect(url, params=params, protocols=("atomstream.msgpack",))


async def next_message(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """The next message of type ``kind``; others are skipped."""
    while True:
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        read: dict[str, Any] = msgpack.unpackb(message.data)
        if read["type"] == kind:
            return read


async def batches_until(socket: aiohttp.ClientWebSocketResponse, frame: int) -> list[dict[str, Any]]:
    """The next batches, up to the one that ends at ``frame`` or later."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["start"] + found[-1]["count"] < frame:
        found.append(await next_message(socket, "batch"))
    return found


def batches(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The batches among messages."""
    return [message for message in messages if message["type"] == "batch"]


def column(found: list[dict[str, Any]], name: str) -> npt.NDArray[np.float32]:
    """One per-frame column over consecutive batches."""
    empty = {batch["seq"]: np.full(batch["count"], np.nan, "<f4") for batch in found}
    parts = [
        np.frombuffer(batch["columns"][name], "<f4") if name in batch["columns"] else empty[batch["seq"]]
        for batch in found
    ]
    return np.concatenate(parts)


def frame_numbers(found: list[dict[str, Any]]) -> list[int]:
    """The numbers of the frames that the batches cover, in order."""
    return [frame for batch in found for frame in range(batch["start"], batch["start"] + batch["count"])]


def rate_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The growth rate in a batch."""
    value: dict[str, Any] = batch["values"]["growth_rate_ml_s"]
    return value


async def analysed(
    client: WireClient, data_id: str, frames: npt.NDArray[Any], **stream: Any
) -> list[dict[str, Any]]:
    """Send a whole stream, end it, and return its feed from beginning to end."""
    following = asyncio.create_task(follow(client, data_id))
    try:
        await send_chunks(client, data_id, frames, **stream)
        assert (await client.end(data_id))[0] == 200
        return await following
    finally:
        following.cancel()


async def analysis_status(client: WireClient, data_id: str) -> dict[str, Any]:
    """The reply to ``GET .../analysis``."""
    status: dict[str, Any] = (await client.ask("GET", f"/rheed/stream/{data_id}/analysis"))[1]
    return status


def damage(server: LiveServer, data_id: str, index: int) -> None:
    """Overwrite the stored file of a chunk with zeros."""
    shard = server.folder(data_id) / f"frames.zarr/frames/c/{index}/0/0"
    shard.write_bytes(b"\0" * shard.stat().st_size)


async def with_a_damaged_chunk(serve: Serve) -> tuple[LiveServer, str, list[dict[str, Any]]]:
    """A server with a finished stream of three chunks, the second one damaged before it was analysed; and its feed."""
    server = await serve(analysis_shared_bytes=0)  # so that the analysis reads the shard from the disk
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        await send_chunks(client, data_id, growth(), [1])  # it is not analysed before chunk 0
        damage(server, data_id, 1)
        await send_chunks(client, data_id, growth(), [0, 2])
        await client.end(data_id)
        return server, data_id, await follow(client, data_id)
