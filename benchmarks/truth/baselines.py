"""Two simple methods to compare with: the peak of a Fourier transform, and a damped sine fitted by least squares.

Both use the whole trace of the specular intensity up to the time of the check and always give a number.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import optimize

from benchmarks.truth.growth import F64

FASTEST_HZ = 8.0


def _even(t: F64, y: F64) -> tuple[F64, F64]:
    """Return the trace at regular times, without gaps and without its linear trend."""
    good = np.isfinite(t) & np.isfinite(y)
    t, y = t[good], y[good]
    if len(t) < 16 or not t[-1] > t[0] or not np.ptp(y) > 1e-9 * np.max(np.abs(y)):
        return t[:0], y[:0]
    even = np.linspace(t[0], t[-1], len(t))
    flat = np.interp(even, t, y)
    return even, flat - np.polyval(np.polyfit(even - even[0], flat, 1), even - even[0])


def fft_peak(t: F64, y: F64) -> float:
    """Return the frequency (Hz) of the highest peak, refined by a parabola; NaN for a trace without one.

    Frequencies below 1.5 periods in the trace are left out, and those above 8 Hz.
    """
    even, flat = _even(t, y)
    if not len(even):
        return math.nan
    size = 8 * 2 ** math.ceil(math.log2(len(even)))
    power = np.abs(np.fft.rfft(flat * np.hanning(len(flat)), size)) ** 2
    hz = np.fft.rfftfreq(size, (even[-1] - even[0]) / (len(even) - 1))
    use = np.flatnonzero((hz > 1.5 / (even[-1] - even[0])) & (hz < min(FASTEST_HZ, 0.95 * hz[-1])))
    if len(use) < 3:
        return math.nan
    top = int(use[np.argmax(power[use])])
    if not 0 < top < len(power) - 1 or not power[top] > 0:
        return math.nan
    left, mid, right = np.log(power[top - 1 : top + 2] + 1e-300)
    bend = left - 2 * mid + right
    return float(hz[top] + (hz[1] * 0.5 * (left - right) / bend if bend < 0 else 0.0))


def damped_sine(t: F64, y: F64) -> float:
    """Return the frequency (Hz) of a damped sine on a linear trend, begun at the Fourier peak; NaN without a fit."""
    start = fft_peak(t, y)
    good = np.isfinite(t) & np.isfinite(y)
    t, y = t[good], y[good]
    if not math.isfinite(start):
        return math.nan
    if len(t) > 2000:
        t, y = t[:: len(t) // 1000], y[:: len(y) // 1000]
    t = t - t[0]
    scale = float(np.std(y)) or 1.0

    def residual(p: F64) -> F64:
        wave = np.exp(-np.clip(p[1], -1.0, 5.0) * t / t[-1])
        angle = 2 * np.pi * p[0] * t
        design = np.stack([np.ones_like(t), t / t[-1], wave * np.cos(angle), wave * np.sin(angle)], axis=1)
        return np.asarray((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) / scale)

    try:
        found = optimize.least_squares(residual, [start, 0.5], x_scale=[0.2 / t[-1], 0.5], max_nfev=40)
    except (ValueError, np.linalg.LinAlgError):
        return math.nan
    return float(found.x[0])


METHODS = {"fft": fft_peak, "sine": damped_sine}
