"""Attacks with a key on the server's memory and disk: large bodies, large replies, and few bytes that make much."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections import Counter
from functools import partial
from typing import Final

import numpy as np

from benchmarks.attacks.rig import Outcome, Rig, count, counts_text
from tests.wire_client import START_MS, make_frames, shard_bytes

BODY: Final = 32 << 20
"""Longest body of JSON, of points of signals."""


async def held_bodies(rig: Rig, size: float) -> Outcome:
    """Bodies of 32 MiB of which the last byte is never sent."""
    number, writers = round(60 * size) or 4, []
    head = rig.request("POST", "/tool-state/stream/chunk", X_API_KEY=rig.server.api_key)
    for _ in range(number):
        _, writer = await rig.connect()
        writer.write(head.replace(b"Content-Length: 0", b"Content-Length: %d" % BODY))
        writers.append(writer)

    async def fill(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(10.0):
                for _ in range(31):
                    writer.write(b" " * (1 << 20))
                    await writer.drain()

    await asyncio.gather(*map(fill, writers))
    health = await rig.raw(rig.request("GET", "/health"))
    for writer in writers:
        writer.transport.abort()
    return Outcome(number, f"/health {health} while they wait", health == 200)


async def decoded_bodies(rig: Rig, size: float) -> Outcome:
    """JSON of empty lists, which becomes 20 times as large: up to the longest body that is decoded, and beyond it."""
    number = round(80 * size) or 4
    async with rig.client() as client:
        data_id = await client.create("lists")
    asks = []
    for lists in (40_000, 330_000):
        body = b'{"attributes":{"a":[' + b",".join([b"[]"] * lists) + b"]}}"
        ask = rig.request("PATCH", f"/rheed/stream/{data_id}", body, X_API_KEY=rig.server.api_key)
        asks += [partial(rig.raw, ask)] * number
    found = await count(asks)
    return Outcome(len(asks), counts_text(found), found.keys() <= {400, 413, 503})


async def long_series(rig: Rig, size: float) -> Outcome:
    """A stream of signals up to its limit of points, then its whole series several times at once."""
    chunks, points = max(1, round(11 * size)), 480_000
    async with rig.client() as client:
        _, made = await client.ask("POST", "/tool-state/stream/initialize", {})
        found: Counter[int] = Counter()
        for index in range(chunks):
            start = START_MS // 1000 + index * points
            times = b",".join(b"%d" % (start + k) for k in range(points))
            body = b'{"data_id":"%s","chunk_index":%d,"channel_name":"a","timestamps":[%s],"values":[%s]}' % (
                made["data_id"].encode(), index, times, b",".join([b"1"] * points),
            )  # fmt: skip
            ask = rig.request("POST", "/tool-state/stream/chunk", body, X_API_KEY=rig.server.api_key)
            found[await rig.raw(ask, within_s=60.0)] += 1

        async def read() -> int:
            async with client.session.get(
                f"{rig.server.url}/tool-state/{made['data_id']}/timeseries/"
            ) as reply:
                async for _ in reply.content.iter_chunked(1 << 20):
                    pass
                return reply.status

        found.update(await asyncio.gather(*(read() for _ in range(4))))
    return Outcome(chunks + 4, counts_text(found), found.keys() <= {200, 413, 503})


async def fast_feeds(rig: Rig, size: float) -> Outcome:
    """Feeds of a camera of 100,000 frames/s, from the first message on, whose readers read nothing."""
    number, writers = round(300 * size) or 8, []
    frames = np.random.default_rng(0).integers(1, 255, (20_000, 1, 1), dtype=np.uint8)
    async with rig.client() as client:
        data_id = await client.create("fast", fps_capture_rate=100_000.0)
        for index in range(max(1, round(3 * size))):
            await client.send(data_id, index, np.roll(frames, index), len(frames))
    ask = rig.request(
        "GET", f"/rheed/stream/{data_id}/feed?after=0", X_API_KEY=rig.server.api_key, Connection="Upgrade",
        Upgrade="websocket", Sec_WebSocket_Version="13", Sec_WebSocket_Key=base64.b64encode(bytes(16)).decode(),
    )  # fmt: skip
    for _ in range(number):
        _, writer = await rig.connect(receive_bytes=4096)
        writer.write(ask)
        writers.append(writer)
    await asyncio.sleep(8.0)
    health = await rig.raw(rig.request("GET", "/health"))
    for writer in writers:
        writer.transport.abort()
    return Outcome(number, f"/health {health}", health == 200)


async def small_inputs(rig: Rig, size: float) -> Outcome:
    """Few bytes that would make large files: frames far apart, many tags, long attributes, the same regions again."""
    number = round(300 * size) or 8
    async with rig.client() as client:
        data_id = await client.create("few bytes")
        path, found = f"/rheed/stream/{data_id}", Counter[int]()
        body = make_frames(1)
        for index in range(number):
            url = await client.url(data_id, 7 * index, body.shape, 100_000)
            found[(await client.put(url, shard_bytes(body)))[0]] += 1
        boxes = [{"type": "box", "name": f"r{k}", "x": 4, "y": 4, "width": 2, "height": 2} for k in range(64)]
        for index in range(number):
            found[(await client.ask("PUT", f"{path}/regions", {"regions": boxes}))[0]] += 1
            attributes = {f"a{index % 60}": ["x" * 900] * 20}
            found[(await client.ask("PATCH", path, {"attributes": attributes}))[0]] += 1
    grown = sum(
        one.stat().st_size for one in (rig.server.data / "streams" / data_id).rglob("*") if one.is_file()
    )
    return Outcome(
        3 * number,
        f"{counts_text(found)}; {grown >> 20} MiB of files",
        found.keys() <= {200, 400, 409} and grown < 1 << 30,
    )


CASES = {
    "bodies of 32 MiB held back": held_bodies,
    "JSON that becomes large": decoded_bodies,
    "series of 5 million points": long_series,
    "feeds of a fast camera": fast_feeds,
    "few bytes for large files": small_inputs,
}
