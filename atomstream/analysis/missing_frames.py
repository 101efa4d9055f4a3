"""Frames that the camera dropped, counted by its frame counter.

A camera that drops single frames would give an event for each; small gaps are collected and reported together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atomstream.frame_counter import counter_of_last, missing_before
from atomstream.results import F64, Event, Int

REPORT_S = 10.0
"""Interval, in s, in which small gaps are reported together."""

LARGE_GAP_S = 0.25
"""A longer gap, in s, is reported at once."""


@dataclass(slots=True)
class MissingFrames:
    """Counts steps of the frame counter. ``last_id`` is the counter of the last frame, -1: not known.

    A large gap, and the first small one, are reported at once. The next small gaps wait until ``next_report_s``:
    ``count`` frames in ``places`` gaps since ``since_s`` (s). The reports depend on the times of the frames only, not
    on how they are cut into calls.
    """

    last_id: int = -1
    count: int = 0
    places: int = 0
    since_s: float = math.nan
    next_report_s: float = -math.inf

    def add(self, times: F64, ids: Int, fps: float) -> list[Event]:
        """Add the counters (N,) of frames at ``times`` (N,) in s (-1: not known); return the gaps to report now."""
        missing = missing_before(ids, fps, self.last_id)
        self.last_id = counter_of_last(ids, self.last_id)
        events = []
        for i in np.flatnonzero(missing):
            end_s, frames = float(times[i]), int(missing[i])
            events += self._due(end_s)
            start_s = end_s - frames / fps
            if frames >= LARGE_GAP_S * fps:
                events.append(_gap(start_s, frames, 1))
            elif end_s >= self.next_report_s:
                events.append(_gap(start_s, frames, 1))
                self.next_report_s = end_s + REPORT_S
            else:
                self.since_s = start_s if self.count == 0 else self.since_s
                self.count, self.places = self.count + frames, self.places + 1
        return events + (self._due(float(times[-1])) if len(times) else [])

    def skip(self) -> None:
        """Do not compare the next counter with the last one: the gap between them is reported already."""
        self.last_id = -1

    def report(self) -> list[Event]:
        """Return the event of all gaps that wait, if there are any."""
        if self.count == 0:
            return []
        event = _gap(self.since_s, self.count, self.places)
        self.count, self.places = 0, 0
        return [event]

    def _due(self, now: float) -> list[Event]:
        """Return the event of the gaps whose waiting time has ended before ``now`` (s)."""
        if self.count == 0 or now < self.next_report_s:
            return []
        self.next_report_s += REPORT_S
        return self.report()


def _gap(since_s: float, count: int, places: int) -> Event:
    where = f" in {places} places" if places > 1 else ""
    return Event(max(0.0, since_s), "gap", f"{count} frames are missing{where}", float(count))
