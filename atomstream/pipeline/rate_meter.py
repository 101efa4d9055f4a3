"""Numbers of a pipeline: totals, the rates at which frames come in and are sent, and when memory will be full.

The outgoing rate counts bytes as they are sent, not confirmed chunks. On a slow connection several large chunks share
the bandwidth, and none of them would be confirmed in the first half minute. No I/O; the clock is injected.
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
"""Rates are means over this many seconds."""

BUCKET_S: Final = 0.25
"""Events within this time share one entry, in seconds."""

NOTABLE_BACKLOG: Final = 4
"""A smaller number of queued chunks is normal."""

NOTABLE_SHARE: Final = 0.1
"""A difference of the rates below this share of the incoming rate is noise from the ends of the window."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Means over the last ten seconds, per second. Bytes are encoded bytes."""

    frames_in_s: float
    bytes_in_s: float
    frames_out_s: float
    bytes_out_s: float

    @property
    def backlog_grows(self) -> bool:
        """True if clearly more bytes come in than are sent."""
        return self.bytes_in_s - self.bytes_out_s > NOTABLE_SHARE * self.bytes_in_s > 0

    def full_in_s(self, room: int) -> float | None:
        """Seconds until ``room`` more encoded bytes have accumulated; None if the backlog does not grow."""
        return room / (self.bytes_in_s - self.bytes_out_s) if self.backlog_grows else None


@dataclass(frozen=True, slots=True)
class PipelineStatistics:
    """Totals since the start, rates of the last ten seconds, and what is held now. Sizes are bytes."""

    frames_encoded: int
    frames_stored: int
    raw_bytes_encoded: int
    bytes_encoded: int
    bytes_stored: int
    rates: Rates
    memory_used: int
    memory_limit: int
    pushes_waiting: int
    encode_backlog: int
    uploads_in_flight: int
    upload_backlog: int

    @property
    def memory_free(self) -> int:
        """Bytes that pushes may still take; 0 while a single chunk above the limit is in memory."""
        return max(0, self.memory_limit - self.memory_used)


class ThroughputMeter:
    """Counts encoded, sent and stored frames. Any thread may call its methods. ``clock()`` is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_at = clock()
        self._lock = threading.Lock()
        self._in: deque[tuple[float, float, int]] = deque()
        self._out: deque[tuple[float, float, int]] = deque()
        self.frames_encoded = self.frames_stored = 0
        self.raw_bytes_encoded = self.bytes_encoded = self.bytes_stored = 0

    def encoded(self, shard: Shard) -> None:
        """Count a new shard as incoming."""
        with self._lock:
            self.frames_encoded += shard.info.n_frames
            self.raw_bytes_encoded += shard.info.raw_nbytes
            self.bytes_encoded += shard.info.nbytes
            self._add(self._in, shard.info.n_frames, shard.info.nbytes)

    def sent(self, upload: Upload, nbytes: int) -> None:
        """Count bytes as outgoing. ``nbytes`` is negative if they will be sent again."""
        with self._lock:
            self._add(self._out, upload.info.n_frames * nbytes / upload.info.nbytes, nbytes)

    def stored(self, upload: Upload) -> None:
        """Count a shard that the server has confirmed."""
        with self._lock:
            self.frames_stored += upload.info.n_frames
            self.bytes_stored += upload.info.nbytes

    def rates(self) -> Rates:
        """The present rates."""
        with self._lock:
            now = self._clock()
            self._remove_old(now)
            span = max(1.0, min(WINDOW_S, now - self._started_at))
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
        self._remove_old(now)

    def _remove_old(self, now: float) -> None:
        for items in (self._in, self._out):
            while items and items[0][0] < now - WINDOW_S:
                items.popleft()
