"""Count of oscillations, usually one per layer: the integral of what grew since the user's last mark.

The count follows the fitted phase, so errors of the rate do not add up. It never falls, and its uncertainty includes
the doubt about the time at which growth began or stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomstream.analysis.oscillation_result import Oscillation

PHASE_ERROR = 0.05
"""Uncertainty, in oscillations, of the phase at which growth begins or ends at a known time."""

ONSET_ERROR = 0.1
"""Additional uncertainty, in oscillations, where the time was found in the trace."""


@dataclass(slots=True)
class LayerCounter:
    """Counts oscillations from ``start_s`` (s) on, in one or more runs of growth.

    ``finished`` and ``finished_variance`` are those of earlier runs, which ended at ``ended_s`` (s). The present run
    began at ``onset_s``. ``counted`` is its count at ``phase_time_s`` (s) with the fitted ``phase`` (cycles) and
    ``rate`` (1/s); NaN before the first fit. ``reported`` is the largest count that was reported.
    """

    start_s: float
    finished: float = 0.0
    finished_variance: float = 0.0
    ended_s: float = -math.inf
    onset_s: float = math.nan
    counted: float = math.nan
    variance: float = 0.0
    phase: float = 0.0
    phase_time_s: float = 0.0
    rate: float = 0.0
    reported: float = 0.0

    def update(self, result: Oscillation, onset_s: float) -> None:
        """Update the count with a determined fit; ``onset_s`` is when its growth began."""
        fit = result.best
        assert fit is not None
        rate, sigma = float(result.rate), result.rate.sigma or 0.0
        onset_s = max(self.start_s, self.ended_s, onset_s)
        elapsed = max(0.0, fit.t_end - onset_s)
        doubt = PHASE_ERROR if onset_s <= self.start_s else math.hypot(PHASE_ERROR, ONSET_ERROR)
        if math.isnan(self.counted) or elapsed < 1.1 * result.span_s:
            # While one fit covers all of the growth, its integral is better than the count so far.
            self.onset_s, self.counted = onset_s, fit.cycles_between(onset_s, fit.t_end)
            mean_sigma = sigma / 2.0 if fit.model.drifts else sigma
            self.variance = doubt**2 + (mean_sigma * elapsed) ** 2
        else:
            step_s = fit.t_end - self.phase_time_s
            expected = fit.cycles_between(self.phase_time_s, fit.t_end)
            phase_error = (fit.phase - self.phase - expected + 0.5) % 1.0 - 0.5
            trusted = sigma * step_s < 0.3 and abs(phase_error) < 0.4
            self.counted += expected + (phase_error if trusted else 0.0)
            self.variance += 0.0 if trusted else 0.25
        self.phase, self.phase_time_s, self.rate = fit.phase, fit.t_end, rate

    def end_run(self, time_s: float) -> None:
        """End the present run of growth at ``time_s``; nothing is counted until the next fit."""
        if math.isnan(self.counted):
            return
        self.finished = max(0.0, self.finished + self.counted + self.rate * (time_s - self.phase_time_s))
        self.finished_variance += self.variance + ONSET_ERROR**2
        self.counted, self.variance, self.rate = math.nan, 0.0, 0.0
        self.phase_time_s = self.ended_s = time_s

    @property
    def has_count(self) -> bool:
        """True if anything was counted."""
        return self.finished > 0.0 or not math.isnan(self.counted)

    def value(self, now: float) -> float:
        """Return the count at ``now`` (s), extrapolated from the last fit; what was reported before is the least."""
        run = (
            0.0 if math.isnan(self.counted) else self.counted + self.rate * max(0.0, now - self.phase_time_s)
        )
        self.reported = max(self.reported, self.finished + run)
        return self.reported

    def sigma(self, now: float) -> float:
        """Return the uncertainty of the count, including how far an earlier report was too high."""
        run = (
            0.0 if math.isnan(self.counted) else self.counted + self.rate * max(0.0, now - self.phase_time_s)
        )
        return math.hypot(
            math.sqrt(self.finished_variance + self.variance), self.reported - self.finished - run
        )
