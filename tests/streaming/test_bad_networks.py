"""The network between a real client and a real server fails; each accepted chunk still arrives once and equal."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from tests.live_server import LiveServer, Serve
from tests.streaming.proxy import Plan, Proxy, proxied
from tests.streaming.stream_helpers import (
    CHUNK,
    FPS,
    assert_arrived,
    assert_sums,
    make_async,
    noise,
    stored,
    stream_stats,
    until,
)

SHAPE = (48, 64)
"""Noise, so that a chunk has more bytes than the request headers, and than one read of the proxy."""


pytestmark = pytest.mark.usefixtures("hurried")


@pytest.fixture
async def server(serve: Serve) -> LiveServer:
    return await serve()


@pytest.fixture
async def proxy(server: LiveServer) -> AsyncIterator[Proxy]:
    async with proxied(server.url) as made:
        yield made


@pytest.fixture
async def streamer(server: LiveServer, proxy: Proxy) -> AsyncIterator[AsyncRHEEDStreamer]:
    async with make_async(proxy.url, server.api_key, request_timeout_s=0.5, upload_timeout_s=0.5) as made:
        yield made


async def push_all(streamer: AsyncRHEEDStreamer, data_id: str, seeds: range) -> None:
    for k in seeds:
        await streamer.push(data_id, k, noise(k, shape=SHAPE))


async def assert_complete(
    streamer: AsyncRHEEDStreamer, server: LiveServer, data_id: str, seeds: list[int]
) -> None:
    """Finalize reports that everything arrived, and the server has it."""
    report = await streamer.finalize(data_id)
    assert_sums(report)
    assert (report["chunks_uploaded"], report["lost"], report["closed"]) == (len(seeds), [], True)
    assert_arrived(server, data_id, seeds, SHAPE)
    assert server.archive(data_id).missing_ranges() == []


BREAKS: dict[str, Callable[[int], Plan]] = {
    "way there reset": lambda k: Plan(up=k),
    "way back reset": lambda k: Plan(down=k // 40),
    "half closed": lambda k: Plan(half_close=k),
}


@pytest.mark.parametrize("kind", BREAKS)
async def test_connections_that_break_anywhere_lose_nothing(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer, kind: str
) -> None:
    """If the connection breaks at any byte of a request or its response, the chunk still arrives once and equal."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    breaks = [0, 1, 100, 300, 400, 500, 700, *range(1_000, 15_000, 1_500)]
    for number, k in enumerate(breaks):
        await proxy.cut_all()  # so that the next requests open new connections, which break
        proxy.plans.extend([BREAKS[kind](k)] * 3)
        await streamer.push(data_id, number, noise(number, shape=SHAPE))
        await streamer.flush(data_id)
        assert len(proxy.plans) < 3
        proxy.plans.clear()
    await assert_complete(streamer, server, data_id, list(range(len(breaks))))


@pytest.mark.parametrize("seed", range(3))
async def test_a_network_that_always_breaks_somewhere(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer, seed: int
) -> None:
    """If every second connection breaks at random in any way, all chunks of several streams arrive."""
    draw = random.Random(seed)
    streams = [await streamer.initialize(FPS, 0.0, CHUNK) for _ in range(3)]
    await proxy.cut_all()
    proxy.plans.extend(
        Plan(**{draw.choice(["up", "down", "half_close"]): draw.randrange(14_000)})
        if draw.random() < 0.5
        else Plan()
        for _ in range(60)
    )
    for data_id in streams:
        await push_all(streamer, data_id, range(6))
    for data_id in streams:
        await assert_complete(streamer, server, data_id, list(range(6)))


async def test_a_slow_network_is_not_a_failure(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer
) -> None:
    """An uplink that forwards a few hundred bytes at a time is not an error as long as bytes move."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await proxy.cut_all()
    proxy.default = Plan(piece=200)
    await push_all(streamer, data_id, range(3))
    await assert_complete(streamer, server, data_id, [0, 1, 2])


async def test_a_black_hole_times_out(server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer) -> None:
    """If no bytes move and no connection is closed, attempts time out and are repeated over new connections."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await push_all(streamer, data_id, range(1))
    await streamer.flush(data_id)
    proxy.black_hole()
    await push_all(streamer, data_id, range(1, 6))
    before = proxy.connections
    await until(lambda: proxy.connections > before + 2)
    assert (await stream_stats(streamer, data_id))["chunks_pending"] == 5
    proxy.recover()
    await assert_complete(streamer, server, data_id, list(range(6)))


