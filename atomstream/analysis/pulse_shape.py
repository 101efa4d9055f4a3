"""Likelihood ratio of the two shapes that one period of an oscillation can have: laser pulses, or a smooth wave.

A laser pulse changes the intensity suddenly, then the film relaxes exponentially; the oscillation of growing layers is
a smooth wave. The trace is folded with its period. A train of exponentials and a sinusoid with its second harmonic,
which have about the same number of free parameters, are fitted to the folded period, and their residuals compared. This
also recognises pulses that are so weak that no single one of them is seen in the noise.
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.analysis.filters import running_mean
from atomstream.analysis.varpro import correlation_time
from atomstream.results import F64, Int

BINS = 48
"""Bins of a folded period."""

RELAXATIONS = (0.08, 0.16, 0.3, 0.6, 1.2)
"""Time constants, in periods, with which the light may relax after a pulse."""

REACH, REACH_CYCLES = 0.03, 0.4
"""Largest error of a fitted rate, as a share of it and in cycles over the trace; the larger one counts. Both shapes are
fitted at all rates in this range: weak pulses on a large slow change give a fit a rate that is a little wrong, which
smears the fold."""

PHASE_STEP = 0.05
"""Step of the tried rates, in cycles over the trace."""

FLAT = 1e-9
"""Smallest range of a trace that is not constant, as a share of its largest value."""

MIN_SAMPLES = 20
"""Fewest samples that are compared."""

_PLACES = (np.arange(BINS) + 0.5) / BINS
_SMOOTH = np.stack(
    [np.ones(BINS), *(f(2.0 * np.pi * k * _PLACES) for k in (1, 2) for f in (np.cos, np.sin))], axis=1
)
_PULSES = np.array([np.roll(np.exp(-_PLACES / lag), start) for lag in RELAXATIONS for start in range(BINS)])
"""All pulses that are tried, one per row: each relaxation at each phase."""


def pulse_evidence(t: F64, y: F64, hz: float) -> tuple[float, float]:
    """Return the logarithm of the likelihood ratio of pulses and a smooth wave in a trace t (s), y (N,) without NaN.

    It is positive if the trace looks more like pulses, and -inf if it cannot be judged. The second value is the rate of
    the pulses in Hz, near ``hz``.
    """
    if len(t) < MIN_SAMPLES or not hz * float(t[-1] - t[0]) > 1.0:
        return -math.inf, hz
    scale = float(np.abs(y).max())
    if not 0.0 < scale < math.inf:
        return -math.inf, hz
    middle, mean = running_mean(t, y / scale, 1.0 / hz)
    inside = (t >= middle[0]) & (t <= middle[-1])
    t, flat = t[inside], y[inside] / scale - np.interp(t[inside], middle, mean)
    if len(t) < MIN_SAMPLES:
        return -math.inf, hz
    if not float(np.ptp(flat)) > FLAT:
        return -math.inf, hz
    cycles = hz * float(t[-1] - t[0])
    reach = max(REACH, REACH_CYCLES / max(cycles, 1.0))
    steps = math.ceil(reach * cycles / PHASE_STEP)
    rates = [hz * (1.0 + reach * k / steps) for k in range(-steps, steps + 1)]
    folds = [_folded(t, flat, rate) for rate in rates]
    waves = [
        max(((shape(*fold[1:]), fold) for fold in folds), key=_explained) for shape in (_smooth, _pulses)
    ]
    power = float(flat @ flat)
    smooth, pulsed = (power - _explained(wave) for wave in waves)
    if not min(smooth, pulsed) > 0.0:
        return -math.inf, hz
    shape, fold = waves[int(pulsed < smooth)]
    correlated = correlation_time(flat - shape[fold[0]])
    rate = next(rate for rate, one in zip(rates, folds, strict=True) if one is waves[1][1])
    return 0.5 * len(t) / correlated * math.log(smooth / pulsed), rate


def _folded(t: F64, flat: F64, hz: float) -> tuple[Int, F64, F64]:
    """Return the bin of each sample (N,), and the number and mean of the samples in each bin."""
    bins = np.minimum(((t - t[0]) * hz % 1.0 * BINS).astype(np.intp), BINS - 1)
    counts = np.bincount(bins, minlength=BINS).astype(np.float64)
    return bins, counts, np.bincount(bins, flat, BINS) / np.maximum(counts, 1.0)


def _explained(wave: tuple[F64, tuple[Int, F64, F64]]) -> float:
    """Return the sum of squares of the samples that a shape (bins,), fitted to their folded wave, explains."""
    shape, (_, counts, _) = wave
    return float(counts @ shape**2)


def _smooth(counts: F64, wave: F64) -> F64:
    """Return the sinusoid with its second harmonic that agrees best with a folded wave."""
    weights = np.sqrt(counts)
    result: F64 = _SMOOTH @ np.linalg.lstsq(_SMOOTH * weights[:, None], wave * weights, rcond=1e-9)[0]
    return result


def _pulses(counts: F64, wave: F64) -> F64:
    """Return the pulses, of any phase and relaxation, that agree best with a folded wave."""
    shapes = _PULSES - (_PULSES @ counts / counts.sum())[:, None]
    level = float(counts @ wave / counts.sum())
    along, power = (shapes * counts) @ (wave - level), (shapes * shapes) @ counts
    best = int(np.argmax(along**2 / np.maximum(power, 1e-300)))
    result: F64 = level + along[best] / max(float(power[best]), 1e-300) * shapes[best]
    return result
