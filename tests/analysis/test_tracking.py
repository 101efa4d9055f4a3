"""The specular intensity does not depend on where the spot is, how it moves, or where it lies between the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis.shapes import Box
from atomstream.analysis.tracking import Tracker
from tests.analysis.spot_film import circling, spot_film

FPS = 30.0


def _followed(
    frames: np.ndarray, fwhm: tuple[float, float], at: tuple[float, float]
) -> dict[str, np.ndarray]:
    """Follow the spot in blocks of three frames; return position and intensity of each frame."""
    box = Box(round(at[1]), round(at[0]), 1.4 * fwhm[1], 1.2 * fwhm[0], "specular", tracked=True)
    tracker, traces = Tracker(box), []
    for start in range(0, len(frames), 3):
        traces.append(tracker.measure(frames[start : start + 3], 255, 1.0 / FPS))
        tracker.end_block(3.0 / FPS)
    return {
        name: np.concatenate([getattr(t, name) for t in traces])
        for name in ("x", "y", "intensity", "background", "motion")
    }


NARROW, USUAL, WIDE = (4.6, 4.6), (13.3, 5.3), (18.0, 18.0)


@pytest.mark.parametrize(
    ("px", "hz", "fwhm"),
    [(0.6, 0.1, NARROW), (2.0, 0.5, USUAL), (4.0, 1.5, USUAL), (4.0, 1.5, NARROW), (3.0, 0.3, WIDE)],
)
@pytest.mark.parametrize("drift", [0.0, 0.4])
def test_a_moving_spot_has_a_flat_trace(
    px: float, hz: float, fwhm: tuple[float, float], drift: float
) -> None:
    """A spot of constant intensity that moves and drifts has a constant measured intensity: 0.5 % rms beyond noise."""
    move = circling(min(10.0, max(4.0, 1.0 / hz)), FPS, px, hz)
    move[:, 1] += drift * np.arange(len(move)) / FPS
    frames = spot_film(np.full(len(move), 0.9), shape=(96, 128), move=move, fwhm=fwhm, noise=0.3)
    found = _followed(frames, fwhm, (0.42 * 96, 64.0))
    settled = slice(round(FPS), None)
    t = np.arange(len(move))[settled] / FPS
    level = found["intensity"][settled] / np.mean(found["intensity"][settled])
    angle = 2.0 * np.pi * hz * t
    waves = np.stack([np.ones_like(t), *(f(k * angle) for k in (1, 2) for f in (np.cos, np.sin))], axis=1)
    assert np.abs(np.linalg.lstsq(waves, level, rcond=None)[0][1:]).max() < 0.004
    assert np.var(level) - 0.5 * np.var(np.diff(level)) < 0.005**2
    assert np.ptp((found["x"] - move[:, 1])[settled]) < 0.3
    assert np.ptp((found["y"] - move[:, 0])[settled]) < 0.4


def test_motion_is_the_change_in_a_box_at_rest() -> None:
    """The column ``motion`` is large where the spot moves, and small where it rests."""
    fwhm, n = (13.3, 5.3), 150
    still = _followed(spot_film(np.full(n, 0.9), shape=(96, 128)), fwhm, (0.42 * 96, 64.0))
    move = circling(5.0, FPS, 2.0, 1.0)
    moving = _followed(spot_film(np.full(n, 0.9), shape=(96, 128), move=move), fwhm, (0.42 * 96, 64.0))
    assert np.std(moving["motion"]) > 0.05 > 10 * np.std(still["motion"])


def test_a_dim_spot_is_followed_in_the_mean() -> None:
    """The position of a spot as high as five noise widths stays within a tenth of its width; its noise is averaged."""
    move = np.zeros((240, 2))
    move[:, 1] = np.arange(240) / 240 * 3.0
    frames = spot_film(np.ones(240), shape=(96, 128), move=move, peak=12.0, noise=0.6)
    found = _followed(frames, (13.3, 5.3), (0.42 * 96, 64.0))
    assert np.abs(found["x"] - move[:, 1] - 64.0)[60:].max() < 0.55


def test_without_light_the_position_stays() -> None:
    """Frames without the spot do not move the window, and have no intensity."""
    level = np.ones(150)
    level[60:90] = 0.0
    light = np.where(level > 0, 1.0, 0.02)
    found = _followed(spot_film(level, shape=(96, 128), light=light), (13.3, 5.3), (0.42 * 96, 64.0))
    assert np.abs(found["x"] - 64.0).max() < 0.5
    assert np.abs(found["y"] - 0.42 * 96).max() < 1.0
    assert np.abs(found["intensity"][60:90]).max() < 0.02 * found["intensity"][0]


def test_a_spot_at_the_edge_of_the_picture() -> None:
    """A window over the edge of the picture counts the pixels inside only."""
    move = np.zeros((90, 2))
    move[:, 0] = -np.linspace(0, 40.0, 90)
    found = _followed(spot_film(np.ones(90), shape=(96, 128), move=move), (13.3, 5.3), (0.42 * 96, 64.0))
    assert np.isfinite(found["intensity"]).all()
    assert found["intensity"][-1] < 0.8 * found["intensity"][0]


def test_the_step_between_calls_does_not_matter() -> None:
    """Frames fed one by one or in threes give exactly the same measurements."""
    frames = spot_film(np.full(30, 0.9), shape=(96, 128), move=circling(1.0, FPS, 2.0, 1.0))
    box = Box(64, 40, 8.0, 16.0, "specular", tracked=True)
    one, three = Tracker(box), Tracker(box)
    single = [one.measure(frames[i : i + 1], 255, 1.0 / FPS).intensity for i in range(30)]
    triple = [three.measure(frames[i : i + 3], 255, 1.0 / FPS).intensity for i in range(0, 30, 3)]
    np.testing.assert_array_equal(np.concatenate(single), np.concatenate(triple))
