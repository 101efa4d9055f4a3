"""Delivers recorded frames in real time, as their camera did, without drift.

A chunk is complete when its last frame is exposed, so it is due at (frames up to and including it) / fps after the
start. Due times are computed from the frame count and not summed, so errors do not accumulate. After a delay of the
consumer, overdue chunks follow at once and the next one at its regular time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from atomstream.errors import ConfigError

from .frame_source import SourceChunk

Item = TypeVar("Item", bound="np.ndarray[Any, Any] | SourceChunk")

_END: Any = object()


class Schedule:
    """Computes when chunks are due, in s from the start, at ``fps`` frames per second (finite, > 0)."""

    def __init__(self, fps: float) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps is {fps}; it must be finite and above 0")
        self.fps = fps
        self.frames = 0

    def due(self, n_frames: int) -> float:
        """Return when the next chunk is due (s from the start); it ends ``n_frames`` frames after the one before."""
        self.frames += n_frames
        return self.frames / self.fps


def paced(
    chunks: Iterable[Item],
    fps: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Item]:
    """Yield ``chunks`` at the times at which a camera with ``fps`` frames per second would deliver them.

    An item is (n, H, W), one frame (H, W) or a :class:`SourceChunk`. The time starts when the first one was
    read, so that the time to open a file does not count. ``clock`` and ``sleep`` are in seconds.
    """
    schedule, progress = Schedule(fps), _Progress()
    start: float | None = None
    for item in chunks:
        if start is None:
            start = clock()
        due = start + schedule.due(progress.intervals(item))
        while (wait := due - clock()) > 0:
            sleep(wait)
        yield item


async def apaced(
    chunks: Iterable[Item] | AsyncIterable[Item],
    fps: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncIterator[Item]:
    """Asyncio version of :func:`paced`. A synchronous iterable is read in a thread, because it may block."""
    schedule, progress = Schedule(fps), _Progress()
    start: float | None = None
    async for item in _off_loop(chunks):
        if start is None:
            start = clock()
        due = start + schedule.due(progress.intervals(item))
        while (wait := due - clock()) > 0:
            await sleep(wait)
        yield item


async def _off_loop(chunks: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(chunks, AsyncIterable):
        async for item in chunks:
            yield item
        return
    iterator = iter(chunks)
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item


def _frames_in(item: np.ndarray[Any, Any] | SourceChunk) -> int:
    frames = item.frames if isinstance(item, SourceChunk) else item
    return 1 if frames.ndim == 2 else len(frames)


class _Progress:
    """Counts the frame intervals of the items, with those of frames that are missing."""

    def __init__(self) -> None:
        self._next: int | None = None

    def intervals(self, item: np.ndarray[Any, Any] | SourceChunk) -> int:
        """Return the intervals from the last frame of the item before to the last one of this item."""
        if not isinstance(item, SourceChunk) or item.indices is None or not len(item.indices):
            return _frames_in(item)
        begin = int(item.indices[0]) if self._next is None else self._next
        self._next = int(item.indices[-1]) + 1
        return self._next - begin
