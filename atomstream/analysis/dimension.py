"""Two- or three-dimensional growth: streaks are long and even along y, transmission spots short and repeated.

The profile along a streak is divided by its own envelope; its autocorrelation then shows the repeat of the spots.
A plain FFT band ratio fails, for the envelope's edge fills the same band.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from scipy import ndimage, signal

from atomstream.analysis.arrays import F64, Int
from atomstream.analysis.values import Value, measured, undetermined


def streak_aspect(column: F64, at: float, fwhm_x: float) -> float:
    """FWHM along y of a streak's profile (H,) at row ``at``, over its FWHM along x."""
    row = min(len(column) - 1, max(0, round(at)))
    window = slice(max(0, row - 8), row + 9)
    row = window.start + int(np.argmax(column[window]))
    floor = float(np.percentile(column, 10))
    below = column < 0.5 * (column[row] + floor)
    above, under = np.flatnonzero(below[:row]), np.flatnonzero(below[row:])
    first = int(above[-1]) if len(above) else 0
    last = row + int(under[0]) if len(under) else len(column) - 1
    return max(1, last - first - 1) / max(fwhm_x, 1.0)


def spottiness(column: F64, noise: float) -> Value:
    """How much a streak's profile (H,) along y, less its background, breaks up into repeated spots: 0-1.

    0: one smooth streak; towards 1: separate spots. ``noise`` is that of one sample.
    """
    peak = float(column.max()) if len(column) else 0.0
    if len(column) < 32 or peak < 8.0 * noise:
        return undetermined("the streaks are too weak or too short to judge", "1")
    rows = np.flatnonzero(column > max(0.08 * peak, 4.0 * noise))
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first < 16:
        return undetermined("the streaks are too short to judge", "1")
    part = ndimage.gaussian_filter1d(column[first:last], 1.5)
    tops, _ = signal.find_peaks(part, prominence=max(4.0 * noise, 0.04 * peak), distance=4)
    if len(tops) < 2:
        return measured(0.0, _error(noise, peak), "1")
    return measured(_repeat(part, tops), _error(noise, float(part[tops].min())), "1")


def _repeat(part: F64, tops: Int) -> float:
    """Depth of the valleys between the tops, weighted by how well the profile repeats at their distance."""
    between = part[tops[0] : tops[-1] + 1]
    even = between / np.interp(np.arange(len(between)), tops - tops[0], part[tops])
    valleys = [float(even[a - tops[0] : b - tops[0]].min()) for a, b in pairwise(tops)]
    depth = 1.0 - float(np.median(valleys))
    lag = round(float(np.median(np.diff(tops))))
    first, last = max(0, tops[0] - lag // 2), min(len(part), tops[-1] + lag // 2 + 1)
    places = np.arange(first, last)
    whole = part[first:last] / np.interp(places, tops, part[tops])
    a, b = whole[:-lag] - whole[:-lag].mean(), whole[lag:] - whole[lag:].mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    repeats = float(a @ b) / norm if norm > 0 else 0.0
    return float(np.clip(depth, 0.0, 1.0)) * math.sqrt(max(0.0, repeats))


def _error(noise: float, height: float) -> float:
    return min(1.0, noise / max(height, 1e-9))
