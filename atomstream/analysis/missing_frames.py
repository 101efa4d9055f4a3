"""Frames that the camera dropped, counted by its frame counter.

A camera that drops single frames would give an event for each; small gaps are reported together.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.repeated_events import RepeatedEvents
from atomstream.frame_counter import counter_of_last, missing_before
from atomstream.results import F64, Event, Int

LARGE_GAP_S = 0.25
"""A longer gap, in s, is reported at once."""


@dataclass(slots=True)
class MissingFrames:
    """Counts steps of the frame counter. ``last_id`` is the counter of the last frame, -1: not known.

    Large gaps are reported at once, ``small`` ones together.
    """

    last_id: int = -1
    small: RepeatedEvents = field(default_factory=RepeatedEvents)

    def add(self, times: F64, ids: Int, fps: float) -> list[Event]:
        """Add the counters (N,) of frames at ``times`` (N,) in s (-1: not known); return the gaps to report now."""
        missing = missing_before(ids, fps, self.last_id)
        self.last_id = counter_of_last(ids, self.last_id)
        events = []
        for i in np.flatnonzero(missing):
            end_s, count = float(times[i]), int(missing[i])
            words = "1 frame is missing" if count == 1 else f"{count} frames are missing"
            gap = Event(max(0.0, end_s - count / fps), "gap", words, float(count))
            if count >= LARGE_GAP_S * fps:
                events += [*self.small.due(end_s), gap]
            else:
                events += self.small.add(gap, end_s)
        return events + (self.small.due(float(times[-1])) if len(times) else [])

    def skip(self) -> None:
        """Do not compare the next counter with the last one: the gap between them is reported already."""
        self.last_id = -1

    def report(self) -> list[Event]:
        """Return the event of all gaps that wait, if there are any: the stream ends."""
        return self.small.report()
