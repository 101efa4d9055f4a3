"""Growth rate from an intensity trace: search the oscillation, fit it with several models, combine the fits.

Each layer gives one oscillation of the specular intensity (P. I. Cohen, G. S. Petrich, P. R. Pukite, G. J. Whaley &
A. S. Arrott, Surf. Sci. 216, 222 (1989)). The uncertainty includes the spread over models (background order, start
of the window, second harmonic): a single fit of 2.2 cycles claims 0.5 % where different models differ by 3 %.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.hypotheses import MIN_CYCLES, TRANSIENT_DECAY
from atomstream.analysis.linear_part import Model
from atomstream.analysis.oscillation_result import (
    DRIFT_ODDS,
    KNOWN_DRIFT_ODDS,
    Estimate,
    Oscillation,
    combine_fits,
    estimated,
    undetermined_oscillation,
)
from atomstream.analysis.varpro import MAX_POINTS, ROTATION_POINTS, Window, cut_window, rotation_points
from atomstream.results import F64, Measurement

MAX_CYCLES = 8.0
STEADY_CYCLES = 12.0
"""Longest window of a fit, in periods: in general, and where the rate is known not to have changed."""

MAX_SHORTENING = 1000.0
"""Largest ratio of the longest and the shortest window of a search."""

SEARCH_POINTS = 160
SEARCH_POINTS_ROTATING = 320
"""Samples of a window in the search, at rest and under rotation."""

MODELS_WITH_HARMONIC = (Model(1, True), Model(2, True))
MODELS_WITHOUT_HARMONIC = (Model(1, False), Model(2, False))
MODELS_WITH_DRIFT = (Model(1, True, True), Model(2, True, True))
DRIFT_CYCLES = 3.2
"""Fewest oscillations in which a change of the rate is fitted."""

LATE_CYCLES = 2.0
"""Fewest oscillations in which the first half is left out; the first whole one is from one more on."""

SHORT_WINDOWS = (2.2, 3.2, 4.7)
"""Lengths, in periods, of the shorter windows with which a long one must agree."""

MAX_DISAGREEMENT = 2.2
"""Largest difference between the rates of a long and a shorter window, in units of the shorter one's uncertainty."""

MODEL_ERROR = 0.002
"""Relative error of a rate that no window shows: the shape of the oscillations is not exactly the model's."""

MIN_ROTATIONS = 2.4
"""Fewest turns in a fit: with less, rotation harmonics and a wrong rate together explain a trace."""

ONSET_RMS_RATIO = 0.65
"""Without its first period, a fit of continuous growth keeps at least this share of its RMS residual."""

REST_SCATTER_RATIO = 0.35
"""Largest scatter at rest (noise, hum, drift of the beam), as a share of the first period's scatter."""

TOO_SHORT = "too few samples yet; keep streaming"


Change: TypeAlias = Literal["unknown", "none", "drift"]
"""What earlier fits showed about the rate of the newest periods."""


def analyse_trace(
    t: F64,
    y: F64,
    near_hz: float | None = None,
    rotation_hz: float = 0.0,
    change: Change = "unknown",
    pulse_hz: float = 0.0,
) -> Oscillation:
    """Search and fit the oscillation of a trace.

    ``t`` in s ascending, ``y`` any unit, shape (N,); NaN samples are left out. ``near_hz`` is the frequency of a
    recent fit: it sets the window (the last 8 periods, 12 if the rate is steady) and replaces the search. Under
    rotation (``rotation_hz`` turns per second, > 0) ln y is fitted jointly with the rotation's harmonics. ``change`` is
    True if the rate changed in the recent fits. ``pulse_hz`` is the rate of a laser whose pulses were removed from the
    trace (0: none). Never raises for bad data.
    """
    good = np.isfinite(t) & np.isfinite(y)
    t, y = t[good], y[good]
    if len(t) < 12 or t[-1] - t[0] <= 0:
        return undetermined_oscillation(TOO_SHORT)
    if float(np.ptp(y)) <= 1e-9 * max(1.0, float(np.abs(y).max())):
        return undetermined_oscillation(
            "the trace is constant: no beam, or the region is saturated throughout"
        )
    if rotation_hz > 0:
        if (t[-1] - t[0]) * rotation_hz < MIN_ROTATIONS:
            return undetermined_oscillation(
                f"under {MIN_ROTATIONS:g} turns of the substrate seen; its own modulation is not yet known"
            )
        y = np.log(np.clip(y, 0.01 * float(np.median(np.abs(y))) + 1e-12, None))
    if near_hz is not None:
        follow = fit_window(t, y, near_hz, rotation_hz, change=change, pulse_hz=pulse_hz)
        if follow.determined:
            return follow
    return _search(t, y, rotation_hz, pulse_hz)


