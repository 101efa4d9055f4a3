from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import ConfigError
from atomstream.sources import Schedule, SourceChunk, apaced, paced


class FakeClock:
    """A clock that only the sleep and the test advance; a sleep may end early, as in reality."""

    def __init__(self, early: float = 0.0) -> None:
        self.now = 1000.0
        self.early = early
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(seconds - self.early, 1e-6)

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)


def stack(n: int) -> np.ndarray:
    """A chunk with ``n`` small frames."""
    return np.zeros((n, 2, 3), np.uint8)


@given(st.lists(st.integers(1, 240), min_size=1, max_size=60), st.sampled_from([29.97, 50.09, 120.0]))
def test_chunks_come_when_their_last_frame_is_exposed(sizes: list[int], fps: float) -> None:
    """Chunk k is released at (frames up to and including it) / fps exactly, after any number of chunks."""
    clock = FakeClock(early=0.0003)
    frames = 0
    for chunk in paced(map(stack, sizes), fps, clock=clock, sleep=clock.sleep):
        frames += len(chunk)
        assert 0 <= clock.now - 1000.0 - frames / fps < 2e-6


def test_an_hour_has_no_drift() -> None:
    """After 4.3 million frames the due time is exactly frames / fps."""
    schedule = Schedule(119.88)
    due = [schedule.due(240) for _ in range(18_000)]
    assert due[-1] == float(Fraction(240 * 18_000) / Fraction(119.88))


def test_a_late_consumer_catches_up_and_loses_nothing() -> None:
    """Overdue chunks follow at once, and then the regular times continue."""
    clock = FakeClock()
    released = []
    for k, _ in enumerate(paced((stack(10) for _ in range(8)), 10.0, clock=clock, sleep=clock.sleep)):
        released.append(clock.now - 1000.0)
        if k == 1:
            clock.now += 3.5
    np.testing.assert_allclose(released, [1, 2, 5.5, 5.5, 5.5, 6, 7, 8], atol=1e-5)


def test_the_first_chunk_starts_the_clock() -> None:
    """The time starts when the first chunk was read, so a slow start causes no burst."""
    clock = FakeClock()

    def slow() -> Iterator[np.ndarray]:
        clock.now += 20.0
        yield stack(5)
        yield stack(5)

    times = [clock.now for _ in paced(slow(), 5.0, clock=clock, sleep=clock.sleep)]
    np.testing.assert_allclose(times, [1021.0, 1022.0])


def test_single_frames_and_source_chunks_are_counted() -> None:
    """(H, W) counts as one frame, a SourceChunk as its frames; items are not changed."""
    clock = FakeClock()
    items = [np.zeros((2, 3), np.uint8), SourceChunk(stack(4)), stack(5)]
    out = list(paced(items, 10.0, clock=clock, sleep=clock.sleep))
    assert all(a is b for a, b in zip(out, items, strict=True))
    assert clock.now == pytest.approx(1001.0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_fps(fps: float) -> None:
    """A frame rate that is not finite and positive raises ConfigError."""
    with pytest.raises(ConfigError, match="fps is"):
        next(paced([stack(1)], fps))


async def test_async_pacing_is_the_same_for_sync_and_async_chunks() -> None:
    """apaced releases at the same times as paced, for sync and async iterables."""

    async def async_chunks() -> AsyncIterator[np.ndarray]:
        for _ in range(5):
            yield stack(3)

    for chunks in (async_chunks(), [stack(3)] * 5):
        clock = FakeClock(early=0.0002)
        times = [clock.now async for _ in apaced(chunks, 30.0, clock=clock, sleep=clock.asleep)]
        np.testing.assert_allclose(times, 1000.0 + np.arange(1, 6) / 10, atol=2e-6)


async def test_a_sync_iterable_is_read_off_the_loop() -> None:
    """A sync source that blocks does not block the event loop; here it waits for the loop."""
    loop = asyncio.get_running_loop()

    def source() -> Iterator[np.ndarray]:
        # answered only if the loop is free
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=60)
        yield stack(1)

    assert [len(chunk) async for chunk in apaced(source(), 1e6)] == [1]


async def test_errors_of_the_source_are_raised() -> None:
    """An error of the source is raised, sync and async."""

    def broken() -> Iterator[np.ndarray]:
        yield stack(1)
        raise ConfigError("page 1 can't be read")

    with pytest.raises(ConfigError, match="page 1"):
        list(paced(broken(), 1e6))
    with pytest.raises(ConfigError, match="page 1"):
        _ = [chunk async for chunk in apaced(broken(), 1e6)]
