"""Amplitude spectrum of a trace, for display: which frequencies a trace contains, and how strong they are.

The growth rate does not come from it: :mod:`atomstream.analysis.growth` fits the trace itself. Scaling of amplitudes
with a window: G. Heinzel, A. Rüdiger & R. Schilling, "Spectrum and spectral density estimation by the DFT" (2002).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from atomstream.results import F64

LEAST_VALUES: Final = 32
"""Fewest values for a spectrum."""
MOST_VALUES: Final = 1 << 15
LEAST_KNOWN: Final = 0.7
"""Least share of the range that must have values; gaps are bridged by straight lines."""
_FINER: Final = 4
"""Oversampling by zero padding: number of frequencies per independent one, so that peaks are drawn smoothly."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """``frequency_hz`` (F,) from 0 on, ``amplitude`` (F,) in the unit of the trace: a sine of amplitude A shows A.

    Two sines are distinguished if they differ by 1.5 ``resolution_hz``, which is one over the length in s.
    """

    frequency_hz: F64
    amplitude: F64
    resolution_hz: float


def amplitude_spectrum(times_s: F64, values: F64, averaged_s: float = 0.0) -> Spectrum | str:
    """Return the spectrum of ``values`` (N,; NaN: missing) at ascending ``times_s`` (N,), or a sentence why there is
    none.

    The straight line through the trace is removed, and a Hann window applied. Each value is the mean over
    ``averaged_s`` (s), which weakens fast oscillations; the amplitudes are corrected for it.
    """
    known = np.isfinite(times_s) & np.isfinite(values)
    times, trace = times_s[known], values[known]
    if len(trace) < LEAST_VALUES:
        return f"{len(trace)} values are too few; it takes {LEAST_VALUES}"
    steps = np.diff(times)
    step = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 0.0
    length = float(times[-1] - times[0])
    if not step > 0 or not length > 0:
        return "the values have no times"
    count = round(length / step) + 1
    if count > 2 * MOST_VALUES or len(trace) < LEAST_KNOWN * count:
        return f"{100.0 * max(0.0, 1.0 - len(trace) / count):.0f} % of the values in this range are missing"
    even = np.interp(times[0] + step * np.arange(count), times, trace)
    place = np.linspace(-1.0, 1.0, count)
    even = even - np.polynomial.Polynomial.fit(place, even, 1)(place)
    window = np.hanning(count + 2)[1:-1]
    padded = 1 << math.ceil(math.log2(_FINER * count))
    amplitude = 2.0 * np.abs(np.fft.rfft(even * window, padded)) / window.sum()
    frequency = np.fft.rfftfreq(padded, step)
    return Spectrum(frequency, amplitude / np.sinc(frequency * averaged_s), 1.0 / (step * count))


def reduced(spectrum: Spectrum, points: int) -> Spectrum:
    """Reduce a spectrum to at most ``points`` frequencies: of each group of neighbours the one with the highest
    amplitude."""
    size = -(-len(spectrum.frequency_hz) // points)
    if size <= 1:
        return spectrum
    rows = -(-len(spectrum.amplitude) // size)
    whole = np.full(rows * size, -1.0)
    whole[: len(spectrum.amplitude)] = spectrum.amplitude
    best = np.argmax(whole.reshape(rows, size), axis=1) + size * np.arange(rows)
    return Spectrum(spectrum.frequency_hz[best], spectrum.amplitude[best], spectrum.resolution_hz)