def _search(t: F64, y: F64, rotation_hz: float, pulse_hz: float) -> Oscillation:
    """Try windows from the whole trace down to its last seconds; fit the best one with all models."""
    step = float(np.median(np.diff(t)))
    length = float(t[-1] - t[0])
    shortest = max(16 * step, length / MAX_SHORTENING, MIN_ROTATIONS / rotation_hz if rotation_hz else 0.0)
    candidates: list[Oscillation] = []
    while length >= shortest or not candidates:
        points = SEARCH_POINTS
        if rotation_hz:  # the shortest windows at full resolution, for the fastest growth
            points = ROTATION_POINTS if length < 2.0 * shortest else SEARCH_POINTS_ROTATING
        window = cut_window(t, y, length, rotation_hz, points, pulse_hz)
        longest = not candidates
        for seed in seeds(window):
            whole = _quick_fit(window, seed)
            candidates.append(whole)
            if longest and not rotation_hz:
                candidates += _without_first_layer(window, whole.cycles / window.span_s or seed)
        if rotation_hz and len(candidates) < 4:
            # Growth on a harmonic of the rotation has no separate peak, so the harmonics are tried as well.
            harmonics_hz = (k * rotation_hz for k in range(1, 11))
            candidates += [_quick_fit(window, hz) for hz in harmonics_hz if 2.0 < hz * window.span_s < 100.0]
        length /= 2.0 if rotation_hz else 1.6
        if length < shortest:
            break
    determined_fits = [a for a in candidates if a.determined]
    if determined_fits:
        quick = max(determined_fits, key=lambda a: a.r2 * min(a.cycles, 4.0) ** 0.5)
        full = fit_window(t, y, float(quick.rate), rotation_hz, pulse_hz=pulse_hz)
        if full.determined and full.r2 > quick.r2 - 0.05:
            return full
        return fit_window(t, y, float(quick.rate), rotation_hz, quick.span_s, pulse_hz=pulse_hz)
    return max(candidates, key=lambda a: (a.r2 > 0.5, a.span_s), default=undetermined_oscillation(TOO_SHORT))


def _without_first_layer(window: Window, hz: float) -> list[Oscillation]:
    """Return the fit of a window without its first half or whole period: none if too little would remain.

    The first layer can change the intensity much more than the oscillations after it.
    """
    cycles = window.span_s * hz
    if cycles <= LATE_CYCLES:
        return []
    return [_quick_fit(window.without_first((1.0 if cycles > LATE_CYCLES + 1.0 else 0.5) / hz), hz)]


def seeds(window: Window, count: int = 2) -> list[float]:
    """Return candidate frequencies in Hz: spectral peaks of the detrended trace with 0.9 to 12 cycles in the window.

    Under rotation up to 100 cycles are allowed. The peak position is refined by a log-parabola.
    """
    t = window.t
    if len(t) < 12 or not window.span_s > 0:
        return []
    grid = np.linspace(t[0], t[-1], len(t))
    flat = np.interp(grid, t, varpro.detrended(t, window.y, 2, window.nuisance))
    spectrum = np.abs(np.fft.rfft(flat * np.hanning(len(t) + 2)[1:-1], 4 * len(t)))
    hz = np.fft.rfftfreq(4 * len(t), grid[1] - grid[0])
    cycles = hz * (t[-1] - t[0])
    inner = np.flatnonzero((spectrum[1:-1] >= spectrum[:-2]) & (spectrum[1:-1] > spectrum[2:])) + 1
    inner = inner[(cycles[inner] > 0.9) & (cycles[inner] < (100.0 if window.rotation_hz else 12.0))]
    best = inner[np.argsort(spectrum[inner])[::-1][:count]]
    return [_log_parabola(hz, spectrum, int(k)) for k in best]


