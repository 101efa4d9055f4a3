"""A fractional order appears only by a rise above its earlier level."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import analyze
from atomstream.analysis.diffraction_orders import FractionalOrderDetector, window_means
from tests.analysis.growth_helpers import Film
from tests.paths import DATA

BLOCK_S = 0.1


def appeared(heights: np.ndarray, first: np.ndarray, seed: int = 0, noise: float = 0.3) -> list[float]:
    """Feed heights of an order (N,) and of the first order; return the times at which it appeared."""
    rng, detector = np.random.default_rng(seed), FractionalOrderDetector(2)
    out = []
    for i, (height, whole) in enumerate(zip(heights, first, strict=True)):
        if detector.update(height + noise * rng.standard_normal(), noise, 0.1, BLOCK_S, whole):
            out.append(i * BLOCK_S)
    return out


def test_an_order_that_rises_appears_once() -> None:
    """The order rises within a second at 5 s: one event, soon after."""
    t = np.arange(0, 12, BLOCK_S)
    times = appeared(8 / (1 + np.exp(-(t - 5) / 0.25)), np.full(len(t), 30.0))
    assert len(times) == 1
    assert 5 < times[0] < 6.5


@pytest.mark.parametrize("seed", range(4))
def test_an_order_from_the_beginning_is_present(seed: int) -> None:
    """An order that is there from the start is present without an event, also if it oscillates with the first order
    and the film is long."""
    t = np.arange(0, 40, BLOCK_S)
    grows = 1 + 0.5 * np.sin(2 * np.pi * 0.2 * t + seed)
    assert appeared(8 * grows, 30 * grows, seed) == []
    assert appeared(np.full(len(t), 1.2), np.full(len(t), 30.0), seed) == []


def test_an_order_that_returns_appears_again() -> None:
    """An order that is there at the start, vanishes for 10 s and returns gives one event."""
    t = np.arange(0, 30, BLOCK_S)
    times = appeared(np.where((t < 8) | (t > 20), 8.0, 0.0), np.full(len(t), 30.0))
    assert len(times) == 1
    assert 20 < times[0] < 21.5


@pytest.mark.parametrize(("fps", "seed"), [(10.0, 1), (20.0, 2)])
@pytest.mark.parametrize("name", ["si111_4x259x347", "ksa_pld_19x123x164"])
def test_still_real_pictures_show_no_new_order(name: str, fps: float, seed: int) -> None:
    """Real frames repeated with the noise of a camera: nothing changes, so nothing appears."""
    rng, pictures = np.random.default_rng(seed), np.load(DATA / f"{name}.npz")["frames"]
    for picture in pictures[seed % 6 :: 6].astype(float):
        noise = np.sqrt(2.0 * np.maximum(picture, 1.0))
        frames = [picture + noise * rng.standard_normal(picture.shape) for _ in range(round(2.5 * fps))]
        found = analyze(np.clip(frames, 0, picture.max()).astype(np.uint16), fps).events
        assert [e.label for e in found if e.kind in ("fractional_order", "change")] == []


def test_half_orders_of_the_first_frame_are_no_event() -> None:
    """A reconstruction that is there from the start is measured, but has not appeared."""
    answer = Film(4, fractional_at_s=-5.0, fps=20.0, height=480, width=640).analysed()
    assert not [e for e in answer.events if e.kind == "fractional_order"]
    assert answer.values["half_order_ratio"].value > 0.2
    assert not answer.values["half_order_ratio"].note


def test_means_over_windows_with_fractional_edges() -> None:
    """Each window is the mean of its pixels, those at its edges by their share; one that leaves the picture is NaN."""
    profiles = np.random.default_rng(5).normal(50.0, 9.0, (3, 40))
    centres = np.array([1.25, 7.0, 20.4, 38.0, 38.4, -0.2])
    halves = np.array([1.75, 0.9, 3.1, 1.5, 1.75, 1.75])
    fine = np.repeat(profiles, 100, axis=1)  # pixel i covers i - 0.5 to i + 0.5
    for centre, half, means in zip(centres, halves, window_means(profiles, centres, halves).T, strict=True):
        first, last = round(100 * (centre - half + 0.5)), round(100 * (centre + half + 0.5))
        if first < 0 or last > fine.shape[1]:
            assert np.isnan(means).all()
        else:
            np.testing.assert_allclose(means, fine[:, first:last].mean(axis=1), rtol=1e-12)
