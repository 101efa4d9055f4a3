"""Gaps between the single frames of ``push_frame``: by the camera's counter, else by the capture times.

A gap is counted, and logged once. It ends a chunk early only where the times of the frames after it would be wrong
otherwise: the counter or the time leaves out a whole chunk, or the counter starts again, and the server does not get
the time of each frame. Even then at most every second chunk is a short one. Drivers have counters that stand still,
and users state wrong frame rates: a chunk per frame would be the result, 240 times as many files and requests.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np

from atomstream.counted import counted
from atomstream.frame_counter import FrameCounter
from atomstream.records import StreamSpec
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.frames")

GAP_PERIODS: Final = 1.5
"""If two frames are more than this many usual intervals apart, at least one frame is missing between them."""

INTERVALS_SEEN: Final = 9
"""Number of last intervals whose median is the usual interval."""

INTERVALS_NEEDED: Final = 3
"""Number of intervals that must be known before a gap is counted. Then the earlier intervals are examined too."""

RATE_INTERVALS: Final = 60
"""Number of intervals after which the measured frame rate is compared with the stated one."""

RATE_FACTOR: Final = 1.5
"""Frame rates that differ by more than this factor are logged."""


class FrameGaps:
    """Counts the gaps of one stream. Not thread-safe: the batcher calls it with its lock held.

    ``count`` is the number of gaps so far.
    """

    def __init__(self, spec: StreamSpec) -> None:
        self.count = 0
        self._spec = spec
        self._period_ms = 1000.0 / spec.fps
        self._counter = FrameCounter()
        self._last_ms: float | None = None
        self._intervals: deque[float] = deque(maxlen=INTERVALS_SEEN)
        self._intervals_seen = 0
        self._frames_since_end = spec.chunk_size
        self._logged: set[str] = set()

    def ends_chunk(self, frame_id: int | None, capture_ms: float | None) -> bool:
        """Take the next frame (each None: not known); return True if it should begin a new chunk."""
        self._frames_since_end += 1
        missing = self._counter.add(-1 if frame_id is None else frame_id, self._spec.fps)
        by_counter = self._counter.since == 0 and not self._counter.restarted
        late_ms, backwards = self._by_time(capture_ms, count=not by_counter)
        if missing:
            self._found(
                f"{counted(missing, 'frame is', 'frames are')} missing before frame {frame_id} of the camera"
            )
        self._compare_rates()
        ends = missing >= self._spec.chunk_size or self._counter.restarted or backwards
        if not by_counter:
            ends = ends or late_ms >= self._spec.chunk_size * self._period_ms
        if (
            self._spec.announced and capture_ms is not None
        ) or self._frames_since_end <= self._spec.chunk_size:
            return False
        if ends:
            self._frames_since_end = 0
        return ends

    def _by_time(self, capture_ms: float | None, count: bool) -> tuple[float, bool]:
        """Return how many ms the frame is later than usual after the last one, and whether time ran backwards."""
        last, self._last_ms = self._last_ms, capture_ms
        if last is None or capture_ms is None:
            return 0.0, False
        interval = capture_ms - last
        if interval < 0.0:
            return 0.0, True
        self._intervals.append(interval)
        self._intervals_seen += 1
        if self._intervals_seen < INTERVALS_NEEDED:
            return 0.0, False
        first = self._intervals_seen == INTERVALS_NEEDED
        if interval <= GAP_PERIODS * self._period_ms and not first:  # most frames: no median is needed
            return 0.0, False
        usual = max(self._period_ms, float(np.median(self._intervals)))
        late = [value - usual for value in (self._intervals if first else (interval,))]
        for one in late:
            if count and one > (GAP_PERIODS - 1.0) * usual:
                self._found(f"no frame was taken for {(one + usual) / 1000:.3g} s, by the capture times")
        return max(late), False

    def _found(self, what: str) -> None:
        self.count += 1
        self._log_once(
            "gap", "%s. The frames around the gap are kept; stats() counts further gaps as frame_gaps.", what
        )

    def _compare_rates(self) -> None:
        if self._intervals_seen != RATE_INTERVALS:
            return
        usual = float(np.median(self._intervals))
        if usual > RATE_FACTOR * self._period_ms or 0.0 < usual < self._period_ms / RATE_FACTOR:
            self._log_once(
                "rate",
                "by their capture times, %.4g frames come in a second, not fps=%g. No frame is lost. "
                "Initialize the stream with the rate of the camera: the analysis then begins with the right one.",
                1000.0 / usual,
                self._spec.fps,
            )

    def _log_once(self, kind: str, text: str, *values: object) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning(f"Stream %s: {text}", self._spec.data_id, *values)