def _log_parabola(hz: F64, spectrum: F64, k: int) -> float:
    a, b, c = np.log(spectrum[k - 1 : k + 2] + 1e-300)
    curvature = a - 2 * b + c
    shift = 0.5 * (a - c) / curvature if curvature < 0 else 0.0
    return float(hz[k] + shift * (hz[1] - hz[0]))


def _quick_fit(window: Window, seed_hz: float) -> Oscillation:
    """Fit one model, to compare windows."""
    # Without damping, growth on a harmonic of the rotation equals that harmonic and the fit has no gradient.
    decay = 0.08 * seed_hz if window.rotation_hz else 0.0
    found = varpro.fit(window.t, window.y, seed_hz, MODELS_WITH_HARMONIC[0], decay, window.nuisance)
    return combine_fits(window, [found] if found else [])


def fit_window(
    t: F64,
    y: F64,
    near_hz: float,
    rotation_hz: float = 0.0,
    length_s: float | None = None,
    change: Change = "unknown",
    pulse_hz: float = 0.0,
) -> Oscillation:
    """Fit all models near a known frequency, with several window starts, over the last 8 periods or ``length_s``.

    A rate that has changed makes a long window disagree with the shorter ones at its end. The longest window that
    agrees with all shorter ones within their uncertainties is used (O. V. Lepski, Theory Probab. Appl. 35, 454
    (1991)); they are not computed if no ``change`` was seen and the long window shows none. Under rotation the window
    is 12 periods and at least three turns long, and is not shortened.
    """
    length = length_s or (STEADY_CYCLES if change == "none" else MAX_CYCLES) / near_hz
    if rotation_hz and length_s is None:
        length = max(1.5 * length, 3.0 / rotation_hz)
    length = min(length, float(t[-1] - t[0]))
    odds = KNOWN_DRIFT_ODDS if change == "drift" else DRIFT_ODDS
    result = _fit_models(t, y, near_hz, rotation_hz, length, odds, pulse_hz)
    is_steady = change == "none" and result.best is not None and not result.best.model.drifts
    if rotation_hz or length * near_hz < 1.25 * SHORT_WINDOWS[0] or is_steady:
        return result
    hz = float(result.rate) if result.determined else near_hz
    shorter: list[tuple[float, Estimate]] = []
    for cycles in SHORT_WINDOWS:
        if cycles * 1.25 < length * hz:
            estimate = _quick_estimate(t, y, hz, cycles / hz, odds)
            if estimate is not None:
                shorter.append((cycles / hz, estimate))
    while not (result.determined and _agrees(float(result.rate), shorter)) and shorter:
        length, estimate = shorter.pop()
        fitted = _fit_models(t, y, estimate.rate, 0.0, length, odds, pulse_hz)
        if fitted.determined or not result.determined:
            result = fitted if fitted.determined else result
    return result


def _agrees(rate: float, shorter: list[tuple[float, Estimate]]) -> bool:
    return all(
        abs(rate - e.rate) < MAX_DISAGREEMENT * math.sqrt(e.variance) + MODEL_ERROR * rate for _, e in shorter
    )


def _quick_estimate(t: F64, y: F64, near_hz: float, length_s: float, odds: float) -> Estimate | None:
    """Return the rate of a shorter window from the models with second harmonic."""
    window = cut_window(t, y, length_s)
    with_drift = length_s * near_hz >= 0.98 * DRIFT_CYCLES
    models = (*MODELS_WITH_HARMONIC, *MODELS_WITH_DRIFT[: int(with_drift)])
    fits = [varpro.fit(window.t, window.y, near_hz, model) for model in models]
    good = [fit for fit in fits if fit is not None and fit.r2 > 0.5]
    return estimated(window, good, odds) if good else None


