"""Test whether an oscillation continues: an earlier fit is extrapolated and compared with the newest periods.

A fit to a window that contains the end of growth can follow it with a strong damping, so it cannot show the end
itself. A fit that was made before it predicts the newest periods; growth that goes on agrees with the prediction up
to a factor (damping), a small shift of the phase (a changing rate) and the slow background.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from atomstream.analysis.varpro import Fit, downsampled
from atomstream.results import F64, Bool

CHECK_PERIODS = (1.2, 2.0, 3.0, 4.5)
"""Lengths of the compared part, in periods: the shortest in which noise leaves the amplitude certain is used."""

MAX_GAP = 0.12
"""Longest gap after the fit, in periods: the frames after a longer one may be stamped late."""

MIN_SAMPLES = 9
"""Fewest samples that are compared: five coefficients are fitted."""

MAX_AMPLITUDE_SIGMA = 0.15
"""Largest uncertainty of the amplitude, as a share of the predicted one."""

MAX_MISFIT = 0.15
"""Largest mean square of the misfit beyond the noise, in units of the predicted wave's mean square."""

MIN_AMPLITUDE = 0.4
"""Smallest amplitude of growth that goes on, as a share of the predicted one."""

EXACT_SLIP = 0.02
EXACT_MISFIT = 0.02
"""Largest shift of the phase (cycles) and misfit with which the rate counts as unchanged."""

CLEAR_AMPLITUDE = 0.7
CLEAR_SLIP = 0.06
"""Least amplitude (share of the predicted one) and largest shift (cycles) that end a doubt about the oscillation."""

TOLERANT_CYCLES = 2.2
"""A prediction from a fit of this number of oscillations is half as exact as one from many oscillations."""

MAX_SLIP = 0.11
"""Largest shift of the phase, in cycles, between the prediction and growth that goes on."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """Comparison of the newest periods with a prediction.

    ``amplitude`` is a share of the predicted one with its ``sigma``, ``slip`` a shift in cycles with the uncertainty
    ``slip_sigma``, ``misfit`` the mean square of the rest beyond the noise, in units of the wave's mean square.
    ``tolerance`` (>= 1) widens the limits of amplitude and misfit for predictions from few oscillations.
    """

    amplitude: float
    sigma: float
    slip: float
    slip_sigma: float
    misfit: float
    tolerance: float

    @property
    def goes_on(self) -> bool:
        """True if the newest periods agree with the prediction."""
        return (
            self.amplitude > MIN_AMPLITUDE / self.tolerance - self.sigma
            and abs(self.slip) < MAX_SLIP + self.slip_sigma
            and self.misfit < MAX_MISFIT * self.tolerance
        )

    @property
    def oscillates(self) -> bool:
        """True if there is an oscillation of about the predicted amplitude, be it at another rate."""
        return abs(self.amplitude) > MIN_AMPLITUDE

    @property
    def is_clear(self) -> bool:
        """True if the newest periods agree so well that an earlier :func:`is_doubtful` no longer counts."""
        return (
            self.goes_on
            and self.amplitude > CLEAR_AMPLITUDE
            and abs(self.slip) < CLEAR_SLIP + self.slip_sigma
        )

    @property
    def is_exact(self) -> bool:
        """True if the prediction has a small uncertainty, and phase, amplitude and shape agree with it closely."""
        return (
            self.slip_sigma < EXACT_SLIP
            and abs(self.slip) < EXACT_SLIP
            and abs(self.amplitude - 1.0) < 0.2
            and self.misfit < EXACT_MISFIT
        )


MAX_PHASE_SIGMA = 0.05
"""Largest uncertainty of the predicted phase, in cycles, with which the end of growth can be recognised."""


def compare(before: Fit, t: F64, y: F64) -> Continuation | None:
    """Compare samples ``t``, ``y`` (N,) up to now with the fit ``before``; None if there are too few of them.

    The result is None too if the predicted phase is too uncertain, and across a gap.
    ``before.sigma_hz`` must be the whole uncertainty of its rate, with that of the models.
    """
    result = None
    if _phase_sigma(before, t) > MAX_PHASE_SIGMA or _has_gap(before, t):
        return None
    step = before.span_s / max(1, len(before.residual) - 1)
    for periods in CHECK_PERIODS:
        recent = t >= t[-1] - periods / before.frequency
        part_t, part_y = _binned(t[recent], y[recent], step)
        if len(part_t) < MIN_SAMPLES:
            continue
        result = _compared(before, part_t, part_y)
        if result.sigma < MAX_AMPLITUDE_SIGMA:
            break
    return result


def _has_gap(before: Fit, t: F64) -> bool:
    """Return True if the trace has a gap after the fit ``before``."""
    steps = np.diff(t[t >= before.t_end])
    if len(steps) == 0:
        return False
    return bool(steps.max() > max(MAX_GAP / before.frequency, 2.5 * float(np.median(steps))))


def _binned(t: F64, y: F64, step: float) -> tuple[F64, F64]:
    """Average to about the sample interval ``step`` (s) of the fit, so that the noise is comparable."""
    if len(t) < 2 or step <= 0:
        return t, y
    return downsampled(t, y, max(MIN_SAMPLES, round(float(t[-1] - t[0]) / step)))


def _phase_sigma(before: Fit, t: F64) -> float:
    """Return the uncertainty of the predicted phase in cycles, in the newest period."""
    return before.sigma_hz * (float(t[-1]) - before.t_end - 0.5 / before.frequency)


def _compared(before: Fit, t: F64, y: F64) -> Continuation:
    wave = before.wave_at(t)
    quarter = before.wave_at(t - 0.25 / before.frequency)
    x = (t - t.mean()) / max(float(t[-1] - t[0]), 1e-12)
    basis = np.stack([np.ones_like(x), x, wave, quarter], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis, y, rcond=1e-9)
    residual = y - basis @ coefficients
    power = float(((wave - wave.mean()) ** 2).mean())
    degrees = max(1, len(t) - 4)
    noise = before.rms**2
    excess = float(residual @ residual) / degrees - 2.0 * noise
    a, b = float(coefficients[2]), float(coefficients[3])
    return Continuation(
        amplitude=math.copysign(math.hypot(a, b), a),
        sigma=math.sqrt(noise / max(power * len(t), 1e-300)),
        slip=math.atan2(b, abs(a)) / (2.0 * math.pi),
        slip_sigma=math.hypot(
            math.sqrt(noise / max(power * len(t), 1e-300)) / (2.0 * math.pi), 2.0 * _phase_sigma(before, t)
        ),
        misfit=max(0.0, excess) / max(power, 1e-300),
        tolerance=1.0 + (TOLERANT_CYCLES / max(before.cycles, 1.0)) ** 4,
    )


DOUBT_PERIODS = 0.4
NEWEST_PERIODS = (0.15, 0.25, DOUBT_PERIODS)
"""Lengths of the newest part, in periods, that show at once that an oscillation may have ended. At an extremum the end
deviates late but fast, which shortens the part that shows it first."""

MAX_DOUBTFUL_MISFIT = 0.08
"""Largest mean square of its misfit beyond the noise, in units of the wave's mean square."""


