"""Peaks of a line profile with their fits: position, width and height of known streaks."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis.profile_peaks import MOST_PEAKS, fit_peaks

X = np.arange(320.0)


def gaussian(centre: float, fwhm: float, height: float) -> np.ndarray:
    """A streak on X."""
    return np.asarray(height * np.exp(-4 * np.log(2) * ((X - centre) / fwhm) ** 2))


def test_streaks_are_fitted() -> None:
    """Three streaks of different heights over a slope with noise: each with its errors, and a curve that follows it."""
    rng = np.random.default_rng(2)
    true = [(112.3, 9.0, 40.0), (160.7, 7.0, 120.0), (209.1, 9.0, 35.0)]
    profile = 20 + 0.02 * X + sum(gaussian(*one) for one in true) + rng.normal(0.0, 0.5, len(X))
    fits = fit_peaks(profile)
    assert len(fits) == 3
    for fit, (centre, fwhm, height) in zip(fits, true, strict=True):
        assert fit.centre == pytest.approx(centre, abs=5 * fit.sigma + 0.02)
        assert 0 < fit.sigma < 0.2
        assert fit.width.total == pytest.approx(fwhm, rel=0.06)
        assert fit.width.height == pytest.approx(height, rel=0.06)
        shown = profile[fit.first : fit.first + len(fit.curve)]
        assert np.abs(fit.curve - shown).max() < 3.0


def test_noise_has_no_peaks() -> None:
    """Noise, a flat profile, single hot pixels, and profiles without values give no fit."""
    rng = np.random.default_rng(3)
    assert fit_peaks(rng.normal(100.0, 3.0, 640)) == []
    assert fit_peaks(np.full(100, 7.0)) == []
    assert fit_peaks(np.full(100, np.nan)) == []
    assert fit_peaks(np.zeros(3)) == []
    hot = rng.normal(100.0, 1.0, 640)
    hot[300] += 200.0
    assert [fit.width.total for fit in fit_peaks(hot) if fit.width.total < 1.0] == fit_peaks(hot)


def test_as_many_as_fit_on_a_page() -> None:
    """Of 19 peaks at equal distances the most prominent ones are fitted; they are returned by position."""
    profile = sum(gaussian(8 + 16 * k, 5.0, 50.0 + k) for k in range(19))
    fits = fit_peaks(np.asarray(profile) + np.random.default_rng(1).normal(0, 0.2, len(X)))
    assert 8 <= len(fits) <= MOST_PEAKS
    assert [fit.centre for fit in fits] == sorted(fit.centre for fit in fits)
