"""Growth as it goes on: the rate from a sliding window, oscillations counted by their phase, one segment at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from atomstream.analysis.illumination import LIGHT_SHARE, THE_LIGHT, CorrectedTrace, light_share
from atomstream.analysis.oscillation import TOO_SHORT, analyse_trace, goes_back, still_before
from atomstream.analysis.oscillation_result import Oscillation, nothing
from atomstream.analysis.timestamps import doubt
from atomstream.analysis.trace import IntensityTrace, find_pulse_rate, notch
from atomstream.results import F64, Measurement, measured, undetermined


@dataclass(slots=True)
class PhaseCounter:
    """Counts oscillations since ``since`` by following the fitted phase, which no jitter of the rate can spoil."""

    since: float
    counted: float = math.nan
    sigma: float = 0.0
    phase: float = 0.0
    at: float = 0.0
    rate: float = 0.0

    def update(self, fit: Oscillation, onset: float) -> None:
        """Take in a determined fit; ``onset`` is when its growth began (s)."""
        assert fit.best is not None
        rate, sigma = float(fit.rate), fit.rate.sigma or 0.0
        elapsed = fit.best.t_end - max(self.since, onset)
        # while the fit still covers all of the growth it knows the count better than what was counted before
        if math.isnan(self.counted) or elapsed < 1.1 * fit.span_s:
            self.counted, self.sigma = rate * elapsed, math.hypot(0.05, sigma * elapsed)
        else:
            expected = 0.5 * (rate + self.rate) * (fit.best.t_end - self.at)
            moved = (fit.best.phase - self.phase - expected + 0.5) % 1.0 - 0.5
            trusted = sigma * (fit.best.t_end - self.at) < 0.3 and abs(moved) < 0.4
            self.counted += expected + (moved if trusted else 0.0)
            self.sigma = math.hypot(self.sigma, 0.0 if trusted else 0.5)
        self.phase, self.at, self.rate = fit.best.phase, fit.best.t_end, rate


@dataclass(slots=True)
class GrowthTracker:
    """Rate and count of the present segment.

    Call :meth:`feed` with corrected samples, :meth:`tick` at about 2 Hz, :meth:`cut` where a segment begins.
    ``onset`` is where the oscillation was first seen to begin within the segment.
    """

    trace: IntensityTrace
    begin: float = 0.0
    onset: float = 0.0
    latest: Oscillation = field(default_factory=lambda: nothing(TOO_SHORT))
    best: Oscillation | None = None
    counter: PhaseCounter = field(default_factory=lambda: PhaseCounter(0.0))
    pulse_hz: float = 0.0
    next_pulse_check: float = 0.0
    next_search: float = 0.0
    next_rotating: float = 0.0
    fitted_at: float = -math.inf

    def feed(self, lit: CorrectedTrace) -> None:
        """Add samples at the frame rate."""
        self.trace.feed(lit.t, lit.y, lit.background)

    def cut(self, time_s: float) -> None:
        """Begin a new segment."""
        self.begin = self.onset = time_s
        self.latest, self.best = nothing(TOO_SHORT), None
        self.counter = PhaseCounter(time_s)
        self.next_search = 0.0

    def tick(self, now: float, rotation_hz: float = 0.0) -> Oscillation:
        """Fit again; return what is known now."""
        if rotation_hz and now < self.next_rotating:
            return self.latest  # a joint fit costs ten times a plain one
        self.next_rotating = now + 1.9
        self.trace.retune(self.trace.clock())
        self._check_pulses(now, rotation_hz)
        if self.latest.determined:
            # 3 % of a period more changes a fit by less than its sigma
            if now < self.fitted_at + 0.03 / float(self.latest.rate):
                return self.latest
            self._follow(rotation_hz)
        if not self.latest.determined and now >= self.next_search:
            self._search(now, rotation_hz)
        if self.latest.determined:
            self.fitted_at = now
            self.counter.update(self.latest, self.onset)
            if self.best is None or _relative(self.latest) <= _relative(self.best):
                self.best = self.latest
        return self.latest

    def _follow(self, rotation_hz: float) -> None:
        self._fit(self.onset, float(self.latest.rate), rotation_hz)

    def _search(self, now: float, rotation_hz: float) -> None:
        t, begun_late = self._fit(self.begin, None, rotation_hz)
        # a search costs ten fits: while there is nothing to find, look more seldom the longer it lasts
        self.next_search = now + max(0.9, 0.03 * (now - self.begin), 2.4 if rotation_hz else 0.0)
        if self.latest.determined and len(t) and not begun_late:
            self.onset = self._first_layer(t, rotation_hz)

    def _first_layer(self, t: F64, rotation_hz: float) -> float:
        """When the growth that was just found in a trace at ``t`` began, as far back as it can be followed."""
        if _spans(self.latest, t, 0.97, rotation_hz):
            return self.begin
        # while turning it shows only after some turns, when it has been going on for longer than a fit's window
        rate = float(self.latest.rate)
        t, y = self._prepared(self.begin)
        if rotation_hz and goes_back(t, y, self.latest.rate, rotation_hz):
            still = still_before(t, y, rate, rotation_hz)
            return float(t[0]) + still if still else self.begin
        return float(t[-1]) - self.latest.span_s

    def _fit(self, since: float, near_hz: float | None, rotation_hz: float) -> tuple[F64, bool]:
        """Fit the trace from ``since`` on; where the growth shows to have begun later, from there.

        Returns the times of the samples, and whether it did.
        """
        begun_late = False
        t, y = self._prepared(since)
        found = analyse_trace(t, y, near_hz, rotation_hz)
        if found.best is not None and _spans(found, t, 0.95, rotation_hz):
            still = still_before(t, y, float(found.rate), rotation_hz)
            if still > 0:
                begun = t >= t[0] + still
                again = analyse_trace(t[begun], y[begun], float(found.rate), rotation_hz)
                if again.determined:
                    found, self.onset, begun_late = again, float(t[0]) + still, True
        self.latest = self._doubted(found, rotation_hz)
        return t, begun_late

    def _doubted(self, found: Oscillation, rotation_hz: float) -> Oscillation:
        """Refuse what is the light's; add the doubt of the frames' clock."""
        if found.best is None:
            return found
        if light_share(*self.trace.both_since(self.begin), found.best, rotation_hz) > LIGHT_SHARE:
            return nothing(THE_LIGHT, found.cycles, found.r2, found.span_s)
        more, note = doubt(self.trace.clock(), self.trace.stated_fps)
        if not note:
            return found
        rate, sigma = float(found.rate), found.rate.sigma or 0.0
        return replace(found, rate=measured(rate, math.hypot(sigma, more * rate), "1/s", note))

    def _prepared(self, since: float) -> tuple[F64, F64]:
        t, y = self.trace.since(since)
        if self.pulse_hz <= 0 or len(t) < 32:
            return t, y
        even = np.linspace(t[0], t[-1], len(t))
        return notch(even, np.interp(even, t, y), self.pulse_hz)

    def _check_pulses(self, now: float, rotation_hz: float) -> None:
        if now < self.next_pulse_check or rotation_hz:
            return
        self.next_pulse_check = now + 4.0
        good = np.isfinite(self.trace.raw_y) & (self.trace.raw_t >= self.begin)
        found = find_pulse_rate(self.trace.raw_t[good], self.trace.raw_y[good])
        if found is None and len(self.trace.fine_t) > 400:
            found = find_pulse_rate(*self.trace.since(max(self.begin, now - 120.0)))
        self.pulse_hz = found or self.pulse_hz

    def oscillations_counted(self, now: float, unit: str = "oscillations") -> Measurement:
        """Oscillations from the last mark to ``now``, each usually one layer; counted on past the last fit."""
        if math.isnan(self.counter.counted):
            return undetermined(self.latest.rate.why or TOO_SHORT, unit)
        since = max(0.0, now - self.counter.at) if self.latest.determined else 0.0
        note = "" if self.latest.determined else f"counted until {self.counter.at:.1f} s, undetermined since"
        late = self.onset - max(self.counter.since, self.begin)
        if late * self.counter.rate > 0.3:
            note = "; ".join(filter(None, (f"counted from {self.onset:.1f} s on", note)))
        return measured(self.counter.counted + self.counter.rate * since, self.counter.sigma, unit, note)


def _spans(found: Oscillation, t: F64, share: float, rotation_hz: float) -> bool:
    """Whether a fit used ``share`` of the trace at ``t``; under rotation its filter takes up to 0.8 periods off."""
    span = float(t[-1] - t[0])
    return found.span_s > min(share * span, span - 0.8 / float(found.rate) if rotation_hz else math.inf)


def _relative(answer: Oscillation) -> float:
    return (answer.rate.sigma or 0.0) / float(answer.rate)
