"""Frames that the camera dropped, counted by its frame counter.

A camera that drops single frames would give an event for each; small gaps are reported together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atomstream.analysis.repeated_events import RepeatedEvents
from atomstream.counted import counted
from atomstream.frame_counter import FrameCounter
from atomstream.results import F64, Event, Int

LARGE_GAP_S = 0.25
"""A longer gap, in s, is reported at once."""


@dataclass(slots=True)
class MissingFrames:
    """Counts the frames that ``counter`` shows as missing.

    Large gaps are reported at once, ``small`` ones together. ``held_s`` is the time, in s, of the first frame before
    which frames may be missing that are not counted yet, NaN if there is none.
    """

    counter: FrameCounter = field(default_factory=FrameCounter)
    held_s: float = math.nan
    small: RepeatedEvents = field(default_factory=RepeatedEvents)

    def add(self, times: F64, ids: Int, fps: float) -> list[Event]:
        """Add the counters (N,) of frames at ``times`` (N,) in s (-1: not known); return the gaps to report now."""
        events: list[Event] = []
        for now_s, frame_id in zip(times.tolist(), ids.tolist(), strict=True):
            count = self.counter.add(frame_id, fps)
            if count:
                events += self._gap(count, now_s, fps)
            if not self.counter.held:
                self.held_s = math.nan
            elif math.isnan(self.held_s):
                self.held_s = now_s
        return events + (self.small.due(float(times[-1])) if len(times) else [])

    def skip(self) -> None:
        """Do not compare the next counter with the last one: the gap between them is reported already."""
        self.counter.skip()

    def report(self, fps: float) -> list[Event]:
        """Return the events of all gaps that wait, if there are any: the stream ends."""
        count, now_s = self.counter.flush(), self.held_s
        return (self._gap(count, now_s, fps) if count else []) + self.small.report()

    def _gap(self, count: int, now_s: float, fps: float) -> list[Event]:
        end_s = now_s if math.isnan(self.held_s) else self.held_s
        words = counted(count, "frame is missing", "frames are missing")
        gap = Event(max(0.0, end_s - count / fps), "gap", words, float(count))
        if count >= LARGE_GAP_S * fps:
            return [*self.small.due(now_s), gap]
        return self.small.add(gap, now_s)
