"""Throughput of streams: rates, delays, and the forecast of the disk, until they end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atomstream.records import FrameMeta
from atomstream.server.archive.metadata import Status
from atomstream.server.archive.records import ChunkTimes, CommitResult, UploadClaims
from atomstream.server.dashboard.throughput import OVERDUE_S, SILENT_S, ThroughputMonitor
from atomstream.server.streams.signals import ChunkStored, Followed, StatusChanged
from tests.fake_clock import Clock
from tests.live_server import LiveServer, Serve
from tests.wire_client import START_MS, WireClient, make_frames

CHUNK, FPS, NBYTES = 240, 120.0, 30_000_000
PERIOD_S = CHUNK / FPS


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when it is set."""
    return Clock(1000.0)


@pytest.fixture
def arrivals(clock: Clock) -> ThroughputMonitor:
    """The throughput of a server that uses this clock."""
    return ThroughputMonitor(clock, clock)


def stored(data_id: str, index: int, end_s: float, *, repeated: bool = False) -> ChunkStored:
    """A chunk whose last frame was exposed at ``end_s``."""
    dims, start_ms, end_ms = (CHUNK, 480, 640), 1e3 * (end_s - PERIOD_S), 1e3 * end_s
    ticket = UploadClaims(data_id, index, dims, "uint8", CHUNK, FPS, start_ms, end_ms)
    stamps = ChunkTimes(dims, FPS, start_ms, end_ms)
    return ChunkStored(ticket, CommitResult(index, CHUNK, NBYTES, 0, repeated, stamps))


async def store_chunks(
    arrivals: ThroughputMonitor, clock: Clock, data_id: str, count: int, late_by_s: float = 0.0
) -> None:
    """Store ``count`` chunks at the camera's rate, each ``late_by_s`` later than the previous one."""
    for index in range(count):
        clock.now += PERIOD_S
        await arrivals.on_chunk_stored(stored(data_id, index, clock.now - 0.5 - index * late_by_s))


