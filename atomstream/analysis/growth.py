"""Growth as it goes on: the rate from a sliding window, oscillations counted by their phase, one segment at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from atomstream.analysis.illumination import LIGHT_OSCILLATES, MAX_LIGHT_SHARE, CorrectedTrace, light_share
from atomstream.analysis.oscillation import TOO_SHORT, analyse_trace, extends_to_start, rest_before_onset
from atomstream.analysis.oscillation_result import Oscillation, undetermined_oscillation
from atomstream.analysis.timestamps import clock_uncertainty
from atomstream.analysis.trace import IntensityTrace, find_pulse_rate, notch
from atomstream.results import F64, Measurement, measured, undetermined


@dataclass(slots=True)
class PhaseCounter:
    """Counts oscillations since ``since`` by following the fitted phase, which no jitter of the rate can spoil."""

    start_s: float
    counted: float = math.nan
    sigma: float = 0.0
    phase: float = 0.0
    phase_time_s: float = 0.0
    rate: float = 0.0

    def update(self, fit: Oscillation, onset_s: float) -> None:
        """Take in a determined fit; ``onset`` is when its growth began (s)."""
        assert fit.best is not None
        rate, sigma = float(fit.rate), fit.rate.sigma or 0.0
        elapsed = fit.best.t_end - max(self.start_s, onset_s)
        # while the fit still covers all of the growth it knows the count better than what was counted before
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
    """Rate and count of the present segment.

    Call :meth:`feed` with corrected samples, :meth:`tick` at about 2 Hz, :meth:`cut` where a segment begins.
    ``onset`` is where the oscillation was first seen to begin within the segment.
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

    def feed(self, corrected: CorrectedTrace) -> None:
        """Add samples at the frame rate."""
        self.trace.feed(corrected.t, corrected.y, corrected.background)

    def start_segment(self, time_s: float) -> None:
        """Begin a new segment."""
        self.segment_start_s = self.onset_s = time_s
        self.latest, self.best = undetermined_oscillation(TOO_SHORT), None
        self.counter = PhaseCounter(time_s)
        self.next_search_s = 0.0

    def update(self, now: float, rotation_hz: float = 0.0) -> Oscillation:
        """Fit again; return what is known now."""
        if rotation_hz and now < self.next_rotating_fit_s:
            return self.latest  # a joint fit costs ten times a plain one
        self.next_rotating_fit_s = now + 1.9
        self.trace.retune(self.trace.clock())
        self._update_pulse_rate(now, rotation_hz)
        if self.latest.determined:
            # 3 % of a period more changes a fit by less than its sigma
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
        # a search costs ten fits: while there is nothing to find, look more seldom the longer it lasts
        self.next_search_s = now + max(0.9, 0.03 * (now - self.segment_start_s), 2.4 if rotation_hz else 0.0)
        if self.latest.determined and len(t) and not started_late:
            self.onset_s = self._find_onset(t, rotation_hz)

    def _find_onset(self, t: F64, rotation_hz: float) -> float:
        """When the growth that was just found in a trace at ``t`` began, as far back as it can be followed."""
        if _covers(self.latest, t, 0.97, rotation_hz):
            return self.segment_start_s
        # while turning it shows only after some turns, when it has been going on for longer than a fit's window
        rate = float(self.latest.rate)
        t, y = self._notched(self.segment_start_s)
        if rotation_hz and extends_to_start(t, y, self.latest.rate, rotation_hz):
            rest_s = rest_before_onset(t, y, rate, rotation_hz)
            return float(t[0]) + rest_s if rest_s else self.segment_start_s
        return float(t[-1]) - self.latest.span_s

    def _fit(self, start_s: float, near_hz: float | None, rotation_hz: float) -> tuple[F64, bool]:
        """Fit the trace from ``since`` on; where the growth shows to have begun later, from there.

        Returns the times of the samples, and whether it did.
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
        """Refuse what is the light's; add the doubt of the frames' clock."""
        if fit_found.best is None:
            return fit_found
        if (
            light_share(*self.trace.with_background_since(self.segment_start_s), fit_found.best, rotation_hz)
            > MAX_LIGHT_SHARE
        ):
            return undetermined_oscillation(
                LIGHT_OSCILLATES, fit_found.cycles, fit_found.r2, fit_found.span_s
            )
        more, note = clock_uncertainty(self.trace.clock(), self.trace.stated_fps)
        if not note:
            return fit_found
        rate, sigma = float(fit_found.rate), fit_found.rate.sigma or 0.0
        return replace(fit_found, rate=measured(rate, math.hypot(sigma, more * rate), "1/s", note))

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
        """Oscillations from the last mark to ``now``, each usually one layer; counted on past the last fit."""
        if math.isnan(self.counter.counted):
            return undetermined(self.latest.rate.why or TOO_SHORT, unit)
        start_s = max(0.0, now - self.counter.phase_time_s) if self.latest.determined else 0.0
        note = (
            ""
            if self.latest.determined
            else f"counted until {self.counter.phase_time_s:.1f} s, undetermined since"
        )
        late = self.onset_s - max(self.counter.start_s, self.segment_start_s)
        if late * self.counter.rate > 0.3:
            note = "; ".join(filter(None, (f"counted from {self.onset_s:.1f} s on", note)))
        return measured(self.counter.counted + self.counter.rate * start_s, self.counter.sigma, unit, note)


def _covers(fit_found: Oscillation, t: F64, share: float, rotation_hz: float) -> bool:
    """Whether a fit used ``share`` of the trace at ``t``; under rotation its filter takes up to 0.8 periods off."""
    span = float(t[-1] - t[0])
    return fit_found.span_s > min(
        share * span, span - 0.8 / float(fit_found.rate) if rotation_hz else math.inf
    )


def _relative_sigma(answer: Oscillation) -> float:
    return (answer.rate.sigma or 0.0) / float(answer.rate)
