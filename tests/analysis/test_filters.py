"""Our filters and our search for maxima give the results of ``scipy.signal``, and nothing imports that module."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from atomstream.analysis.filters import exponential_mean, lowpass_taps, without_line
from atomstream.analysis.maxima import find_maxima
from tests.scripts import run_python


@pytest.mark.parametrize("factor", [2, 3, 7, 40])
def test_low_pass_filters(factor: int) -> None:
    """The coefficients are those of ``firwin`` with a Hann window."""
    expected = signal.firwin(16 * factor + 1, 0.8 / factor, window="hann")
    np.testing.assert_allclose(lowpass_taps(16 * factor + 1, 0.8 / factor), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.75, 1.0])
def test_exponential_means(gain: float) -> None:
    """Exponential means equal those of ``scipy.signal.lfilter`` with the initial state 0."""
    y = np.random.default_rng(3).normal(size=300)
    expected, _ = signal.lfilter([gain], [1.0, gain - 1.0], y, zi=[0.0])
    np.testing.assert_allclose(exponential_mean(y, gain), expected, rtol=1e-13, atol=1e-15)
    assert len(exponential_mean(y[:0], gain)) == 0


def test_straight_lines() -> None:
    """Each column loses its own line."""
    samples = np.random.default_rng(4).normal(size=(40, 3)) + np.arange(40)[:, None] * [0.0, 1.0, -3.0]
    np.testing.assert_allclose(without_line(samples), signal.detrend(samples, axis=0), atol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_maxima(seed: int) -> None:
    """Places and prominences are those of ``find_peaks``, flat tops and equal heights included."""
    rng = np.random.default_rng(seed)
    y = rng.normal(size=rng.integers(0, 400)).cumsum()
    y = np.round(y) if seed % 3 == 0 else y
    for distance, least in ((1, 0.0), (3, 0.5), (4, 2.0), (9, 0.1)):
        expected, found = signal.find_peaks(y, prominence=least, distance=distance)
        places, prominences = find_maxima(y, least, distance)
        np.testing.assert_array_equal(places, expected)
        np.testing.assert_array_equal(prominences, found["prominences"])


@pytest.mark.parametrize(
    "y", [[], [1.0], [2.0, 2.0, 2.0], [1.0, 2.0], [3.0, 1.0, 3.0], [np.nan, 1.0, 0.0, 1.0]]
)
def test_profiles_without_maxima(y: list[float]) -> None:
    """Empty, flat and monotonic profiles and pure valleys have none."""
    places, prominences = find_maxima(np.array(y), 0.0, 3)
    assert len(places) == len(prominences) == 0


def test_no_analysis_process_imports_scipy_signal() -> None:
    """Workers do not import ``scipy.signal``, whose import would take most of their start."""
    done = run_python(
        "-c", "import sys, atomstream.server.live.worker as w; print('scipy.signal' in sys.modules)"
    )
    assert done.stdout.strip() == "False", done.stderr
