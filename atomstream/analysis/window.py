"""The part of a trace that a fit works on: thinned to few points, with the rotation's harmonics to project out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import signal

from atomstream.analysis.arrays import F64

MAX_POINTS = 240
"""Points a fit works on: 30 a period over the longest window; more cost time and tell nothing."""

ROTATION_POINTS = 800
SAMPLES_A_PERIOD = 12.0
"""Of an oscillation beside the rotation: its second harmonic passes, what is faster is filtered out."""

HARMONICS = 32


@dataclass(frozen=True, slots=True)
class Window:
    """Samples (t, y), each (N,), and the orthonormal ``nuisance`` columns (N, M) of the rotation, or None."""

    t: F64
    y: F64
    nuisance: F64 | None = None
    rotation_hz: float = 0.0

    @property
    def span_s(self) -> float:
        """Length in s."""
        return float(self.t[-1] - self.t[0])

    def after(self, seconds: float) -> Window:
        """Return the window without its first ``seconds``."""
        keep = self.t >= self.t[0] + seconds
        t = self.t[keep]
        return Window(t, self.y[keep], harmonics(t, self.rotation_hz), self.rotation_hz)


def cut_window(t: F64, y: F64, length_s: float, rotation_hz: float = 0.0, points: int = MAX_POINTS) -> Window:
    """Take the last ``length_s`` of a trace without NaN, thinned to about ``points`` samples.

    Under rotation, :func:`rotation_points` says how many a fit needs.
    """
    part = t >= t[-1] - length_s
    t, y = t[part], y[part]
    if rotation_hz <= 0:
        return Window(*thinned(t, y, points))
    t, y = _lowpassed(t, y, points)
    return Window(t, y, harmonics(t, rotation_hz), rotation_hz)


def rotation_points(hz: float, length_s: float) -> int:
    """Samples for a fit of an oscillation of about ``hz`` over ``length_s`` while the substrate turns."""
    return round(min(ROTATION_POINTS, max(MAX_POINTS, SAMPLES_A_PERIOD * hz * length_s)))


def thinned(t: F64, y: F64, points: int = MAX_POINTS) -> tuple[F64, F64]:
    """Average within equal time bins, so that at most ``points`` samples are left; empty bins are left out."""
    if len(t) <= points:
        return t, y
    place = np.minimum((points * (t - t[0]) / (t[-1] - t[0])).astype(np.intp), points - 1)
    count = np.bincount(place, minlength=points)
    full = count > 0
    mean_t = np.bincount(place, t, points)[full] / count[full]
    return mean_t, np.bincount(place, y, points)[full] / count[full]


def _lowpassed(t: F64, y: F64, points: int) -> tuple[F64, F64]:
    """Decimate through an FIR: averaging alone would alias the strong rotation harmonics into the growth band."""
    step = float(np.median(np.diff(t)))
    grid = np.arange(t[0], t[-1], step)
    even = np.interp(grid, t, y)
    factor = math.ceil(len(grid) / points)
    if factor <= 1:
        return grid, even
    taps = signal.firwin(8 * factor + 1, 0.8 / factor, window="hann")
    half = len(taps) // 2
    smooth = np.convolve(even, taps, mode="valid")
    return grid[half : len(grid) - half : factor][: len(smooth[::factor])], smooth[::factor]


def harmonics(t: F64, rotation_hz: float) -> F64 | None:
    """Orthonormal columns spanning the rotation's harmonics 1..32 below the Nyquist frequency, or None at rest."""
    if rotation_hz <= 0 or len(t) < 16:
        return None
    nyquist = 0.5 * (len(t) - 1) / float(t[-1] - t[0])
    count = min(HARMONICS, int(0.9 * nyquist / rotation_hz), len(t) // 6)
    if count < 1:
        return None
    angle = 2.0 * math.pi * rotation_hz * np.outer(t - t[0], np.arange(1, count + 1))
    q, r = np.linalg.qr(np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    kept: F64 = q[:, np.abs(np.diag(r)) > 1e-3 * math.sqrt(len(t))]
    return kept
