"""How fast frames come in and leave, and when memory will be full at that rate. Pure, clock injected.

What leaves is counted by the bytes that went out, not by chunks confirmed: over a slow line several large chunks
share the way, and for the first half minute none of them would arrive.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atomstream.pipeline.upload import Upload
from atomstream.records import Shard

WINDOW_S: Final = 10.0
BUCKET_S: Final = 0.25
NOTABLE_BACKLOG: Final = 4
"""Fewer chunks are simply on their way."""
NOTABLE: Final = 0.1
"""Below this share a difference of the rates is the jitter of chunks at the window's ends."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over the last ten seconds."""

    frames_in_s: float
    bytes_in_s: float
    frames_out_s: float
    bytes_out_s: float

    @property
    def backlog_grows(self) -> bool:
        """Whether markedly more comes in than leaves."""
        return self.bytes_in_s - self.bytes_out_s > NOTABLE * self.bytes_in_s > 0

    def full_in_s(self, room: int) -> float | None:
        """Seconds until ``room`` more encoded bytes have piled up; None where the backlog does not grow."""
        return room / (self.bytes_in_s - self.bytes_out_s) if self.backlog_grows else None


class ThroughputMeter:
    """Counts encoded and delivered frames; any thread may write."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._in: deque[tuple[float, float, int]] = deque()
        self._out: deque[tuple[float, float, int]] = deque()
        self.frames_encoded = self.frames_stored = 0
        self.raw_bytes_encoded = self.bytes_encoded = self.bytes_stored = 0

    def encoded(self, shard: Shard) -> None:
        """A chunk became a shard."""
        with self._lock:
            self.frames_encoded += shard.info.n_frames
            self.raw_bytes_encoded += shard.info.raw_nbytes
            self.bytes_encoded += shard.info.nbytes
            self._add(self._in, shard.info.n_frames, shard.info.nbytes)

    def stored(self, parcel: Upload) -> None:
        """A shard was delivered."""
        with self._lock:
            self.frames_stored += parcel.dims[0]
            self.bytes_stored += parcel.nbytes

    def sent(self, parcel: Upload, nbytes: int) -> None:
        """Bytes of a shard went out; a negative number where they will go again."""
        with self._lock:
            self._add(self._out, parcel.dims[0] * nbytes / parcel.nbytes, nbytes)

    def rates(self) -> Rates:
        """The present rates."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            span = max(1.0, min(WINDOW_S, now - self._began))
            return Rates(
                sum(item[1] for item in self._in) / span,
                sum(item[2] for item in self._in) / span,
                sum(item[1] for item in self._out) / span,
                sum(item[2] for item in self._out) / span,
            )

    def _add(self, items: deque[tuple[float, float, int]], frames: float, nbytes: int) -> None:
        now = self._clock()
        if items and now - items[-1][0] < BUCKET_S:
            moment, earlier_frames, earlier_nbytes = items.pop()
            items.append((moment, earlier_frames + frames, earlier_nbytes + nbytes))
        else:
            items.append((now, frames, nbytes))
        self._forget(now)

    def _forget(self, now: float) -> None:
        for items in (self._in, self._out):
            while items and items[0][0] < now - WINDOW_S:
                items.popleft()
