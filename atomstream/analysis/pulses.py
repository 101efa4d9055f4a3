"""Pulsed laser deposition: each pulse combs the trace at the pulse rate; find that rate and notch it out.

A running mean of exactly one pulse period has its zeros at the pulse rate and all its harmonics.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from atomstream.analysis.arrays import F64, Int

MIN_PULSES = 6
MIN_LINE = 3.5
"""Each of the first five harmonics has to stand this far out of the local floor (noise alone: 1 in 2000 bins)."""
COMB_TO_FUNDAMENTAL = 0.8
"""Harmonics 2-5 over the first: narrow dips reach 2 and more, the cusps of layer growth 0.46, a sinusoid 0."""


def find_pulse_rate(t: F64, y: F64) -> float | None:
    """Pulse rate in Hz of a uniformly sampled trace, or None where no comb stands out.

    Needs at least 6 pulses in the trace and five harmonics below half the sampling rate.
    """
    n = len(t)
    if n < 64:
        return None
    rate = (n - 1) / float(t[-1] - t[0])
    raw = np.asarray(np.abs(np.fft.rfft(np.diff(y) * np.hanning(n - 1), 2 * n)), dtype=np.float64)
    hz = np.fft.rfftfreq(2 * n, 1.0 / rate)
    # a local floor: camera noise, differentiated, rises with frequency and would bury a slow comb
    spectrum = raw / (ndimage.median_filter(raw, max(31, n // 40)) + 1e-300)
    low, high = MIN_PULSES * rate / n, rate / 12.0
    candidates = np.flatnonzero((hz > low) & (hz < high))
    if len(candidates) == 0:
        return None
    comb = np.stack([_near_max(spectrum, k * candidates) for k in range(1, 6)])
    score = np.log(comb).clip(min=0).sum(axis=0) * (comb.min(axis=0) > MIN_LINE)
    best = _fundamental(candidates, score)
    amplitudes = _near_max(raw, np.arange(1, 6) * candidates[best]) / np.arange(1, 6)  # undo the derivative
    if score[best] <= 0 or amplitudes[1:].sum() < COMB_TO_FUNDAMENTAL * amplitudes[0]:
        return None
    return _refine(hz, spectrum, int(candidates[best]))


def _fundamental(candidates: Int, score: F64) -> int:
    """Place of the lowest rate whose comb is (nearly) as good: a comb's every harmonic is a comb too."""
    best = int(np.argmax(score))
    for divisor in range(12, 1, -1):
        place = round(candidates[best] / divisor) - int(candidates[0])
        near = range(max(0, place - 1), min(len(candidates), place + 2))
        good = [i for i in near if score[i] > 0.6 * score[best]]
        if good:
            return max(good, key=lambda i: float(score[i]))
    return best


def _near_max(spectrum: F64, centres: Int) -> F64:
    """Largest of the bins around each centre: harmonics of an off-bin frequency wander by some bins."""
    padded = np.pad(spectrum, 4)
    stack = [padded[np.clip(centres + 4 + s, 0, len(padded) - 1)] for s in range(-2, 3)]
    result: F64 = np.max(stack, axis=0)
    return result


def _refine(hz: F64, spectrum: F64, k: int) -> float:
    """Sharpen the rate on the highest visible harmonic, whose bin is the finest ruler."""
    base = float(hz[k])
    for harmonic in (1, 3, 5):
        centre = round(base * harmonic / hz[1])
        window = slice(max(1, centre - 3), centre + 4)
        base = float(hz[window.start + int(np.argmax(spectrum[window]))]) / harmonic
    return base


def notch(t: F64, y: F64, pulse_hz: float) -> tuple[F64, F64]:
    """Running mean of one pulse period over a uniformly sampled trace; both ends lose half a period."""
    step = float(t[-1] - t[0]) / (len(t) - 1)
    half = 0.5 / pulse_hz / step
    if 2 * half + 2 >= len(t):
        return t, y
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (y[1:] + y[:-1]))])
    place = np.arange(len(t), dtype=np.float64)
    inside = (place >= half) & (place <= len(t) - 1 - half)
    middle = place[inside]
    upper = np.interp(middle + half, place, integral)
    lower = np.interp(middle - half, place, integral)
    return t[inside], (upper - lower) / (2 * half)