async def test_the_throughput_of_a_stream(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """Frames and bytes per second are those between chunks, and a growing delay is reported."""
    await store_chunks(arrivals, clock, "a", 5, late_by_s=0.1)
    clock.now += 3.0
    recent = arrivals.throughput("a")
    assert recent is not None
    assert recent.frames_per_s == pytest.approx(FPS)
    assert recent.bytes_per_s == pytest.approx(NBYTES / PERIOD_S)
    assert recent.late_s == pytest.approx(0.9)
    assert recent.late_growth == pytest.approx(0.1 / PERIOD_S)
    assert recent.silent_s == pytest.approx(3.0)


async def test_dropped_frames_are_no_delay(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """A chunk in which the camera dropped 60 frames ends 0.5 s after the time of its stored frames."""
    one = stored("a", 0, clock.now)
    ids = tuple(range(120)) + tuple(range(180, 300))
    stamps = replace(one.committed.stamps, meta=FrameMeta(ids=ids))
    clock.now += 0.5
    await arrivals.on_chunk_stored(replace(one, committed=replace(one.committed, stamps=stamps)))
    recent = arrivals.throughput("a")
    assert recent is not None
    assert recent.late_s == pytest.approx(0.0)


async def test_a_repeat_is_not_counted(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """A chunk that arrives a second time counts neither for the disk nor for the delay."""
    await arrivals.on_chunk_stored(stored("a", 0, clock.now, repeated=True))
    assert arrivals.throughput("a") is None
    assert arrivals.bytes_per_s() == 0.0


async def test_streams_fill_the_disk_together(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """The disk fills at the sum of the rates of all active streams."""
    for index in range(4):
        clock.now += PERIOD_S
        for data_id in "abc":
            await arrivals.on_chunk_stored(stored(data_id, index, clock.now))
    assert arrivals.bytes_per_s() == pytest.approx(3 * NBYTES / PERIOD_S)


@pytest.mark.parametrize("status", ["stream_finalizing", "success", "stream_interrupted"])
async def test_an_ended_stream_is_not_counted(
    arrivals: ThroughputMonitor, clock: Clock, status: Status
) -> None:
    """After its end a stream does not count, even with late chunks, until it is active again."""
    await store_chunks(arrivals, clock, "a", 3)
    await store_chunks(arrivals, clock, "b", 3)
    await arrivals.on_status_changed(StatusChanged("a", status))
    assert arrivals.bytes_per_s() == pytest.approx(NBYTES / PERIOD_S)
    await arrivals.on_chunk_stored(stored("a", 3, clock.now))
    assert arrivals.bytes_per_s() == pytest.approx(NBYTES / PERIOD_S)
    await arrivals.on_status_changed(StatusChanged("a", "stream_active"))
    await arrivals.on_chunk_stored(stored("a", 4, clock.now))
    assert arrivals.bytes_per_s() > NBYTES / PERIOD_S


async def test_a_silent_stream_is_not_counted(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """A client that disappeared without an end is counted for half a minute at most."""
    await store_chunks(arrivals, clock, "a", 3)
    clock.now += SILENT_S - 1.0
    assert arrivals.bytes_per_s() > 0.0
    clock.now += 2.0
    assert arrivals.bytes_per_s() == 0.0


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[WireClient]:
    """A client of a real server."""
    async with WireClient(await serve()) as made:
        yield made


async def send(client: WireClient, data_id: str, index: int) -> tuple[int, Any]:
    """Send the stream's chunk ``index``, of four frames."""
    start = START_MS + round(index * 4 * 1000 / FPS)
    stamps = {"start_unix_ms_utc": str(start), "end_unix_ms_utc": str(start + 33)}
    return await client.send(data_id, index, make_frames(4), **stamps)


async def test_the_forecast_ends_with_the_stream(client: WireClient) -> None:
    """While chunks arrive, each page forecasts when the disk is full; after the end none does."""
    busy, other = await client.create("busy"), await client.create("other")
    for index in range(3):
        status, _ = await send(client, busy, index)
        assert status == 200
    for data_id in (busy, other):
        _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
        assert info["disk_full_in_s"] > 0.0
    await client.end(busy)
    _, info = await client.ask("GET", f"/dashboard/streams/{busy}")
    assert info["disk_full_in_s"] is None
    status, _ = await send(client, busy, 3)
    assert status == 200
    _, info = await client.ask("GET", f"/dashboard/streams/{busy}")
    assert info["disk_full_in_s"] is None


async def test_which_streams_are_silent(arrivals: ThroughputMonitor, clock: Clock) -> None:
    """A stream is silent when its next chunk is overdue, until one arrives; one that ended is not."""
    await store_chunks(arrivals, clock, "a", 3)
    clock.now += OVERDUE_S
    assert arrivals.silent() == set()
    clock.now += 0.1
    assert arrivals.silent() == {"a"}
    await store_chunks(arrivals, clock, "a", 1)
    assert arrivals.silent() == set()
    clock.now += 60.0
    assert arrivals.silent() == {"a"}
    await arrivals.on_status_changed(StatusChanged("a", "success"))
    assert arrivals.silent() == set()


async def test_deliveries_of_other_processes_are_not_counted(clock: Clock) -> None:
    """Where other servers store chunks too, no stream is called silent, and a part of its chunks gives no rate."""
    arrivals = ThroughputMonitor(clock, clock, is_alone=False)
    await store_chunks(arrivals, clock, "a", 3)
    assert arrivals.throughput("a") is not None
    clock.now += 60.0
    assert arrivals.silent() == set()
    await arrivals.on_followed(Followed("a", (), "stream_interrupted"))
    assert arrivals.throughput("a") is not None
    await arrivals.on_followed(Followed("a", (3, 4), "stream_active"))
    assert arrivals.throughput("a") is None


def a_minute_later(server: LiveServer) -> ThroughputMonitor:
    """Put the clock of a running server's throughput forward by a minute; returns the throughput."""
    listeners: list[Any] = server.context.signals.chunk_stored._listeners
    (found,) = {
        one
        for one in (getattr(each, "__self__", None) for each in listeners)
        if isinstance(one, ThroughputMonitor)
    }
    found._monotonic = lambda: time.monotonic() + 60.0
    return found


async def test_a_server_with_a_store_calls_no_stream_silent(serve: Serve, tmp_path: Path) -> None:
    """With a shared store the next chunk may be at another server; a server with its own data folder has all chunks."""
    for options, expected in (({}, 1), ({"store": str(tmp_path / "store")}, 0)):
        server = await serve(**options)
        async with WireClient(server) as client:
            data_id = await client.create()
            await send(client, data_id, 0)
            a_minute_later(server)
            _, answer = await client.ask("GET", "/dashboard/problems")
            assert answer["silent"] == [data_id][:expected]


async def test_a_deleted_stream_is_removed(client: WireClient) -> None:
    """A stream that was deleted while it ran is not called silent for ever."""
    data_id = await client.create()
    await send(client, data_id, 0)
    arrivals = a_minute_later(client.server)
    assert arrivals.silent() == {data_id}
    assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
    assert arrivals.silent() == set()
    assert arrivals.throughput(data_id) is None
