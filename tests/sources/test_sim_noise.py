from __future__ import annotations

import math

import numpy as np
import pytest

from atomstream.sources import GrowthSpec, Simulator
from atomstream.sources.sim_camera import ELECTRONS_PER_ADU, Camera, bank_offset


def exposures(level: float, count: int, **changes: float) -> np.ndarray:
    """Frames of an evenly lit screen, as floats."""
    spec = GrowthSpec(height=60, width=80, hot_pixels=0, **changes)  # type: ignore[arg-type]
    camera = Camera(spec)
    frames = np.empty((count, 60, 80), np.uint8)
    for i in range(count):
        camera.expose(np.full((60, 80), level, np.float32), i, frames[i])
    return frames.astype(float)


@pytest.mark.parametrize("gain", [0.25, 1.0, 2.0])
@pytest.mark.parametrize("level", [0.0, 5.0, 40.0, 100.0])
def test_noise_has_the_mean_and_variance_of_a_photon_count(level: float, gain: float) -> None:
    """Mean is gain S + 4, variance gain^2 S/12 + 1.2^2 (and the rounding's 1/12)."""
    frames = exposures(level * gain, 200, gain=gain)
    variance = gain**2 * level / ELECTRONS_PER_ADU + 1.2**2 + 1.0 / 12.0
    assert frames.mean() == pytest.approx(gain * level + 4.0, abs=0.02)
    # rounding's 1/12 is exact only for a wide distribution, and a count of 0 is cut
    assert frames.var() == pytest.approx(variance, rel=0.012)


def test_noise_equals_fresh_poisson_numbers_in_distribution() -> None:
    """The histogram agrees with freshly drawn Poisson and normal numbers, skewness included."""
    level, rng = 6.0, np.random.default_rng(1)
    ours = exposures(level, 200).ravel()
    fresh = rng.poisson(12.0 * level, ours.size) / 12.0 + rng.normal(0.0, 1.2, ours.size) + 4.0
    fresh = np.clip(np.floor(fresh + 0.5), 0, 255)
    a, b = (np.bincount(values.astype(int), minlength=30) / ours.size for values in (ours, fresh))
    assert np.abs(np.cumsum(a - b)).max() < 4e-3


def test_frames_are_uncorrelated() -> None:
    """Noise of neighbouring and of distant frames does not correlate, pixel by pixel."""
    frames = exposures(40.0, 120).reshape(120, -1)
    correlation = np.corrcoef(frames)
    off_diagonal = correlation[~np.eye(120, dtype=bool)]
    assert abs(off_diagonal.mean()) < 2e-3
    # 4800 pixels: sigma 0.0144, of 7140 pairs the largest is near 4 sigma
    assert np.abs(off_diagonal).max() < 0.085


def test_pixels_are_uncorrelated() -> None:
    """Noise of one pixel over time is white, and neighbours in a frame are independent."""
    frames = exposures(40.0, 400)
    noise = frames - frames.mean()
    lag_in_time = (noise[1:] * noise[:-1]).mean() / noise.var()
    lag_in_x = (noise[..., 1:] * noise[..., :-1]).mean() / noise.var()
    assert abs(lag_in_time) < 5e-3
    assert abs(lag_in_x) < 5e-3


def test_variance_of_a_region() -> None:
    """The variance of a region's sum is that of its pixels: there is no common noise."""
    frames = exposures(40.0, 2000)
    sums = frames[:, 20:30, 30:40].sum(axis=(1, 2))
    assert sums.var() == pytest.approx(100 * (40.0 / 12.0 + 1.44 + 1 / 12), rel=0.15)


def test_bank_offsets_are_spread_evenly() -> None:
    """Hashed offsets fill all slots evenly for any seed, without a pattern from frame to frame."""
    for seed in (0, 1, 2**40):
        offsets = np.array([bank_offset(seed, frame, 1000) for frame in range(20_000)])
        counts = np.bincount(offsets, minlength=1000)
        assert ((counts - 20) ** 2 / 20).sum() == pytest.approx(1000, abs=6 * math.sqrt(2000))
        assert abs(np.corrcoef(offsets[1:], offsets[:-1])[0, 1]) < 0.03


def test_hot_pixels_stay_where_they_are() -> None:
    """The default camera has 12 hot pixels on 480x640, the same in every frame, brighter than the dark."""
    simulator = Simulator(GrowthSpec(peaks=(0.0, 0.0, 0.0), background=0.0))
    frames = simulator.frames(0, 6)
    hot = [set(np.flatnonzero(frame > 40)) for frame in frames]
    assert len(hot[0]) == 12
    assert all(found == hot[0] for found in hot)


def test_gain_saturates_at_255() -> None:
    """At gain 2 the specular spot is clipped at 255."""
    bright = Simulator(GrowthSpec(rate_ml_s=0.0, gain=2.0)).frames(0, 1)[0]
    dim = Simulator(GrowthSpec(rate_ml_s=0.0, gain=0.25, hot_pixels=0)).frames(0, 1)[0]
    assert (bright == 255).sum() > 100
    assert dim.max() < 70