def _fit_models(
    t: F64, y: F64, near_hz: float, rotation_hz: float, length: float, odds: float, pulse_hz: float
) -> Oscillation:
    points = _fit_points(near_hz, length, rotation_hz)
    window = cut_window(t, y, length, rotation_hz, points, pulse_hz)
    found: list[varpro.Fit] = []
    decay = 0.08 * near_hz if rotation_hz else 0.0
    for cut in _start_cuts(window.t, near_hz):
        part = window.without_first(cut) if cut else window
        for model in MODELS_WITH_HARMONIC if cut else (*MODELS_WITH_HARMONIC, *MODELS_WITHOUT_HARMONIC):
            one = varpro.fit(part.t, part.y, near_hz, model, decay, part.nuisance)
            if one:
                found.append(one)
                near_hz, decay = one.frequency, one.decay  # start of the next fit
    if not rotation_hz and window.span_s * near_hz >= 0.98 * DRIFT_CYCLES:
        for model in MODELS_WITH_DRIFT:
            one = varpro.fit(window.t, window.y, near_hz, model, decay)
            if one:
                found.append(one)
    lasting = [fit for fit in found if abs(fit.decay) < TRANSIENT_DECAY * fit.frequency]
    return combine_fits(window, lasting or found, odds)


def _fit_points(hz: float, length_s: float, rotation_hz: float) -> int:
    return rotation_points(hz, length_s) if rotation_hz else MAX_POINTS


def rest_before_onset(t: F64, y: F64, hz: float, rotation_hz: float = 0.0) -> float:
    """Return the time in s from the start of the trace to the onset of the oscillation, in quarter periods.

    Without the part in which nothing grew, the residual of a fit is much smaller; without a part of the growth it
    hardly changes. Returns 0 if the oscillation begins at once.
    """
    length = float(t[-1] - t[0])
    y = np.log(np.clip(y, 1e-12, None)) if rotation_hz else y
    window = cut_window(t, y, length, rotation_hz, _fit_points(hz, length, rotation_hz))

    def residual_rms(quarters: int) -> float:
        part = window.without_first(0.25 * quarters / hz) if quarters else window
        if part.span_s * hz < MIN_CYCLES:
            return math.inf
        one = varpro.fit(part.t, part.y, hz, MODELS_WITH_HARMONIC[0], 0.05 * hz, part.nuisance)
        return one.rms if one else math.inf

    whole = residual_rms(0)
    if not min(residual_rms(2), residual_rms(4)) <= ONSET_RMS_RATIO * whole:
        return 0.0
    rms = np.array([whole, *(residual_rms(k) for k in range(1, 9))])
    if not np.isfinite(rms.min()):
        return 0.0
    rest_s = 0.25 * int(np.flatnonzero(rms < 1.25 * rms.min())[0]) / hz
    return rest_s if rotation_hz or _is_at_rest(window, rest_s, hz) else 0.0


def extends_to_start(t: F64, y: F64, rate: Measurement, rotation_hz: float) -> bool:
    """Return True if an oscillation fitted at the end of a trace under rotation goes through the whole trace."""
    whole = fit_window(t, np.log(np.clip(y, 1e-12, None)), float(rate), rotation_hz, float(t[-1] - t[0]))
    if not whole.determined:
        return False
    return abs(float(whole.rate) - float(rate)) < 3.0 * math.hypot(whole.rate.sigma or 0.0, rate.sigma or 0.0)


def _is_at_rest(window: Window, rest_s: float, hz: float) -> bool:
    """Return True if the first ``rest_s`` scatter much less than the oscillation (damped growth also shifts fits)."""
    since = window.t - window.t[0]
    before, after = window.y[since < rest_s], window.y[(since >= rest_s) & (since < rest_s + 1.0 / hz)]
    return bool(len(before) and len(after) and np.std(before) < REST_SCATTER_RATIO * np.std(after))


def _start_cuts(t: F64, near_hz: float) -> list[float]:
    """Return how many seconds to cut off the window's start: possible onsets of the growth."""
    cycles = float(t[-1] - t[0]) * near_hz
    if cycles < 2.0:
        return [0.0, 0.12 / near_hz]
    return [0.0, 0.25 / near_hz, 0.5 / near_hz, *([1.0 / near_hz] if cycles > LATE_CYCLES + 1.0 else [])]
