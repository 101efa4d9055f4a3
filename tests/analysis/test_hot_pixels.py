"""Hot pixels are found and corrected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from atomstream.analysis import analyze
from atomstream.analysis.pattern import correct_profiles, find_hot_pixels, without_hot_pixels
from atomstream.sources.sim_spec import GrowthSpec
from atomstream.sources.simulator import Simulator

HOT = ((7, 30), (40, 41), (59, 79))


def streaky(seed: int = 1) -> np.ndarray:
    """A mean frame (60, 80) with three streaks and noise, without hot pixels."""
    x, y = np.arange(80.0), np.arange(60.0)[:, None]
    streaks = sum(40.0 * np.exp(-((x - c) ** 2) / 3.0) for c in (20.0, 40.0, 60.0))
    return (
        18.0
        + streaks * np.exp(-((y - 35) ** 2) / 300.0)
        + np.random.default_rng(seed).normal(0, 0.6, (60, 80))
    )


def with_hot(picture: np.ndarray) -> np.ndarray:
    hurt = picture.copy()
    for row, column in HOT:
        hurt[row, column] += 90.0
    return hurt


def found(picture: np.ndarray) -> tuple[tuple[int, int], ...]:
    return find_hot_pixels(picture, ndimage.median_filter(picture, size=3))


def test_only_hot_pixels_are_found() -> None:
    """Isolated bright pixels are hot; streaks, noise and spots two pixels wide are not."""
    assert found(with_hot(streaky())) == HOT
    assert found(streaky()) == ()
    y, x = np.mgrid[:60, :80]
    assert found(streaky() + 150.0 * np.exp(-((x - 31) ** 2 + (y - 20) ** 2) / 2.0)) == ()


def test_texture_is_not_corrected() -> None:
    """If very many pixels are isolated, none is corrected."""
    rng = np.random.default_rng(3)
    speckle = streaky()
    speckle[rng.integers(0, 60, 60), rng.integers(0, 80, 60)] += 90.0
    assert found(speckle) == ()


def test_a_corrected_picture_is_close_to_the_original() -> None:
    """A hot pixel becomes the mean of the pixels above and below; the given picture is not changed."""
    hurt = with_hot(streaky())
    before = hurt.copy()
    assert np.abs(without_hot_pixels(hurt, HOT) - streaky()).max() < 4.0
    np.testing.assert_array_equal(hurt, before)


def test_profiles_are_corrected_like_pictures() -> None:
    """The corrected profile of frames with hot pixels is that of the corrected frames."""
    frames = np.clip(np.stack([with_hot(streaky(k)) for k in range(3)]), 0, 255).astype(np.uint8)
    profiles = frames[:, 5:50].mean(axis=1).astype(np.float32)
    correct_profiles(profiles, frames, (5, 50), HOT)
    expected = np.stack(
        [without_hot_pixels(frame.astype(np.float64), HOT)[5:50].mean(axis=0) for frame in frames]
    )
    np.testing.assert_allclose(profiles, expected, rtol=1e-5)


@pytest.mark.parametrize("seed", [387, 388])
def test_a_hot_pixel_in_a_streak_does_not_change_the_spacing(seed: int) -> None:
    """The streak spacing of a small dim picture is correct within 0.5 %, with and without hot pixels."""
    spec = GrowthSpec(height=120, width=160, rate_ml_s=1.2, fps=60.0, gain=0.5, seed=seed)
    simulator = Simulator(spec)
    answer = analyze(simulator.frames(0, 180), spec.fps)
    truth = float(simulator.truth([0]).spacing_px[0])
    assert float(answer.values["lattice_spacing"]) == pytest.approx(truth, rel=0.005)
