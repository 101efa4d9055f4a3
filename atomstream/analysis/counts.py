"""The counts of oscillations of one stream: since the last segment mark, since the user's last mark, and since the
start.

Each is a :class:`~atomstream.analysis.layer_count.LayerCounter` that is updated with the same fits. They differ in
where they begin again. A new trace (another spot, another box) or a pause ends a run of growth, but not the counts
since the last mark and in all: these are the sum over the runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from atomstream.analysis.layer_count import LayerCounter
from atomstream.analysis.oscillation_result import Oscillation

SAME_TIME_S = 1e-6
"""Two times that differ by less are the same time, in s."""


@dataclass(slots=True)
class Counts:
    """``segment`` begins at the last segment mark or new trace, ``mark`` at the user's last mark, ``total`` never."""

    segment: LayerCounter = field(default_factory=lambda: LayerCounter(0.0))
    mark: LayerCounter = field(default_factory=lambda: LayerCounter(0.0))
    total: LayerCounter = field(default_factory=lambda: LayerCounter(0.0))

    @classmethod
    def from_start(cls, time_s: float) -> Counts:
        """Return counts that all begin at ``time_s`` (s), the time of the first picture with a pattern."""
        return cls(LayerCounter(time_s), LayerCounter(time_s), LayerCounter(time_s))

    def _all(self) -> tuple[LayerCounter, ...]:
        return self.segment, self.mark, self.total

    def update(self, result: Oscillation, onset_s: float) -> None:
        """Update with a determined fit; ``onset_s`` is when its growth began."""
        for counter in self._all():
            counter.update(result, onset_s)

    def end_run(self, time_s: float, *, changed: bool = False) -> None:
        """End the present run of growth at ``time_s``, which was found in the trace.

        ``changed`` is True if the oscillation went on at another rate.
        """
        for counter in self._all():
            counter.end_run(time_s, changed=changed)

    def set_fit_interval(self, fit_interval_s: float) -> None:
        """Set the longest time from one fit to the next (s)."""
        for counter in self._all():
            counter.fit_interval_s = fit_interval_s

    def report(self, now: float, *, waits: bool, doubted_s: float) -> None:
        """Note that the counts at ``now`` (s) are reported: later ones are not smaller.

        While a count ``waits``, nothing is added after its last fit. ``doubted_s`` is the time (s) at which
        growth may have ended, NaN without a doubt.
        """
        for counter in self._all():
            counter.waits, counter.doubted_s = waits, doubted_s
            counter.report(now)

    def begin_segment(self, time_s: float) -> None:
        """Begin a segment at ``time_s`` (s), at a mark or with another trace; the other counts go on."""
        for counter in (self.mark, self.total):
            counter.cut(time_s)
        self.segment = LayerCounter(time_s)

    def begin_mark(self, time_s: float) -> None:
        """Begin the count since the user's last mark at ``time_s`` (s). A mark before the last one changes nothing."""
        if time_s >= self.mark.start_s:
            # What grew after a mark that comes late may be more than the next fit covers.
            is_late = time_s < self.total.phase_time_s and self.total.has_count
            self.mark = self.total.since(time_s) if is_late else LayerCounter(time_s)

    def remove_mark(self, time_s: float, earlier_s: float | None) -> None:
        """Remove the mark at ``time_s`` (s): if it is the last one, count since ``earlier_s``, None: from the start."""
        if abs(self.mark.start_s - time_s) < SAME_TIME_S:
            start_s = self.total.start_s if earlier_s is None else max(earlier_s, self.total.start_s)
            self.mark = self.total.since(start_s)
