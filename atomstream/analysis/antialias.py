"""From the frame rate to a slow trace: a Hann-windowed FIR low-pass with decimation, frame by frame or in blocks.

A boxcar let mains hum at 59.3 Hz alias into the growth band; this filter has its stop band where the decimated
rate folds (Oppenheim & Schafer, Discrete-Time Signal Processing, ch. 4 and 7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy import signal

from atomstream.analysis.arrays import F64

SLOW_RATE_HZ = 20.0
"""Rate of slow traces: growth to 5 layers a second, with its second harmonic, fits below half of it."""


def decimation_for(fps: float, rate_hz: float = SLOW_RATE_HZ) -> int:
    """How many frames make one slow sample (1 for cameras slower than 1.5 times ``rate_hz``)."""
    return max(1, round(fps / rate_hz))


@lru_cache(maxsize=32)
def taps_for(decimation: int) -> F64:
    """FIR coefficients for a decimation: at least 49 taps, unit gain at rest; [1.0] for no decimation."""
    if decimation == 1:
        return np.ones(1)
    count = max(49, 8 * decimation + 1)
    taps: F64 = signal.firwin(count, 0.8 / decimation, window="hann")
    return taps


@dataclass(slots=True)
class Decimator:
    """Streaming low-pass and decimation of one trace; NaN samples (gaps) are left out with their weights.

    ``times``, ``values`` and ``numbers`` (of the frames) are the history still needed (fewer than the taps); slow
    samples are group-delay corrected: they carry time and number of the middle of the frames they are made of.
    """

    decimation: int
    times: F64 = field(default_factory=lambda: np.empty(0))
    values: F64 = field(default_factory=lambda: np.empty(0))
    numbers: F64 = field(default_factory=lambda: np.empty(0))

    def feed(self, times: F64, values: F64, numbers: F64) -> tuple[F64, F64, F64]:
        """Add samples of one trace; return the slow samples (time, value, number) now complete (may be none)."""
        taps = taps_for(self.decimation)
        t, y = np.concatenate([self.times, times]), np.concatenate([self.values, values])
        n = np.concatenate([self.numbers, numbers])
        count = (len(t) - len(taps)) // self.decimation + 1
        if count <= 0:
            self.times, self.values, self.numbers = t, y, n
            return np.empty(0), np.empty(0), np.empty(0)
        windows = np.lib.stride_tricks.sliding_window_view(y, len(taps))[:: self.decimation][:count]
        middle = len(taps) // 2 + self.decimation * np.arange(count)
        keep = count * self.decimation
        self.times, self.values, self.numbers = t[keep:], y[keep:], n[keep:]
        return t[middle], _weighted(windows, taps), n[middle]


def _weighted(windows: F64, taps: F64) -> F64:
    """FIR over windows, renormalised where samples are missing; NaN where under half the weight is left."""
    valid = np.isfinite(windows)
    if valid.all():
        plain: F64 = windows @ taps
        return plain
    weight = valid @ taps
    total = np.where(valid, windows, 0.0) @ taps
    return np.where(weight > 0.5, total / np.where(weight > 0.5, weight, 1.0), np.nan)