def is_doubtful(before: Fit, t: F64, y: F64) -> bool:
    """Return True if the newest part of a period deviates from the prediction by ``before``.

    The prediction is adjusted to the period before that part, so only the uncertainty of the rate between both counts.
    This needs less time than :func:`compare`, but noise and a single disturbance can cause it too.
    """
    period = 1.0 / before.frequency
    step = before.span_s / max(1, len(before.residual) - 1)
    recent = t >= t[-1] - (1.0 + DOUBT_PERIODS) * period
    t, y = _binned(t[recent], y[recent], step)
    if _has_gap(before, t):
        return False
    return any(_deviates(before, t, y, t > t[-1] - length * period) for length in NEWEST_PERIODS)


def _deviates(before: Fit, t: F64, y: F64, newest: Bool) -> bool:
    """Return True if the ``newest`` samples (N,) deviate from the prediction that is adjusted to the others."""
    if newest.sum() < 2 or (~newest).sum() < MIN_SAMPLES - 2:
        return False
    wave, quarter = before.wave_at(t), before.wave_at(t - 0.25 / before.frequency)
    basis = np.stack([np.ones_like(t), wave, quarter], axis=1)
    coefficients, *_ = np.linalg.lstsq(basis[~newest], y[~newest], rcond=1e-9)
    tolerance = 1.0 + (TOLERANT_CYCLES / max(before.cycles, 1.0)) ** 4
    if float(coefficients[1]) < MIN_AMPLITUDE / tolerance:
        return True
    missed = float(((y[newest] - basis[newest] @ coefficients) ** 2).mean())
    power = float(((wave - wave.mean()) ** 2).mean())
    noise = before.rms**2 * (1.0 + 2.0 / math.sqrt(float(newest.sum())))
    turned = 2.0 * math.pi * before.sigma_hz * (float(t[newest].mean()) - float(t[~newest].mean()))
    return missed > 2.0 * noise + (MAX_DOUBTFUL_MISFIT * tolerance + turned**2) * power


STOP_RANGE = 3.5
"""Range, in periods before now, in which the end of an oscillation is searched."""

SEEN_PERIODS = 1.0
"""The end of an oscillation is not earlier than this time, in periods, before the end of the fit that predicts it: the
newest period of that fit was seen to oscillate."""

STOP_STEPS = 20
"""Candidates per period."""

RECOVERY_PERIODS = (0.3, 1.0, 3.0)
"""Time constants, in periods, of the exponential with which the intensity may recover after the end of growth."""


