"""The reference clock, with simulated clocks of host and server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from atomstream.errors import ConnectionFailedError, ServerBusyError
from atomstream.service.clock import ReferenceClock
from tests.service.recorder import calling, recording

EPOCH_MS = 1_700_000_000_000.0


class World:
    """Simulated clocks of a host and a server. Time passes only during a sleep."""

    def __init__(self) -> None:
        self.mono_ms = 5_000.0
        self.host_ahead_ms = EPOCH_MS - 250.0
        self.server_ahead_ms = EPOCH_MS
        self.one_way_ms = 2.0
        self.error: Exception | None = None
        self.requests_at_s: list[float] = []
        self._due: asyncio.Queue[tuple[float, asyncio.Event]] = asyncio.Queue()

    async def gateway_time(self) -> tuple[float, float]:
        self.requests_at_s.append((self.mono_ms - 5_000.0) / 1e3)
        self.mono_ms += self.one_way_ms
        if self.error is not None:
            raise self.error
        server = self.mono_ms + self.server_ahead_ms
        self.mono_ms += self.one_way_ms
        return server, server

    async def sleep(self, seconds: float) -> None:
        """The sleep of the clock under test: it ends when the test advances the time."""
        wake = asyncio.Event()
        await self._due.put((seconds, wake))
        await wake.wait()

    async def pass_sleeps(self, count: int) -> None:
        """End the next ``count`` sleeps. Returns when the clock sleeps again."""
        for _ in range(count):
            seconds, wake = await self._due.get()
            self.mono_ms += seconds * 1e3
            wake.set()
        self._due.put_nowait(await self._due.get())

    @property
    def wall_ms(self) -> float:
        return self.mono_ms + self.host_ahead_ms

    @property
    def reference_ms(self) -> float:
        return self.mono_ms + self.server_ahead_ms

    def clock(self) -> ReferenceClock:
        return ReferenceClock(
            self,
            monotonic_ns=lambda: round(self.mono_ms * 1e6),
            wall_ns=lambda: round(self.wall_ms * 1e6),
            sleep=self.sleep,
        )


@pytest.fixture
async def world() -> World:
    """The simulated clocks."""
    return World()


@pytest.fixture
async def clock(world: World) -> AsyncIterator[ReferenceClock]:
    """The clock under test. It is closed at the end."""
    clock = world.clock()
    yield clock
    await clock.close()


async def test_first_exchange_is_made_at_once(world: World, clock: ReferenceClock) -> None:
    """After the start the offset is known, and timestamps are in the server's time."""
    assert clock.status() is None
    await clock.start()
    now, offset, uncertainty = clock.now_ms()
    assert now == pytest.approx(world.reference_ms, abs=1e-3)
    assert offset == pytest.approx(250.0, abs=1e-3)
    assert uncertainty == pytest.approx(2.0, abs=1e-3)
    status = clock.status()
    assert status is not None
    assert status["offset_ms"] == pytest.approx(250.0, abs=1e-3)
    assert status["measured_at_unix_ms"] == pytest.approx(world.reference_ms, abs=1e-3)


async def test_exchanges_follow_the_protocol(world: World, clock: ReferenceClock) -> None:
    """Four exchanges at intervals of 2 s, then one every five minutes."""
    await clock.start()
    await world.pass_sleeps(3)
    assert [round(t) for t in world.requests_at_s] == [0, 2, 4, 6]
    await world.pass_sleeps(60)
    assert [round(t) for t in world.requests_at_s] == [0, 2, 4, 6, 306, 606]


async def test_slow_first_exchange_is_repeated_at_once(world: World, clock: ReferenceClock) -> None:
    """A slow first exchange, which included the connection set-up, is followed by another one at once."""
    world.one_way_ms = 40.0
    await clock.start()
    assert len(world.requests_at_s) == 2


