"""Segments of a growth, each with a rate and a count.

Marks of the user, rotation changes, another spot, and ends of growth found in the trace begin a segment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from atomstream.analysis.growth import FoundKind, FoundSegment, GrowthTracker
from atomstream.analysis.layer_count import UNSEEN_ERROR
from atomstream.analysis.oscillation import TOO_SHORT
from atomstream.analysis.trace import IntensityTrace
from atomstream.analysis.varpro import downsampled
from atomstream.results import F64, Measurement, Segment, measured, undetermined


def summarise_segment(number: int, label: str, end_s: float, growth: GrowthTracker) -> Segment:
    """Summarise the current segment of a growth tracker, up to ``end_s``."""
    best = growth.best
    recovery = undetermined("the segment oscillates: there was growth", "s")
    if best is None:
        recovery = recovery_time(*growth.trace.since(growth.segment_start_s))
    return Segment(
        number=number,
        start_s=growth.segment_start_s,
        end_s=end_s,
        label=label,
        rate=best.rate if best else growth.latest.rate,
        cycles=best.cycles if best else growth.latest.cycles,
        counted=growth.segment_counted(end_s),
        recovery=recovery,
    )


def recovery_time(t: F64, y: F64) -> Measurement:
    """Return the time constant T in s of y = a + b e^(-t/T) for samples t, y (N,).

    T is searched on a grid; a and b are linear and eliminated. Undetermined if the model explains less than 80 %
    of the variance.
    """
    if len(t) < 20:
        return undetermined(TOO_SHORT, "s")
    t, y = downsampled(t, y, 200)
    span = float(t[-1] - t[0])
    total = float(((y - y.mean()) ** 2).sum())
    if total <= 0:
        return undetermined("the intensity is constant", "s")
    times = np.geomspace(span / 50.0, span, 60)
    costs = np.array([_residual_sum(t, y, tau) for tau in times])
    best = int(np.argmin(costs))
    if 1.0 - costs[best] / total < 0.8 or best == len(times) - 1:
        return undetermined("the intensity does not relax like an exponential", "s")
    near = costs < costs[best] * (1.0 + 4.0 / len(t))
    sigma = 0.5 * float(np.ptp(times[near])) + 0.5 * (times[1] / times[0] - 1.0) * float(times[best])
    return measured(float(times[best]), sigma, "s")


def _residual_sum(t: F64, y: F64, tau: float) -> float:
    decay = np.exp(-(t - t[0]) / tau)
    decay = decay - decay.mean()
    centred = y - y.mean()
    slope = float(decay @ centred) / max(float(decay @ decay), 1e-300)
    return float(((centred - slope * decay) ** 2).sum())


def _share_of(counted: Measurement, share: float) -> Measurement:
    """Return ``share`` (0 to 1) of a count."""
    if counted.value is None:
        return counted
    sigma = math.hypot(share * (counted.sigma or 0.0), UNSEEN_ERROR * min(share, 1.0 - share) * counted.value)
    note = "; ".join(
        part for part in (counted.note, "divided in proportion to the time, at a late mark") if part
    )
    return measured(share * counted.value, sigma, counted.unit, note)


FOUND_LABELS: dict[FoundKind, str] = {
    "growth_stopped": "growth stopped",
    "growth_began": "growth began again",
    "rate_changed": "the rate changed",
}
"""Labels of segments that were found without a mark."""


@dataclass(slots=True)
class SegmentLog:
    """Finished segments, and the label of the mark that began the current one."""

    finished: list[Segment]
    label: str = "start"

    def cut(self, time_s: float, label: str, growth: GrowthTracker) -> None:
        """End the current segment at ``time_s`` and begin the next one.

        Segments whose end was found in the trace after ``time_s`` end there too, or are removed.
        """
        kept = [segment for segment in self.finished if segment.start_s < time_s]
        self.finished = [replace(segment, end_s=min(segment.end_s, time_s)) for segment in kept]
        if math.isfinite(time_s) and time_s - growth.segment_start_s > 0:
            self.finished.append(summarise_segment(len(self.finished), self.label, time_s, growth))
        self.label = label
        growth.start_segment(time_s)

    def divide(self, time_s: float, label: str) -> None:
        """Divide the finished segment in which ``time_s`` (s) lies, for a mark that came after a later one.

        How much grew before and after the mark is not known any more: the count is divided in proportion to the time,
        with an uncertainty for growth that rested in one of the parts.
        """
        for at, segment in enumerate(self.finished):
            if segment.start_s < time_s < segment.end_s:
                share = (time_s - segment.start_s) / (segment.end_s - segment.start_s)
                first = replace(segment, end_s=time_s, counted=_share_of(segment.counted, share))
                why = "the mark at its start came late, after the segment had ended"
                second = replace(
                    segment,
                    start_s=time_s,
                    label=label,
                    counted=_share_of(segment.counted, 1.0 - share),
                    recovery=undetermined(why, segment.recovery.unit),
                )
                parts = [*self.finished[:at], first, second, *self.finished[at + 1 :]]
                self.finished = [replace(part, number=number) for number, part in enumerate(parts)]
                return

    def add(self, segment: FoundSegment, trace: IntensityTrace) -> None:
        """Add a segment whose end was found in the trace, and label the next one."""
        label, self.label = self.label, FOUND_LABELS[segment.next_kind]
        if not segment.end_s > segment.start_s:
            return
        recovery = undetermined("the segment oscillates: there was growth", "s")
        if not segment.rate.determined:
            t, y = trace.since(segment.start_s)
            recovery = recovery_time(t[t <= segment.end_s], y[t <= segment.end_s])
        number = len(self.finished)
        self.finished.append(
            Segment(
                number,
                segment.start_s,
                segment.end_s,
                label,
                segment.rate,
                segment.cycles,
                segment.counted,
                recovery,
            )
        )

    def segments(self, now_s: float, growth: GrowthTracker) -> tuple[Segment, ...]:
        """Return the finished segments and the current one up to ``now_s``."""
        return (*self.finished, summarise_segment(len(self.finished), self.label, now_s, growth))
