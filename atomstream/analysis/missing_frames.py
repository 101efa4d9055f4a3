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

    ``count`` frames in ``places`` gaps since ``since_s`` (s) are not reported yet; small gaps wait until
    ``next_report_s``.
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
        gaps = np.flatnonzero(missing)
        if len(gaps) == 0:
            return []
        if self.count == 0:
            self.since_s = float(times[gaps[0]]) - float(missing[gaps[0]]) / fps
        self.count += int(missing[gaps].sum())
        self.places += len(gaps)
        now = float(times[-1])
        if now < self.next_report_s and missing[gaps].max() < LARGE_GAP_S * fps:
            return []
        return self.report(now)

    def skip(self) -> None:
        """Do not compare the next counter with the last one: the gap between them is reported already."""
        self.last_id = -1

    def report(self, now: float) -> list[Event]:
        """Return the event of all gaps that wait at time ``now`` (s), if there are any."""
        if self.count == 0:
            return []
        where = f" in {self.places} places" if self.places > 1 else ""
        event = Event(
            max(0.0, self.since_s), "gap", f"{self.count} frames are missing{where}", float(self.count)
        )
        self.count, self.places, self.next_report_s = 0, 0, now + REPORT_S
        return [event]
