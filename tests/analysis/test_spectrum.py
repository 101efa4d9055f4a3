"""Amplitude spectra of traces: a sine of amplitude A is shown as A at its frequency, whatever the sampling."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis.spectrum import Spectrum, amplitude_spectrum, reduced


def highest(spectrum: Spectrum | str, above_hz: float = 0.0) -> tuple[float, float]:
    """Frequency and amplitude of the highest peak."""
    assert isinstance(spectrum, Spectrum)
    inside = np.flatnonzero(spectrum.frequency_hz > above_hz)
    best = inside[np.argmax(spectrum.amplitude[inside])]
    return float(spectrum.frequency_hz[best]), float(spectrum.amplitude[best])


@pytest.mark.parametrize(
    ("fps", "seconds", "hz"), [(120.0, 30.0, 0.4137), (20.0, 11.0, 1.6), (8.0, 40.0, 3.3)]
)
def test_a_sine_has_its_amplitude(fps: float, seconds: float, hz: float) -> None:
    """Over a slope and a constant a thousand times larger, in frequencies that are not a multiple of the resolution."""
    t = np.arange(round(fps * seconds)) / fps
    found = amplitude_spectrum(t + 1234.5, 5000.0 + 20.0 * t + 5.0 * np.sin(2 * np.pi * hz * t + 0.7))
    where, height = highest(found, above_hz=2.0 / seconds)
    assert where == pytest.approx(hz, abs=0.3 / seconds)
    assert height == pytest.approx(5.0, rel=0.03)
    assert isinstance(found, Spectrum)
    assert found.resolution_hz == pytest.approx(1.0 / seconds, rel=0.02)


def test_means_are_corrected() -> None:
    """Values that are means over some frames show the amplitude of the trace, not that of the means."""
    t = np.arange(4000) / 100.0
    trace = np.sin(2 * np.pi * 2.13 * t)
    means, times = trace.reshape(-1, 20).mean(axis=1), t.reshape(-1, 20).mean(axis=1)
    _, weakened = highest(amplitude_spectrum(times, means), 1.0)
    _, corrected = highest(amplitude_spectrum(times, means, averaged_s=0.2), 1.0)
    assert weakened < 0.75
    assert corrected == pytest.approx(1.0, rel=0.05)


def test_gaps_are_bridged_or_named() -> None:
    """A tenth of missing frames changes little; where half is missing there is a reason instead of a spectrum."""
    rng = np.random.default_rng(4)
    t = np.arange(2000) / 50.0
    trace = np.sin(2 * np.pi * 0.7 * t)
    holes = trace.copy()
    holes[rng.random(len(t)) < 0.1] = np.nan
    assert highest(amplitude_spectrum(t, holes)) == pytest.approx((0.7, 1.0), rel=0.03)
    half = np.where((t > 10.0) & (t < 32.0), np.nan, trace)
    assert amplitude_spectrum(t, half) == "55 % of the values in this range are missing"
    assert amplitude_spectrum(t[:20], trace[:20]) == "20 values are too few; it takes 32"
    assert "too few" in str(amplitude_spectrum(t, np.full(len(t), np.nan)))
    assert amplitude_spectrum(np.zeros(100), np.ones(100)) == "the values have no times"
    # A clock that jumped by days: no grid of billions of points.
    jumped = np.concatenate([t, t + 1e9])
    assert "missing" in str(amplitude_spectrum(jumped, np.concatenate([trace, trace])))


def test_a_reduced_spectrum_keeps_its_peaks() -> None:
    """Each group of frequencies is shown by its highest one."""
    t = np.arange(30_000) / 120.0
    found = amplitude_spectrum(t, np.sin(2 * np.pi * 0.5137 * t) + 0.1 * np.sin(2 * np.pi * 17.2 * t))
    assert isinstance(found, Spectrum)
    small = reduced(found, 500)
    assert len(small.frequency_hz) <= 500
    assert highest(small) == highest(found)
    assert highest(small, 10.0) == highest(found, 10.0)
    assert np.all(np.diff(small.frequency_hz) > 0)
