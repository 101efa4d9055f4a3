"""Frames that are missing between two capture times, for cameras without a frame counter.

Stamps of a host arrive late and then catch up, so one long step is not a gap yet: the frames after it must stay late.
Where stamps are even, as those of a camera's own clock, single missing frames are found too.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from atomstream.analysis.repeated_events import RepeatedEvents
from atomstream.counted import counted
from atomstream.results import F64, Event

LEAST_GAP_S = 0.25
"""Shortest gap in s that is found in uneven stamps; there, single missing frames look like jitter."""

LEAST_GAP_PERIODS = 3.0
"""Shortest gap in frame periods; a gap must exceed both limits."""

LOOK_AHEAD_S = 0.5
LOOK_AHEAD_FRAMES = 5
"""Time in s, and number of frames, for which the frames after a long step must stay late before it counts as a gap."""

STEPS_KEPT = 33
"""Number of last steps whose median is the frame period."""

STEPS_NEEDED = 8
"""Fewest steps for this median; with fewer, the frame period is that of the stated frame rate."""

MAX_UNEVEN = 0.05
"""Largest median distance of the steps of even stamps from whole frame periods, in frame periods."""

MAX_OFF = 0.2
"""Largest distance of one step from a whole number of frame periods, in frame periods."""

FOLLOWING = 8
FEWEST_FOLLOWING = 3
"""Number of steps after a small gap that are compared with it, and the fewest at the end of a stream."""

MAX_CAUGHT_UP = 0.3
"""Largest time, in frame periods, by which the steps after a small gap are too short. With more, its frame was late."""


@dataclass(slots=True)
class TimeGaps:
    """Finds gaps in capture times, frame by frame.

    ``last_s`` is the time of the last frame, NaN before the first; ``steps`` are the last usual steps (s). After a long
    step ``before_s`` is the time of the frame before it, ``after`` the number of frames after it and ``late_s`` the
    least time by which these are late. ``recent`` are the last steps with the times before them (s), in which small
    gaps are not yet decided; ``small`` reports those that are, together.
    """

    last_s: float = math.nan
    steps: list[float] = field(default_factory=list)
    before_s: float = math.nan
    began_s: float = math.nan
    after: int = 0
    late_s: float = math.inf
    recent: list[tuple[float, float]] = field(default_factory=list)
    small: RepeatedEvents = field(default_factory=RepeatedEvents)

    def period(self, fps: float) -> float:
        """Return the frame period in s; ``fps`` is the stated rate."""
        return statistics.median(self.steps) if len(self.steps) >= STEPS_NEEDED else 1.0 / fps

    def add(self, times: F64, fps: float) -> list[Event]:
        """Add the times (N,) of frames in s; return the gaps that are certain now."""
        events: list[Event] = []
        for now_s in times.tolist():
            period, step = self.period(fps), now_s - self.last_s
            events += self._add(now_s, period)
            if math.isnan(step):
                continue
            self.recent.append((now_s - step, step))
            if len(self.recent) > FOLLOWING:
                events += self._report_small(now_s, period)
        return events + (self.small.due(self.last_s) if len(times) else [])

    def _add(self, now_s: float, period: float) -> list[Event]:
        step, self.last_s = now_s - self.last_s, now_s
        if self.after:
            self.after += 1
            self.late_s = min(self.late_s, now_s - self.before_s - self.after * period)
            if now_s - self.began_s < LOOK_AHEAD_S or self.after < LOOK_AHEAD_FRAMES:
                return []
            return self._decide(period)
        if step > max(LEAST_GAP_S, LEAST_GAP_PERIODS * period):
            self.before_s, self.began_s, self.after, self.late_s = now_s - step, now_s, 1, step - period
        elif step > 0.0:
            self.steps = [*self.steps[1 - STEPS_KEPT :], step]
        return []

    def _decide(self, period: float) -> list[Event]:
        count, at_s = round(self.late_s / period), self.before_s + period
        self.after = 0
        if self.late_s <= 0.5 * LEAST_GAP_S or count < 1:
            return []
        return [_missing(count, at_s)]

    def _report_small(self, now_s: float, period: float) -> list[Event]:
        """Decide about the oldest of the recent steps; return the events to report at ``now_s`` (s)."""
        (before_s, step), *following = self.recent
        self.recent = self.recent[1:]
        count = round(step / period) - 1
        is_large = step > max(LEAST_GAP_S, LEAST_GAP_PERIODS * period)
        if count < 1 or is_large or _off(step, period) > MAX_OFF or not self._are_even(period):
            return []
        usual = sum(abs(other / period - 1.0) < MAX_OFF for _, other in following)
        caught_up = sum(max(0.0, 1.0 - other / period) for _, other in following)
        if 2 * usual < len(following) or caught_up > MAX_CAUGHT_UP:
            return []  # the camera has become slower, or the frame was stamped late
        return self.small.add(_missing(count, before_s + period), now_s)

    def _are_even(self, period: float) -> bool:
        """Return True if the steps are whole numbers of frame periods."""
        if len(self.steps) < STEPS_NEEDED:
            return False
        return statistics.median(_off(step, period) for step in self.steps) < MAX_UNEVEN

    def skip(self) -> None:
        """Do not compare the next time with the last one: the gap between them is reported already."""
        self.last_s, self.after = math.nan, 0

    def report(self, fps: float) -> list[Event]:
        """Return the gaps that wait, if there are any: the stream ends."""
        period = self.period(fps)
        events = self._decide(period) if self.after else []
        while len(self.recent) > FEWEST_FOLLOWING:
            events += self._report_small(self.last_s, period)
        return events + self.small.report()


def _off(step: float, period: float) -> float:
    """Return the distance of a step from a whole number of periods, in periods."""
    return abs(step / period - round(step / period))


def _missing(count: int, at_s: float) -> Event:
    words = counted(count, "frame is missing by the times", "frames are missing by the times")
    return Event(at_s, "gap", words, float(count))