async def test_starting_twice_measures_once(world: World, clock: ReferenceClock) -> None:
    """Two streams that start at the same time share the first exchange."""
    await asyncio.gather(clock.start(), clock.start())
    assert len(world.requests_at_s) == 1


async def test_host_step_changes_only_the_offset(world: World, clock: ReferenceClock) -> None:
    """A step of the host's clock by one hour does not change timestamps, and the offset is soon measured again."""
    await clock.start()
    await world.pass_sleeps(3)
    asked = len(world.requests_at_s)
    world.host_ahead_ms += 3_600_000.0
    now, offset, uncertainty = clock.now_ms()
    assert now == pytest.approx(world.reference_ms, abs=1e-3)
    assert offset == pytest.approx(250.0 - 3_600_000.0, abs=1e-3)
    assert uncertainty is not None
    assert uncertainty < 3.0
    await world.pass_sleeps(1)
    assert len(world.requests_at_s) == asked + 1


async def test_sleep_of_the_host_is_corrected(world: World, clock: ReferenceClock) -> None:
    """After a sleep, in which the monotonic clock stopped, the next check measures and corrects in one step."""
    await clock.start()
    await world.pass_sleeps(3)
    world.host_ahead_ms += 60_000.0
    world.server_ahead_ms += 60_000.0
    await world.pass_sleeps(1)
    assert clock.now_ms()[0] == pytest.approx(world.reference_ms, abs=1e-3)


async def test_failure_is_logged_once_and_streaming_continues(
    world: World, clock: ReferenceClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the server's time, timestamps are uncorrected and marked so. One warning; a later success is used."""
    world.error = ConnectionFailedError("no route")
    await clock.start()
    assert clock.now_ms() == (pytest.approx(world.wall_ms), None, None)
    world.error = ServerBusyError("later")
    await world.pass_sleeps(2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "timestamps are not corrected" in caplog.text
    world.error = None
    await world.pass_sleeps(1)
    assert clock.now_ms()[0] == pytest.approx(world.reference_ms, abs=1e-3)


async def test_uncertainty_grows_with_age(world: World, clock: ReferenceClock) -> None:
    """The uncertainty of a measurement grows by 15 ppm of its age (RFC 5905)."""
    await clock.start()
    world.mono_ms += 1_000_000.0
    assert clock.now_ms()[2] == pytest.approx(2.0 + 15.0, abs=1e-2)


async def test_silent_server_does_not_delay_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers delays the start by the limit only."""
    monkeypatch.setattr("atomstream.service.clock.FIRST_LIMIT_S", 0.05)
    world = World()
    never = asyncio.Event()

    async def silent() -> tuple[float, float]:
        await never.wait()
        raise AssertionError

    world.gateway_time = silent  # type: ignore[method-assign]
    clock = world.clock()
    await clock.start()
    assert clock.status() is None
    await clock.close()


async def test_closing_stops_measuring(world: World) -> None:
    """Close may be called before a start and twice. It keeps the estimate, and a later start does nothing."""
    clock = world.clock()
    await clock.close()
    await clock.start()
    assert world.requests_at_s == []
    clock = world.clock()
    await clock.start()
    await clock.close()
    await clock.close()
    assert clock.status() is not None


async def test_real_server_on_this_host_has_no_offset() -> None:
    """Over real HTTP to a server with the same clock, the offset is zero within the stated uncertainty."""
    import time

    async with recording() as server, calling(server.url) as api:
        from aiohttp import web

        def stamped(*_: object) -> web.Response:
            now = time.time_ns() / 1e6
            return web.json_response({"receivedAtUnixMs": now, "transmittedAtUnixMs": now})

        server.on("GET /gateway/time", stamped)
        clock = ReferenceClock(api)
        await clock.start()
        status = clock.status()
        await clock.close()
    assert status is not None
    assert abs(status["offset_ms"]) <= status["uncertainty_ms"] + 16.0  # Windows' clock ticks at 15.6 ms
    assert all("x-api-key" not in asked.headers for asked in server.requests)
