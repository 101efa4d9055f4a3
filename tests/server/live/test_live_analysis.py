"""A stream is analysed while its chunks arrive: correctly, in order, readable at any time, each result once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import numpy as np
import pytest

from atomstream.analysis import analyze
from tests.live_helpers import (
    CHUNK,
    FPS,
    RATE,
    analysed,
    batches,
    batches_until,
    column,
    feed,
    follow,
    frame_numbers,
    growth,
    next_message,
    rate_of,
    send_chunks,
    stamps,
)
from tests.live_server import Serve
from tests.wire_client import WireClient


async def test_growth_rate_is_the_simulators(serve: Serve) -> None:
    """The final rate agrees with the simulated growth within three of its sigmas."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        last = batches(await analysed(client, data_id, growth()))[-1]
    rate = rate_of(last)
    assert last["final"]
    assert abs(rate["value"] - RATE) < 3 * rate["sigma"] + 0.002


async def test_a_stall_moves_no_later_frame(serve: Serve) -> None:
    """A chunk with a timestamp 0.5 s late, which overlaps the next chunk, changes neither later times nor the rate."""
    frames = growth(480)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        following = asyncio.create_task(follow(client, data_id))
        for index in range(8):
            late_s = 0.5 if index == 3 else 0.0
            part = frames[index * CHUNK : (index + 1) * CHUNK]
            stamp = stamps(index + late_s * FPS / CHUNK, CHUNK)
            assert (await client.send(data_id, index, part, CHUNK, **stamp))[0] == 200
        await client.end(data_id)
        found = batches(await following)
    times = np.concatenate([np.frombuffer(b["columns"]["time_seconds"]) for b in found if b["count"]])
    after = 4 * CHUNK + round(
        0.5 * FPS
    )  # from here the next chunk's timestamps are later than those of the late one
    np.testing.assert_allclose(times[after:], np.arange(after, len(frames)) / FPS, atol=0.002)
    assert (np.diff(times) >= 0).all()
    rate = rate_of(found[-1])
    assert abs(rate["value"] - RATE) < 3 * rate["sigma"] + 0.002


async def test_every_frame_has_its_results_once(serve: Serve) -> None:
    """Batches contain each frame once and in order, and equal those of an offline analysis of the same array.

    The delay of each chunk's results is measured for ``/metrics``.
    """
    frames, server = growth(), await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        messages = await analysed(client, data_id, frames)
    found = batches(messages)
    assert frame_numbers(found) == list(range(len(frames)))
    assert [message["seq"] for message in messages[1:-1]] == list(range(1, len(messages) - 1))
    assert messages[-1]["type"] == "end"
    assert server.running is not None
    delays = server.context.measurements.result_delay
    assert sum(delays.counts) == len({batch["chunk"] for batch in found})
    assert 0.0 <= delays.total_s < 1e4
    offline = analyze(
        frames, FPS, times_s=np.concatenate([np.frombuffer(b["columns"]["time_seconds"]) for b in found])
    )
    for name in ("specular_intensity", "lattice_spacing", "growth_rate_ml_s"):
        np.testing.assert_array_equal(column(found, name), offline.frames[name].astype("<f4"), err_msg=name)


async def test_results_are_in_the_group_of_the_frames(serve: Serve) -> None:
    """xarray opens the group during and after the analysis, and reads the values of the feed."""
    xarray = pytest.importorskip("xarray")
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        group = server.folder(data_id) / "frames.zarr"
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            found = await batches_until(socket, 2 * CHUNK)
            with await asyncio.to_thread(xarray.open_zarr, group) as running:
                read = running["specular_intensity"].to_numpy()
            np.testing.assert_array_equal(read, column(found, "specular_intensity"))
            await send_chunks(client, data_id, growth(), [2, 3])
            await client.end(data_id)
            found += await batches_until(socket, 4 * CHUNK)
            await next_message(socket, "end")
        with await asyncio.to_thread(xarray.open_zarr, group) as ended:
            assert ended["growth_rate_ml_s"].attrs["units"] == "1/s"
            np.testing.assert_array_equal(ended["lattice_spacing"], column(found, "lattice_spacing"))


async def test_resume_from_a_number(serve: Serve) -> None:
    """A subscriber that reconnects with its last number receives the rest, with equal values."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        messages = await analysed(client, data_id, growth(120))
        found = batches(messages)
        rest = batches(await follow(client, data_id, after=found[4]["seq"]))
        (newest,) = batches(await follow(client, data_id, after=len(messages) - 3, columns="lattice_spacing"))
    assert [batch["seq"] for batch in rest] == [batch["seq"] for batch in found[5:]]
    for reported, repeated in zip(found[5:], rest, strict=True):
        assert reported["values"] == repeated["values"]
        assert reported["columns"] == repeated["columns"]
    assert set(newest["columns"]) <= {"time_seconds", "lattice_spacing"}


async def test_newest_only(serve: Serve) -> None:
    """after=-1 starts with the newest record."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0])
            last = (await batches_until(socket, CHUNK))[-1]
            async with feed(client, data_id, -1) as late:
                assert (await next_message(late, "batch"))["seq"] == last["seq"]


async def test_json_for_browsers(serve: Serve) -> None:
    """The JSON subprotocol has the same numbers as lists, and no NaN."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        found = batches(await analysed(client, data_id, growth(120)))
        url = f"{server.url}/rheed/stream/{data_id}/feed"
        texts: list[dict[str, Any]] = []
        async with client.session.ws_connect(url, protocols=("atomstream.json",)) as socket:
            async for message in socket:
                assert message.type is aiohttp.WSMsgType.TEXT
                texts.append(json.loads(message.data, parse_constant=pytest.fail))
    reported = next(text for text in texts if text.get("seq") == found[3]["seq"] and text["type"] == "batch")
    expected = np.frombuffer(found[3]["columns"]["specular_intensity"], "<f4")
    np.testing.assert_allclose(reported["columns"]["specular_intensity"], expected, rtol=1e-6)


async def test_slow_subscriber_gets_the_number_of_lost_records(serve: Serve) -> None:
    """A live subscriber that is too far behind skips records, receives their number, and gets the newest."""
    async with WireClient(await serve(feed_behind=3)) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        # All messages exist before the subscriber reads: they are larger than the socket's buffer.
        async with feed(client, data_id) as socket:
            await next_message(socket, "hello")
            await analysed(client, data_id, growth(480))
            seen = [msg async for msg in _messages(socket)]
    numbers = [message["seq"] for message in seen if message["type"] == "batch"]
    lost = [number for m in seen if m["type"] == "lost" for number in range(m["first"], m["last"] + 1)]
    assert sorted(numbers + lost + [m["seq"] for m in seen if m["type"] == "event"]) == list(
        range(1, max(numbers) + 1)
    )
    assert all(m["count"] == m["last"] - m["first"] + 1 for m in seen if m["type"] == "lost")


async def _messages(socket: aiohttp.ClientWebSocketResponse) -> Any:
    import msgpack

    async for message in socket:
        yield msgpack.unpackb(message.data)


async def test_only_with_a_key(serve: Serve) -> None:
    """Without a key the feed is refused before the handshake, an unknown stream with 404."""
    server = await serve()
    async with WireClient(server) as client, aiohttp.ClientSession() as stranger:
        data_id = await client.create()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect(f"{server.url}/rheed/stream/{data_id}/feed")
        assert refused.value.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as unknown:
            await feed(client, "9b2d6a5e-0000-4000-8000-000000000000")
        assert unknown.value.status == 404
