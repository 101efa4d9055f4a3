"""Events that may repeat often, such as single missing frames or short drop-outs of the light, reported together.

The first one is reported at once, the next ones together every ten seconds. What is reported depends on the times of
the events only, not on how the frames are cut into calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from atomstream.results import Event

REPORT_S = 10.0
"""Interval, in s, in which repeated events are reported together."""


@dataclass(slots=True)
class RepeatedEvents:
    """Events of one kind, ``gap`` or ``dropout``; those in ``waiting`` are reported at ``next_report_s`` (s)."""

    waiting: list[Event] = field(default_factory=list)
    next_report_s: float = -math.inf

    def add(self, event: Event, now: float) -> list[Event]:
        """Add an event that was noticed at ``now`` (s), not before the last one; return the events to report now."""
        events = self.due(now)
        if now < self.next_report_s:
            self.waiting.append(event)
            return events
        self.next_report_s = now + REPORT_S
        return [*events, event]

    def due(self, now: float) -> list[Event]:
        """Return one event for all waiting events if their report is due at ``now`` (s)."""
        if not self.waiting or now < self.next_report_s:
            return []
        self.next_report_s += REPORT_S
        return self.report()

    def report(self) -> list[Event]:
        """Return the event of those that wait, if there are any: the stream ends."""
        events, self.waiting = self.waiting, []
        return [merged(events)] if events else []


def merged(events: list[Event]) -> Event:
    """Return one event for events of the same kind, ``gap`` or ``dropout``, in their order.

    Its value is the number of all missing frames, or the factor of the largest change of the light.
    """
    first, count = events[0], len(events)
    if count == 1:
        return first
    values = [event.value or 0.0 for event in events]
    if first.kind == "gap":
        frames = sum(values)
        return Event(first.time_s, "gap", f"{frames:.0f} frames are missing in {count} places", frames)
    largest = max(values, key=lambda factor: abs(math.log(max(factor, 1e-9))))
    span_s = events[-1].at_s - first.at_s
    text = f"the light changed {count} times in {span_s:.2g} s, at most by a factor of {largest:.3g}"
    return Event(first.time_s, first.kind, text, largest)
