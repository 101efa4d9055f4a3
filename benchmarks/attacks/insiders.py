"""Attacks with a key: a faulty or hostile client, or one whose key was stolen."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from functools import partial
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.shard import ABSENT, pack_index
from benchmarks.attacks.rig import FRAMES, Outcome, Rig, closed, count, counts_text
from tests.wire_client import WireClient, make_frames, shard_bytes


async def _put(rig: Rig, url: str, body: bytes) -> int:
    parts = urlsplit(url)
    return await rig.raw(rig.request("PUT", f"{parts.path}?{parts.query}", body))


async def decoded_size(rig: Rig, _size: float) -> Outcome:
    """A body of 20 bytes that declares a frame of 1 GiB, and bodies whose frames declare more than their shape."""
    import zstandard

    found: dict[str, int] = {}
    async with rig.client() as client:
        data_id = await client.create("bombs")
        status, _ = await client.ask_url(data_id, 0, (1, 32768, 32767), 1)
        found["announced 1 GiB"] = status
        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
        index = pack_index(np.array([[0, len(bomb)]], dtype=np.uint64))
        url = await client.url(data_id, 0, (1, 64, 64), 1)
        found["256 MiB in a frame of 4 KiB"] = await _put(rig, url, bomb + index)
        absent = pack_index(np.full((250, 2), ABSENT, dtype=np.uint64))
        url = await client.url(data_id, 1, (250, 2048, 2048), 250)
        found["1 GB of absent frames"] = await _put(rig, url, absent)
        status, _ = await client.ask_url(data_id, 2, (100_000, 2048, 2048), 100_000)
        found["announced 400 GB"] = status
    answer = ", ".join(f"{what}: {status}" for what, status in found.items())
    return Outcome(
        len(found),
        answer,
        500 not in found.values() and found["announced 1 GiB"] == 413 and found["announced 400 GB"] == 400,
    )


async def far_index(rig: Rig, _size: float) -> Outcome:
    """A small chunk under the largest index makes a stream of 10^12 frames; its series and tables are asked for."""
    async with rig.client() as client:
        data_id = await client.create("far")
        body = shard_bytes(make_frames(2))
        statuses = [await _put(rig, await client.url(data_id, 9_999_999, (2, 8, 12), 100_000), body)]
        for path in (
            f"/dashboard/streams/{data_id}/series?columns=specular_intensity&start=0&stop=1e12",
            f"/rheed/stream/{data_id}/export?to=csv", f"/dashboard/streams/{data_id}/picture?time=1e11",
            f"/rheed/timeseries/{data_id}/", f"/dashboard/streams/{data_id}", f"/rheed/stream/{data_id}/chunks",
        ):  # fmt: skip
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20), client.session.get(rig.server.url + path) as reply:
                    statuses.append(reply.status if len(await reply.read()) < 30_000_000 else 599)
    return Outcome(7, ", ".join(map(str, statuses)), len(statuses) == 7 and not {500, 599} & set(statuses))


async def lost_list(rig: Rig, size: float) -> Outcome:
    """A list of 100,000 lost chunks at the end of a stream, then many requests about it."""
    number = round(300 * size)
    async with rig.client() as client:
        data_id = await client.create("losses")
        await client.send(data_id, 0, make_frames(4))
        status, _ = await client.end(data_id, **{"Atomstream-Lost": "1-99999"})
        began = time.monotonic()
        asks = [partial(rig.raw, rig.keyed("GET", f"/dashboard/streams/{data_id}")) for _ in range(number)]
        found = await count(asks)
        took = 1000 * (time.monotonic() - began) / max(1, number)
    return Outcome(
        number, f"end {status}; {counts_text(found)}, {took:.0f} ms each", found.keys() <= {200, 503}
    )


async def repeats(rig: Rig, size: float) -> Outcome:
    """The same chunk many times at once, equal and with other pixels: the first stays, every other one is refused."""
    rounds = max(2, round(20 * size))
    wrong, answers = 0, []
    async with rig.client() as client:
        data_id = await client.create("repeats")
        for index in range(rounds):
            frames, other = make_frames(4, seed=index), make_frames(4, seed=1000 + index)
            url = await client.url(data_id, index, (4, 8, 12))
            bodies = [shard_bytes(frames)] * 6 + [shard_bytes(other)] * 2
            answers += await asyncio.gather(*(_put(rig, url, body) for body in bodies))
        archive = StreamArchive.open(rig.server.data / "streams" / data_id)
        for index in range(rounds):
            stored = archive.frames(4 * index, 4 * index + 4)
            both = (make_frames(4, seed=index), make_frames(4, seed=1000 + index))
            wrong += not any(np.array_equal(stored, one) for one in both)
    right = wrong == 0 and set(answers) <= {200, 409, 503}
    return Outcome(8 * rounds, f"{sorted(set(answers))}; {wrong} chunks mixed", right)


async def signed_urls(rig: Rig, _size: float) -> Outcome:
    """Upload URLs that were changed in one place, or used for another chunk, stream or method."""
    async with rig.client() as client:
        data_id, other = await client.create("signed"), await client.create("others")
        url = await client.url(data_id, 0, (4, 8, 12))
        parts = urlsplit(url)
        ticket = parts.query.split("ticket=")[1].split("&")[0]
        claims = json.loads(base64.urlsafe_b64decode(ticket.replace("%3D", "=")))
        claims["expires"] += 1e9
        longer = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        tried = [
            url.replace("/0?", "/1?"), url.replace(data_id, other), url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.replace(ticket, longer), url.replace("signature=", "signature=%00"), url.split("&signature")[0],
            url.replace("/upload/", "//upload/"), url + "&signature=" + "0" * 64,
        ]  # fmt: skip
        found = await count(partial(_put, rig, one, shard_bytes(make_frames(4))) for one in tried)
        for method in ("POST", "GET", "DELETE"):
            found[await rig.raw(rig.request(method, f"{parts.path}?{parts.query}"))] += 1
    # A second signature behind the right one changes nothing: the first one is checked.
    return Outcome(
        len(tried) + 3, counts_text(found), found[200] <= 1 and found.keys() <= {200, 400, 401, 403, 404, 405}
    )


async def slow_uploads(rig: Rig, size: float) -> Outcome:
    """More uploads than there are places, of 1 GiB as announced, one byte every second."""
    number = max(8, round(48 * size))
    connections = []
    async with rig.client() as client:
        data_id = await client.create("slow")
        for index in range(number):
            parts = urlsplit(await client.url(data_id, index, (64, 2048, 2048), 64))
            reader, writer = await rig.connect()
            head = rig.request("PUT", f"{parts.path}?{parts.query}").replace(
                b"Content-Length: 0", b"Content-Length: 250000000"
            )
            writer.write(head)
            connections.append((reader, writer))
        for _ in range(round(12 * max(size, 0.5))):
            await asyncio.sleep(1.0)
            for _, writer in connections:
                if not writer.transport.is_closing():
                    writer.write(b"x")
    gone = sum([await closed(reader, 0.2) for reader, _ in connections])
    for _, writer in connections:
        writer.close()
    return Outcome(number, f"{gone} of {number} ended by the server", size < 1 or gone == number)


async def unread_feeds(rig: Rig, size: float) -> Outcome:
    """Feeds from the first message on, whose readers read nothing."""
    number, writers = round(300 * size) or 8, []
    async with rig.client() as client:
        data_id = await client.create("feeds", fps_capture_rate=24.0)
        for index in range(4):
            await client.send(data_id, index, np.roll(FRAMES, index), len(FRAMES))
    nonce = base64.b64encode(bytes(16)).decode()
    ask = rig.request(
        "GET", f"/rheed/stream/{data_id}/feed?after=0", X_API_KEY=rig.server.api_key, Connection="Upgrade",
        Upgrade="websocket", Sec_WebSocket_Version="13", Sec_WebSocket_Key=nonce,
    )  # fmt: skip
    for _ in range(number):
        _, writer = await rig.connect(receive_bytes=4096)
        writer.write(ask)
        writers.append(writer)
    await asyncio.sleep(4.0)
    health = await rig.raw(rig.request("GET", "/health"))
    handles = rig.server.handles()
    for writer in writers:
        writer.transport.abort()
    return Outcome(number, f"/health {health}, {handles} handles", health == 200)


async def bodies(rig: Rig, size: float) -> Outcome:
    """JSON that is nested, long, compressed, not text, or of wrong types."""
    number = max(1, round(20 * size))
    texts: list[bytes] = [
        b"[" * 100_000, b'{"name":' * 50_000, b'{"name": "' + b"a" * 2_000_000 + b'"}', b"\xff\xfe", b"",
        b'{"name": 1e999}', b'{"name": null}', b'{"name": "\\ud800"}', b'{"name": "a\\u0000"}',
        b"[" + b"1," * 400_000 + b"1]",
    ]  # fmt: skip
    key = rig.server.api_key
    asks = [partial(rig.raw, rig.request("POST", "/tags/", text, X_API_KEY=key)) for text in texts] * number
    zipped = rig.request("POST", "/tags/", b"x" * 50, X_API_KEY=key, Content_Encoding="gzip")
    asks += [partial(rig.raw, zipped)] * number
    found = await count(asks)
    return Outcome(len(asks), counts_text(found), not {500, -1} & found.keys())


async def websocket_frames(rig: Rig, _size: float) -> Outcome:
    """WebSocket frames that are not allowed, or announce more than they have: each closes only its own socket."""
    frames = [
        b"\x81\x01x", b"\xf1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x82\xff" + b"\x7f" + b"\xff" * 7 + b"\0\0\0\0",
        b"\x88\x81\0\0\0\0a", b"\x01\x80\0\0\0\0" * 1000, b"\x89\x80\0\0\0\0" * 20_000, b"\xc1\x81\0\0\0\0x",
    ]  # fmt: skip
    async with rig.client() as client:
        data_id = await client.create("frames", fps_capture_rate=24.0)
        await client.send(data_id, 0, FRAMES, len(FRAMES))
    nonce, ended = base64.b64encode(bytes(16)).decode(), 0
    for path in (f"/rheed/stream/{data_id}/feed?after=-1", f"/dashboard/streams/{data_id}/pictures"):
        for frame in frames:
            reader, writer = await rig.connect()
            writer.write(
                rig.request(
                    "GET", path, X_API_KEY=rig.server.api_key, Connection="Upgrade", Upgrade="websocket",
                    Sec_WebSocket_Version="13", Sec_WebSocket_Key=nonce,
                )
            )  # fmt: skip
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(OSError):
                writer.write(frame)
                await writer.drain()
            ended += await closed(reader, 1.0)
            writer.close()
    health = await rig.raw(rig.request("GET", "/health"))
    return Outcome(2 * len(frames), f"{ended} closed by the server; /health {health}", health == 200)


async def abandoned_streams(rig: Rig, size: float) -> Outcome:
    """Streams that are never ended, more than the server has handles."""
    number = round(800 * size)

    async def one(client: WireClient, index: int) -> int:
        try:
            data_id = await client.create(f"abandoned {index}")
            return (await client.send(data_id, 0, make_frames(2), 2))[0]
        except (AssertionError, aiohttp.ClientError):
            return 500

    async with rig.client() as client:
        found = await count((partial(one, client, index) for index in range(number)), 8)
    return Outcome(number, f"{counts_text(found)}; {rig.server.handles()} handles", found.keys() <= {200})


CASES = {
    "frames larger than their body": decoded_size,
    "a chunk under the largest index": far_index,
    "100,000 lost chunks": lost_list,
    "the same chunk at once": repeats,
    "changed upload URLs": signed_urls,
    "slow uploads": slow_uploads,
    "feeds that nobody reads": unread_feeds,
    "JSON of every kind": bodies,
    "frames of WebSockets": websocket_frames,
    "streams that nobody ends": abandoned_streams,
}
