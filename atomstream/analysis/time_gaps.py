"""Frames that are missing between two capture times, for cameras without a frame counter.

Stamps of a host arrive late and then catch up, so one long step is no gap yet: the frames after it must stay late.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from atomstream.results import F64, Event

LEAST_GAP_S = 0.25
"""Shortest gap in s that is found by times alone; single missing frames look like jitter of the stamps."""

LEAST_GAP_PERIODS = 3.0
"""Shortest gap in frame periods; a gap must exceed both limits."""

LOOK_AHEAD_S = 0.5
LOOK_AHEAD_FRAMES = 5
"""Time in s, and number of frames, for which the frames after a long step must stay late before it counts as a gap."""

STEPS_KEPT = 33
"""Number of last steps whose median is the frame period."""

STEPS_NEEDED = 8
"""Fewest steps for this median; with fewer, the frame period is that of the stated frame rate."""


@dataclass(slots=True)
class TimeGaps:
    """Finds gaps in capture times, frame by frame.

    ``last_s`` is the time of the last frame, NaN before the first; ``steps`` are the last usual steps (s). After a long
    step ``before_s`` is the time of the frame before it, ``after`` the number of frames after it and ``late_s`` the
    least time by which these are late.
    """

    last_s: float = math.nan
    steps: list[float] = field(default_factory=list)
    before_s: float = math.nan
    began_s: float = math.nan
    after: int = 0
    late_s: float = math.inf

    def period(self, fps: float) -> float:
        """Return the frame period in s; ``fps`` is the stated rate."""
        return statistics.median(self.steps) if len(self.steps) >= STEPS_NEEDED else 1.0 / fps

    def add(self, times: F64, fps: float) -> list[Event]:
        """Add the times (N,) of frames in s; return the gaps that are certain now."""
        events: list[Event] = []
        for now_s in times.tolist():
            events += self._add(now_s, self.period(fps))
        return events

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
        words = "1 frame is" if count == 1 else f"{count} frames are"
        return [Event(at_s, "gap", f"{words} missing by the times", float(count))]

    def skip(self) -> None:
        """Do not compare the next time with the last one: the gap between them is reported already."""
        self.last_s, self.after = math.nan, 0

    def report(self, fps: float) -> list[Event]:
        """Return the gap that waits, if there is one: the stream ends."""
        return self._decide(self.period(fps)) if self.after else []
