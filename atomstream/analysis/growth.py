"""Online growth rate of the current segment: fits of a sliding window, and oscillations counted by phase."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from atomstream.analysis.illumination import LIGHT_OSCILLATES, MAX_LIGHT_SHARE, CorrectedTrace, light_share
from atomstream.analysis.motion import MAX_MOTION_SHARE, SPOT_MOVES, motion_share
from atomstream.analysis.oscillation import TOO_SHORT, analyse_trace, extends_to_start, rest_before_onset
from atomstream.analysis.oscillation_result import Oscillation, undetermined_oscillation
from atomstream.analysis.timestamps import clock_uncertainty
from atomstream.analysis.trace import IntensityTrace, find_pulse_rate, notch
from atomstream.results import F64, Measurement, measured, undetermined


@dataclass(slots=True)
class PhaseCounter:
    """Counts oscillations from ``start_s`` (s) on by the fitted phase, so that errors of the rate do not add up.

    ``phase`` (cycles) and ``rate`` (1/s) are those of the last fit, at ``phase_time_s``.
    """

    start_s: float
    counted: float = math.nan
    sigma: float = 0.0
    phase: float = 0.0
    phase_time_s: float = 0.0
    rate: float = 0.0

    def update(self, fit: Oscillation, onset_s: float) -> None:
        """Update the count with a determined fit; ``onset_s`` is when its growth began."""
        assert fit.best is not None
        rate, sigma = float(fit.rate), fit.rate.sigma or 0.0
        elapsed = fit.best.t_end - max(self.start_s, onset_s)
        # While one fit covers all of the growth, rate x time is better than the count so far.
        if math.isnan(self.counted) or elapsed < 1.1 * fit.span_s:
            self.counted, self.sigma = rate * elapsed, math.hypot(0.05, sigma * elapsed)
        else:
            expected = 0.5 * (rate + self.rate) * (fit.best.t_end - self.phase_time_s)
            phase_error = (fit.best.phase - self.phase - expected + 0.5) % 1.0 - 0.5
            trusted = sigma * (fit.best.t_end - self.phase_time_s) < 0.3 and abs(phase_error) < 0.4
            self.counted += expected + (phase_error if trusted else 0.0)
            self.sigma = math.hypot(self.sigma, 0.0 if trusted else 0.5)
        self.phase, self.phase_time_s, self.rate = fit.best.phase, fit.best.t_end, rate


@dataclass(slots=True)
class GrowthTracker:
    """Rate and oscillation count of the current segment.

    Call :meth:`feed` with corrected samples, :meth:`update` at about 2 Hz and :meth:`start_segment` where a segment
    begins. ``segment_start_s`` and ``onset_s`` are the starts of segment and oscillation (s), ``latest`` is the last
    fit, ``best`` the one with the smallest relative uncertainty, ``pulse_hz`` the laser's pulse rate (0: none). While
    ``veto`` is not empty the rate is undetermined for this reason.
    """

    trace: IntensityTrace
    segment_start_s: float = 0.0
    onset_s: float = 0.0
    latest: Oscillation = field(default_factory=lambda: undetermined_oscillation(TOO_SHORT))
    best: Oscillation | None = None
    counter: PhaseCounter = field(default_factory=lambda: PhaseCounter(0.0))
    pulse_hz: float = 0.0
    next_pulse_check_s: float = 0.0
    next_search_s: float = 0.0
    next_rotating_fit_s: float = 0.0
    last_fit_s: float = -math.inf
    veto: str = ""

    def feed(self, corrected: CorrectedTrace) -> None:
        """Add samples at the frame rate."""
        self.trace.feed(corrected.t, corrected.y, corrected.background, corrected.motion)

    def start_segment(self, time_s: float) -> None:
        """Begin a new segment at ``time_s``."""
        self.segment_start_s = self.onset_s = time_s
        self.latest, self.best = undetermined_oscillation(TOO_SHORT), None
        self.counter = PhaseCounter(time_s)
        self.next_search_s = 0.0

    def update(self, now: float, rotation_hz: float = 0.0) -> Oscillation:
        """Repeat the fit if it is due at ``now`` (s) and return the latest result."""
        if self.veto:
            self.latest, self.best = undetermined_oscillation(self.veto), None
            return self.latest
        if rotation_hz and now < self.next_rotating_fit_s:
            return self.latest  # a joint fit with the rotation costs ten times as much
        self.next_rotating_fit_s = now + 1.9
        self.trace.retune(self.trace.clock())
        self._update_pulse_rate(now, rotation_hz)
        if self.latest.determined:
            # Another 3 % of a period changes a fit by less than its uncertainty.
            if now < self.last_fit_s + 0.03 / float(self.latest.rate):
                return self.latest
            self._refit(rotation_hz)
        if not self.latest.determined and now >= self.next_search_s:
            self._search(now, rotation_hz)
        if self.latest.determined:
            self.last_fit_s = now
            self.counter.update(self.latest, self.onset_s)
            if self.best is None or _relative_sigma(self.latest) <= _relative_sigma(self.best):
                self.best = self.latest
        return self.latest

    def _refit(self, rotation_hz: float) -> None:
        self._fit(self.onset_s, float(self.latest.rate), rotation_hz)

    def _search(self, now: float, rotation_hz: float) -> None:
        t, started_late = self._fit(self.segment_start_s, None, rotation_hz)
        # A search costs ten fits: without a result, the interval grows with the length of the segment.
        self.next_search_s = now + max(0.9, 0.03 * (now - self.segment_start_s), 2.4 if rotation_hz else 0.0)
        if self.latest.determined and len(t) and not started_late:
            self.onset_s = self._find_onset(t, rotation_hz)

    def _find_onset(self, t: F64, rotation_hz: float) -> float:
        """Return the onset (s) of the growth just found in a trace with times ``t``, as early as it can be followed."""
        if _covers(self.latest, t, 0.97, rotation_hz):
            return self.segment_start_s
        # Under rotation growth is found only after some turns, and may have begun before the window of the fit.
        rate = float(self.latest.rate)
        t, y = self._notched(self.segment_start_s)
        if rotation_hz and extends_to_start(t, y, self.latest.rate, rotation_hz):
            rest_s = rest_before_onset(t, y, rate, rotation_hz)
            return float(t[0]) + rest_s if rest_s else self.segment_start_s
        return float(t[-1]) - self.latest.span_s

    def _fit(self, start_s: float, near_hz: float | None, rotation_hz: float) -> tuple[F64, bool]:
        """Fit the trace from ``start_s`` on, or from the onset of the growth if that is later.

        Returns the times of the samples (N,), and True if the growth began later.
        """
        started_late = False
        t, y = self._notched(start_s)
        fit_found = analyse_trace(t, y, near_hz, rotation_hz)
        if fit_found.best is not None and _covers(fit_found, t, 0.95, rotation_hz):
            rest_s = rest_before_onset(t, y, float(fit_found.rate), rotation_hz)
            if rest_s > 0:
                growing = t >= t[0] + rest_s
                refit = analyse_trace(t[growing], y[growing], float(fit_found.rate), rotation_hz)
                if refit.determined:
                    fit_found, self.onset_s, started_late = refit, float(t[0]) + rest_s, True
        self.latest = self._checked(fit_found, rotation_hz)
        return t, started_late

    def _checked(self, fit_found: Oscillation, rotation_hz: float) -> Oscillation:
        """Reject an oscillation of the light or by motion; add the uncertainty of the frame clock to the rate."""
        if fit_found.best is None:
            return fit_found
        if (
            light_share(*self.trace.with_background_since(self.segment_start_s), fit_found.best, rotation_hz)
            > MAX_LIGHT_SHARE
        ):
            return undetermined_oscillation(
                LIGHT_OSCILLATES, fit_found.cycles, fit_found.r2, fit_found.span_s
            )
        if (
            motion_share(*self.trace.with_motion_since(self.segment_start_s), fit_found.best, rotation_hz)
            > MAX_MOTION_SHARE
        ):
            return undetermined_oscillation(SPOT_MOVES, fit_found.cycles, fit_found.r2, fit_found.span_s)
        relative_sigma, note = clock_uncertainty(self.trace.clock(), self.trace.stated_fps)
        if not note:
            return fit_found
        rate, sigma = float(fit_found.rate), fit_found.rate.sigma or 0.0
        return replace(fit_found, rate=measured(rate, math.hypot(sigma, relative_sigma * rate), "1/s", note))

    def _notched(self, start_s: float) -> tuple[F64, F64]:
        t, y = self.trace.since(start_s)
        if self.pulse_hz <= 0 or len(t) < 32:
            return t, y
        even = np.linspace(t[0], t[-1], len(t))
        return notch(even, np.interp(even, t, y), self.pulse_hz)

    def _update_pulse_rate(self, now: float, rotation_hz: float) -> None:
        if now < self.next_pulse_check_s or rotation_hz:
            return
        self.next_pulse_check_s = now + 4.0
        good = np.isfinite(self.trace.raw_y) & (self.trace.raw_t >= self.segment_start_s)
        fit_found = find_pulse_rate(self.trace.raw_t[good], self.trace.raw_y[good])
        if fit_found is None and len(self.trace.fine_t) > 400:
            fit_found = find_pulse_rate(*self.trace.since(max(self.segment_start_s, now - 120.0)))
        self.pulse_hz = fit_found or self.pulse_hz

    def oscillations_counted(self, now: float, unit: str = "oscillations") -> Measurement:
        """Return the oscillations since the segment began, extrapolated from the last fit to ``now`` (s).

        Each oscillation is usually one layer.
        """
        if math.isnan(self.counter.counted):
            return undetermined(self.latest.rate.why or TOO_SHORT, unit)
        start_s = max(0.0, now - self.counter.phase_time_s) if self.latest.determined else 0.0
        note = (
            ""
            if self.latest.determined
            else f"counted until {self.counter.phase_time_s:.1f} s, undetermined since"
        )
        delay_s = self.onset_s - max(self.counter.start_s, self.segment_start_s)
        if delay_s * self.counter.rate > 0.3:
            note = "; ".join(filter(None, (f"counted from {self.onset_s:.1f} s on", note)))
        return measured(self.counter.counted + self.counter.rate * start_s, self.counter.sigma, unit, note)


def _covers(fit_found: Oscillation, t: F64, share: float, rotation_hz: float) -> bool:
    """Return True if a fit used ``share`` of the trace at ``t``; under rotation its filter cuts up to 0.8 periods."""
    span = float(t[-1] - t[0])
    return fit_found.span_s > min(
        share * span, span - 0.8 / float(fit_found.rate) if rotation_hz else math.inf
    )


def _relative_sigma(answer: Oscillation) -> float:
    return (answer.rate.sigma or 0.0) / float(answer.rate)
