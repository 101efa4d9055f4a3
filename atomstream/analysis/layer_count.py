"""Count of oscillations, usually one per layer: the integral of what grew since the user's last mark.

The count follows the fitted phase, so errors of the rate do not add up. It never falls from one report to the next, and
its uncertainty includes the doubt about the time at which growth began or stopped, about what was not seen, and, while
growth may have ended, both counts: with growth that ended and with growth that goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from atomstream.analysis.oscillation_result import Oscillation

PHASE_ERROR = 0.05
"""Uncertainty, in oscillations, of the phase at which growth begins or ends at a known time."""

ONSET_ERROR = 0.1
"""Additional uncertainty, in oscillations, where the time was found in the trace."""

MAX_EXTRAPOLATION = 1.2
"""Longest time, in periods, for which the count goes on without a new fit; never less than the interval of the fits."""

UNCOVERED_ERROR = 0.25
"""Uncertainty of the oscillations before the window of the first fit, as a share of them: a first layer can take
another time than the others."""

UNSEEN_PERIODS = 2.0
UNSEEN_ERROR = 0.5
"""Oscillations between two fits that are farther apart than this number of periods were not seen. It is assumed that
the growth went on, with an uncertainty of this share of them: it may have rested."""

SLOWED_ERROR = 0.7
"""Uncertainty, in oscillations, of what grew after a run that ended by another rate: growth that slows down until it
stops adds up to a layer or two, in less than the 1.5 oscillations that a fit needs."""

MAX_RESUME = 0.5
"""Longest time, in periods, from the end of such a run to a new one that goes on where it ended."""


@dataclass(slots=True)
class LayerCounter:
    """Counts oscillations from ``start_s`` (s) on, in one or more runs of growth.

    ``finished`` and ``finished_variance`` are those of earlier runs, which ended at ``ended_s`` (s);
    ``slowed_variance`` is that of what may have grown more slowly after the last one, until a new run goes on there.
    The present run began at ``onset_s``. ``counted`` is its count at ``phase_time_s`` (s) with the fitted ``phase``
    (cycles), ``rate`` and ``rate_sigma`` (1/s); NaN before the first fit. While it ``waits``, nothing is added after
    that time.
    ``fit_interval_s`` is the longest time from one fit to the next while there is light (s). ``doubted_s`` is the time
    (s) at which growth may have ended, NaN without a doubt.
    ``reported`` is the largest count that was reported, at ``reported_s``. ``runs`` are the earlier runs: begin and end
    in s, and what was counted.
    """

    start_s: float
    finished: float = 0.0
    finished_variance: float = 0.0
    slowed_variance: float = 0.0
    ended_s: float = -math.inf
    onset_s: float = math.nan
    counted: float = math.nan
    variance: float = 0.0
    phase: float = 0.0
    phase_time_s: float = 0.0
    rate: float = 0.0
    rate_sigma: float = 0.0
    waits: bool = False
    doubted_s: float = math.nan
    fit_interval_s: float = 1.0
    reported: float = 0.0
    reported_s: float = math.inf
    runs: list[tuple[float, float, float]] = field(default_factory=list)

    def update(self, result: Oscillation, onset_s: float) -> None:
        """Update the count with a determined fit; ``onset_s`` is when its growth began."""
        fit = result.best
        assert fit is not None
        rate, sigma = float(result.rate), result.rate.sigma or 0.0
        onset_s = max(self.start_s, self.ended_s, onset_s)
        elapsed = max(0.0, fit.t_end - onset_s)
        if self.slowed_variance and math.isnan(self.counted):
            if onset_s > self.ended_s + MAX_RESUME / rate:
                self.finished_variance += self.slowed_variance
            self.slowed_variance = 0.0
        doubt = PHASE_ERROR if onset_s <= self.start_s else math.hypot(PHASE_ERROR, ONSET_ERROR)
        if math.isnan(self.counted) or elapsed < 1.1 * result.span_s:
            # While one fit covers all of the growth, its integral is better than the count so far.
            self.onset_s, self.counted = onset_s, fit.cycles_between(onset_s, fit.t_end)
            mean_sigma = sigma / 2.0 if fit.model.drifts else sigma
            uncovered = UNCOVERED_ERROR * max(0.0, rate * (elapsed - fit.span_s))
            self.variance = doubt**2 + (mean_sigma * elapsed) ** 2 + uncovered**2
        else:
            self._extend(result)
        self.phase, self.phase_time_s, self.rate, self.rate_sigma = fit.phase, fit.t_end, rate, sigma

    def _extend(self, result: Oscillation) -> None:
        """Add the oscillations since the last fit."""
        fit = result.best
        assert fit is not None
        step_s, sigma = fit.t_end - self.phase_time_s, result.rate.sigma or 0.0
        expected = fit.cycles_between(self.phase_time_s, fit.t_end)
        phase_error = (fit.phase - self.phase - expected + 0.5) % 1.0 - 0.5
        trusted = sigma * step_s < 0.3 and abs(phase_error) < 0.4
        self.counted += expected + (phase_error if trusted else 0.0)
        if not trusted:
            self.variance += max(0.25, (sigma * step_s) ** 2)
        if expected > UNSEEN_PERIODS:
            self.variance += (UNSEEN_ERROR * expected) ** 2

    def end_run(self, time_s: float, doubt: float = ONSET_ERROR, *, changed: bool = False) -> None:
        """End the present run of growth at ``time_s``; nothing is counted until the next fit.

        ``doubt`` is the uncertainty, in oscillations, of what had grown at that time. ``changed`` is True if the
        oscillation went on at another rate.
        """
        if math.isnan(self.counted):
            return
        self.finished_variance += self._variance_at(time_s) + doubt**2
        self.slowed_variance = SLOWED_ERROR**2 if changed else 0.0
        total = self._total(time_s)
        self.runs.append((self.onset_s, time_s, total - self.finished))
        self.finished = total
        self._reset_run()
        self.phase_time_s = self.ended_s = time_s

    def _reset_run(self) -> None:
        self.counted, self.variance, self.rate, self.rate_sigma = math.nan, 0.0, 0.0, 0.0
        self.doubted_s = math.nan

    def cut(self, time_s: float) -> None:
        """End the present run at ``time_s``, the known time of a mark, which may lie in an earlier run."""
        if time_s >= self.ended_s:
            self.end_run(time_s, PHASE_ERROR)
            return
        # What was counted after that time is counted again, from the samples of the new segment.
        self._reset_run()
        self.slowed_variance = 0.0
        kept = [run for run in self.runs if run[0] < time_s]
        self.runs = [
            (begin, min(end, time_s), _share(begin, end, time_s) * count) for begin, end, count in kept
        ]
        self.finished = math.fsum(count for _, _, count in self.runs)
        self.reported, self.reported_s = self.finished, time_s
        self.phase_time_s = self.ended_s = time_s

    def since(self, time_s: float) -> LayerCounter:
        """Return a new counter with what this one has counted from ``time_s`` (s) on.

        A run in which that time lies is divided in proportion to the time, with an uncertainty for growth that rested
        in one of the parts, until a new fit covers it.
        """
        part = replace(self, start_s=max(time_s, self.start_s), runs=[], reported=0.0, reported_s=math.inf)
        for begin, end, count in self.runs:
            if end <= time_s:
                continue
            left = 1.0 - _share(begin, end, time_s) if begin < time_s else 1.0
            part.runs.append((max(begin, time_s), end, left * count))
            part.finished_variance += _unseen_variance(left, count)
        part.finished = math.fsum(count for _, _, count in part.runs)
        if not math.isnan(self.counted) and self.onset_s < time_s:
            left = 1.0 - _share(self.onset_s, self.phase_time_s, time_s)
            part.onset_s, part.counted = time_s, left * self.counted
            part.variance += _unseen_variance(left, self.counted)
        return part

    def continue_from(self, start_s: float, count: float, sigma: float) -> None:
        """Move the begin back to ``start_s`` (s), and add ``count`` +- ``sigma`` oscillations for the time up to the
        old begin."""
        self.runs.insert(0, (start_s, self.start_s, count))
        self.finished += count
        self.finished_variance += sigma**2
        self.ended_s = max(self.ended_s, self.start_s)
        self.start_s = start_s

    @property
    def has_count(self) -> bool:
        """True if anything was counted."""
        return self.finished > 0.0 or not math.isnan(self.counted)

    def report(self, now: float) -> None:
        """Note that the count at ``now`` (s) was reported: later counts are not smaller."""
        self.reported, self.reported_s = self.value(now), now

    def value(self, time_s: float) -> float:
        """Return the count at ``time_s`` (s), before or after the last fit; it is not below an earlier report."""
        earlier = self.reported if time_s >= self.reported_s else 0.0
        return max(earlier, self._total(time_s))

    def sigma(self, time_s: float) -> float:
        """Return the uncertainty of the count.

        It includes how far an earlier report was too high, and the counts with and without growth since a doubt.
        """
        value = self.value(time_s)
        off = value - self._total(time_s)
        if time_s > self.doubted_s and not math.isnan(self.counted):
            least = self._total(self.doubted_s)
            most = self._total(self.phase_time_s) + self.rate * self._reach(time_s)
            off = max(off, value - least, most - value)
        return math.sqrt(self.finished_variance + self.slowed_variance + self._variance_at(time_s) + off**2)

    def _total(self, time_s: float) -> float:
        if math.isnan(self.counted):
            return self.finished
        return self.finished + max(0.0, self.counted + self.rate * self._beyond_fit(time_s))

    def _variance_at(self, time_s: float) -> float:
        return self.variance + (self.rate_sigma * self._beyond_fit(time_s)) ** 2

    def _beyond_fit(self, time_s: float) -> float:
        """Return the time for which is counted from the last fit to ``time_s`` in s; negative if it is earlier."""
        return min(time_s - self.phase_time_s, 0.0) if self.waits else self._reach(time_s)

    def _reach(self, time_s: float) -> float:
        """Return the time from the last fit to ``time_s`` in s, with an upper limit for the extrapolation."""
        longest = max(MAX_EXTRAPOLATION / self.rate, self.fit_interval_s) if self.rate > 0.0 else 0.0
        return min(time_s - self.phase_time_s, longest)


def _unseen_variance(share: float, count: float) -> float:
    """Return the variance of a ``share`` of ``count`` oscillations: growth may have paused in one of the parts."""
    return (UNSEEN_ERROR * min(share, 1.0 - share) * count) ** 2


def _share(begin_s: float, end_s: float, time_s: float) -> float:
    """Return which share of a run from ``begin_s`` to ``end_s`` had grown at ``time_s``, at a steady rate."""
    return 1.0 if time_s >= end_s else (time_s - begin_s) / (end_s - begin_s)
