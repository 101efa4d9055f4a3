"""Small linear filters: a low-pass filter's coefficients, exponential smoothing, subtraction of a line, running mean.

The others equal ``firwin``, ``lfilter`` and ``detrend`` of ``scipy.signal``, whose import takes a second of processor
time and 30 MB in each analysis process, because it imports ``scipy.stats``.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from atomstream.results import F64


def lowpass_taps(count: int, cutoff: float) -> F64:
    """Return the ``count`` coefficients of a windowed-sinc low-pass filter (Hann window) of unit gain at 0 Hz.

    ``cutoff`` is relative to half of the sample rate, 0 to 1. The first and the last coefficient are 0.
    """
    places = np.arange(count) - 0.5 * (count - 1)
    taps = np.sinc(cutoff * places) * np.hanning(count)
    scaled: F64 = taps / taps.sum()
    return scaled


def exponential_mean(y: F64, gain: float) -> F64:
    """Return the exponential means m_k = gain y_k + (1 - gain) m_(k-1) of samples (N,), from m_(-1) = 0 on.

    ``gain`` is 0 to 1. The recursion is a bidiagonal system of equations, which LAPACK solves by the same steps.
    """
    if not len(y):
        return y
    bands = np.ones((2, len(y)))
    bands[1] = gain - 1.0
    means: F64 = lapack.dtbtrs(bands, (gain * y)[:, None], uplo="L")[0][:, 0]
    return means


def without_line(samples: F64) -> F64:
    """Return samples (N, M), N >= 2, each column without its least-squares straight line."""
    x = np.arange(len(samples)) - 0.5 * (len(samples) - 1)
    flat = samples - samples.mean(axis=0)
    result: F64 = flat - np.outer(x, (x @ flat) / (x @ x))
    return result


def running_mean(t: F64, y: F64, width: float) -> tuple[F64, F64]:
    """Return the running mean over ``width`` (s) of a trace at its inner times."""
    integral = np.concatenate([[0.0], np.cumsum(0.5 * (y[1:] + y[:-1]) * np.diff(t))])
    inner = t[(t >= t[0] + 0.5 * width) & (t <= t[-1] - 0.5 * width)]
    if len(inner) == 0:
        return t[:1], np.array([y.mean()])
    upper, lower = (np.interp(inner + s * width, t, integral) for s in (0.5, -0.5))
    return inner, (upper - lower) / width