async def test_a_server_that_restarts_changes_nothing(
    server: LiveServer, streamer: AsyncRHEEDStreamer
) -> None:
    """A server that is stopped and restarted during a stream has all chunks in the end."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    for k in range(12):
        await streamer.push(data_id, k, noise(k, shape=SHAPE))
        if k % 4 == 1:
            await server.stop()
        if k % 4 == 3:
            await server.start()
    await assert_complete(streamer, server, data_id, list(range(12)))


async def test_an_unreachable_server_gets_one_attempt_at_a_time(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer
) -> None:
    """While connections are refused, one attempt at a time is made; when one succeeds, all uploads continue."""
    streams = [await streamer.initialize(FPS, 0.0, CHUNK) for _ in range(2)]
    await proxy.refuse()
    for data_id in streams:
        await push_all(streamer, data_id, range(8))
    while not all([(await stream_stats(streamer, data_id))["standing_still"] for data_id in streams]):
        await asyncio.sleep(0.005)
    in_flight = set()
    for _ in range(100):
        in_flight.add((await streamer.stats())["uploads_in_flight"])
        await asyncio.sleep(0.002)
    assert in_flight <= {0, 1}
    assert proxy.connections < 20
    await proxy.listen()
    for data_id in streams:
        await assert_complete(streamer, server, data_id, list(range(8)))


async def test_the_reason_of_an_outage_is_reported(
    proxy: Proxy, streamer: AsyncRHEEDStreamer, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage is logged once when it begins and once when it ends; meanwhile ``stats()`` contains its reason."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await proxy.refuse()
    await push_all(streamer, data_id, range(6))
    while not (await stream_stats(streamer, data_id))["standing_still"]:
        await asyncio.sleep(0.005)
    assert "no connection to " + proxy.url in (await stream_stats(streamer, data_id))["standing_still"]
    await proxy.listen()
    await streamer.flush(data_id)
    assert caplog.text.count("Frames are kept, and sent when the server answers again") == 1
    assert caplog.text.count("The server answers again") == 1


async def test_an_end_whose_reply_is_lost_is_repeated(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer
) -> None:
    """/end is repeated if its reply was lost, and the server treats the repeat as the same end."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await push_all(streamer, data_id, range(2))
    await streamer.flush(data_id)
    await proxy.cut_all()
    proxy.plans.extend([Plan(down=0), Plan(down=20)])
    await assert_complete(streamer, server, data_id, [0, 1])


async def test_disorder_and_repeats_change_nothing(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer
) -> None:
    """Chunks pushed in any order and repeatedly, over a bad network, are stored once at their index."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await proxy.cut_all()
    proxy.plans.extend([Plan(up=5_000), Plan(down=10), Plan(), Plan(up=200)])
    order = [k for k in range(8) for _ in range(2)]
    random.Random(1).shuffle(order)
    for k in order:
        await streamer.push(data_id, k, noise(k, shape=SHAPE))
    await assert_complete(streamer, server, data_id, list(range(8)))


async def test_frames_one_by_one_over_a_bad_network(
    server: LiveServer, proxy: Proxy, streamer: AsyncRHEEDStreamer
) -> None:
    """The chunks of push_frame arrive like those of push, including the last short one."""
    data_id = await streamer.initialize(FPS, 0.0, CHUNK)
    await proxy.cut_all()
    proxy.plans.extend([Plan(up=6_000), Plan(down=0)] * 3)
    frames = noise(7, n=4 * CHUNK + 1, shape=SHAPE)
    for frame in frames:
        await streamer.push_frame(data_id, frame)
    report = await streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["lost"]) == (5, [])
    np.testing.assert_array_equal(stored(server, data_id), frames)