def stop_time(before: Fit, t: F64, y: F64) -> float:
    """Return the time (s) at which the trace ``t``, ``y`` (N,) stopped following the fit ``before``.

    For each candidate, the part before it is the predicted oscillation on a line, and the part after it a line or an
    exponential recovery. The candidate with the smallest sum of squares is taken.
    """
    period = 1.0 / before.frequency
    earliest = max(float(t[-1]) - STOP_RANGE * period, before.t_end - SEEN_PERIODS * period)
    recent = t >= earliest - 1.5 * period
    t, y = downsampled(t[recent], y[recent], round((STOP_RANGE + 1.5) * 2 * STOP_STEPS))
    wave, quarter = before.wave_at(t), before.wave_at(t - 0.25 * period)
    best, best_cost = float(t[-1]), math.inf
    first = max(float(t[0]) + 0.5 * period, earliest)
    for stop in np.arange(float(t[-1]), first, -period / STOP_STEPS):
        growing = t <= stop
        left = np.stack([np.ones_like(t), t - stop, wave, quarter], axis=1)[growing]
        cost = _misfit(left, y[growing]) + _rest_misfit(t[~growing] - stop, y[~growing], period)
        if cost < best_cost:
            best, best_cost = float(stop), cost
    return best


def _rest_misfit(since: F64, y: F64, period: float) -> float:
    if len(since) < 3:
        return 0.0
    line = np.stack([np.ones_like(since), since], axis=1)
    curves = [line] + [
        np.concatenate([line, np.exp(-since / (share * period))[:, None]], axis=1)
        for share in RECOVERY_PERIODS
    ]
    return min(_misfit(curve, y) for curve in curves)


def _misfit(basis: F64, y: F64) -> float:
    """Return the sum of squares that a linear fit of ``basis`` (N, M) leaves of ``y`` (N,)."""
    if len(y) <= basis.shape[1]:
        return 0.0
    rest = y - basis @ np.linalg.lstsq(basis, y, rcond=1e-9)[0]
    return float(rest @ rest)


ONSET_RANGE = 4.0
"""Length, in periods, of the part before the fit's window in which its onset is searched at a time."""

MAX_ONSET_STEPS = 25
"""Largest number of parts, each of ONSET_RANGE periods, that are searched: a fast oscillation after hours of growth is
not followed back to its beginning."""

SHORTEST_REST = 0.25
"""Shortest rest, in periods, that is distinguished from the first part of an oscillation."""

ONSET_GAIN = 0.5
"""With an onset, the sum of squares must fall below this share of that without one."""


def onset_time(fit: Fit, t: F64, y: F64, start_s: float) -> float:
    """Return the time (s) at which the oscillation of ``fit`` began in the trace ``t``, ``y`` (N,) from ``start_s`` on.

    The fit is followed backwards through its window and beyond, four periods at a time, with free amplitude and phase.
    The onset is where a line before it and the oscillation after it leave much less than the oscillation alone.
    Returns ``start_s`` if the oscillation goes back to it, and the earliest time reached after 100 periods.
    """
    # A fit over a rest and the growth after it has an increasing amplitude; a fit of the growth alone has not.
    fit = replace(fit, decay=max(0.0, fit.decay))
    period, known, last = 1.0 / fit.frequency, fit.t_end - fit.span_s, fit.t_end
    for _ in range(MAX_ONSET_STEPS):
        first = max(start_s, known - ONSET_RANGE * period)
        part = (t >= first) & (t <= last)
        onset = _onset_within(fit, t[part], y[part], period)
        if onset is not None:
            return onset
        if first <= start_s:
            return start_s
        known, last = first, first + 1.5 * period
    return known


def _onset_within(fit: Fit, t: F64, y: F64, period: float) -> float | None:
    """Return the onset within a part of the trace; None if the oscillation fills it."""
    if len(t) < MIN_SAMPLES:
        return None
    t, y = downsampled(t, y, max(MIN_SAMPLES, round(float(t[-1] - t[0]) / period * 1.5 * STOP_STEPS)))
    wave, quarter = fit.wave_at(t), fit.wave_at(t - 0.25 * period)
    costs = []
    candidates = np.arange(float(t[0]), float(t[-1]) - 0.8 * period, period / STOP_STEPS)
    for onset in candidates:
        growing = t >= onset
        right = np.stack([np.ones_like(t), t - onset, wave, quarter], axis=1)[growing]
        flat = np.ones((int((~growing).sum()), 1))  # a line would follow the first slope of the growth
        left = (
            flat if onset - t[0] < 1.5 * period else np.stack([np.ones_like(t), t - onset], axis=1)[~growing]
        )
        costs.append(_misfit(right, y[growing]) + _misfit(left, y[~growing]))
    if not costs:
        return None
    best = int(np.argmin(costs))
    power = float(((wave - wave.mean()) ** 2).sum())
    if candidates[best] - t[0] < SHORTEST_REST * period or costs[best] > ONSET_GAIN * costs[0]:
        return None
    return float(candidates[best]) if costs[0] > 0.03 * power else None
