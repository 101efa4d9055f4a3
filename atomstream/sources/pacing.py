"""Recorded frames at the pace of the camera that took them, without drift.

A camera hands over a chunk once its last frame is exposed: chunk k is due (frames up to and including it) /
fps after the start. Due times are computed from the frame count, never added up, so errors don't
accumulate; a consumer that was late gets what is due at once, and the next chunk at its own time.
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
    """When chunks are due, in seconds from the start, at ``fps`` frames a second."""

    def __init__(self, fps: float) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise ConfigError(f"fps is {fps}; it must be finite and above 0")
        self.fps = fps
        self.frames = 0

    def due(self, n_frames: int) -> float:
        """Return when the next chunk, of ``n_frames`` frames, is due."""
        self.frames += n_frames
        return self.frames / self.fps


def paced(
    chunks: Iterable[Item],
    fps: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Item]:
    """Yield ``chunks`` when a camera of ``fps`` frames a second would have delivered them.

    An item is (n, H, W), one frame (H, W) or a :class:`SourceChunk`. The time starts once the first has been
    read, so that opening a file counts for nothing. ``clock`` and ``sleep`` are in seconds.
    """
    schedule = Schedule(fps)
    start: float | None = None
    for item in chunks:
        if start is None:
            start = clock()
        due = start + schedule.due(_frames_in(item))
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
    """Do as :func:`paced` does, in asyncio; a sync iterable is read in a thread: it may wait for a disk."""
    schedule = Schedule(fps)
    start: float | None = None
    async for item in _off_loop(chunks):
        if start is None:
            start = clock()
        due = start + schedule.due(_frames_in(item))
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
