"""A rotation that was stated wrongly is corrected, or it is reported and no rate is given."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.repetition import return_lag, turn_of
from tests.analysis.test_undeclared_rotation import HEXAGONAL, RECTANGULAR, SQUARE
from tests.analysis.turning_film import TurningFilm

FPS = 20.0


def _film(rpm: float, axes: tuple, seconds: float, light: float | np.ndarray = 1.0) -> TurningFilm:
    """A rotating crystal on a tilted holder, whose specular spot oscillates by 60 %."""
    t = np.arange(round(seconds * FPS)) / FPS
    bright = 1 - 0.6 * np.sin(np.pi * 0.13 * t) ** 2
    return TurningFilm(t * rpm / 60 + 0.03, axes, bright, np.broadcast_to(light, t.shape), wobble=1.0, seed=3)


def _ring(film: TurningFilm) -> tuple[np.ndarray, np.ndarray]:
    """Unit pictures (N, P) of a film, averaged over 4 x 4 px, and which pixels (P,) its specular spot covers."""
    small = film.frames().reshape(len(film), 30, 4, 40, 4).mean(axis=(2, 4))
    hidden = np.zeros((30, 40), dtype=bool)
    hidden[11:18, 17:24] = True
    flat = small.reshape(len(film), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), hidden.ravel()


@pytest.mark.parametrize(("axes", "parts"), [(SQUARE, {1, 4}), (HEXAGONAL, {2, 6}), (RECTANGULAR, {1, 2})])
@pytest.mark.parametrize("rpm", [10.4, 12.0])
def test_the_return_is_found(axes: tuple, parts: set[int], rpm: float) -> None:
    """Pictures return after 1/n of a turn, also while a shutter closes and the specular spot oscillates.

    The holder is tilted: the return after a whole turn may be better than the others.
    """
    light = np.where(np.arange(200) % 57 < 40, 1.0, 0.03)
    lag = return_lag(*_ring(_film(rpm, axes, 10, light)))
    assert lag is not None
    found = FPS * 60 / rpm / lag
    assert round(found) in parts
    assert found == pytest.approx(round(found), rel=0.01)


@pytest.mark.parametrize("fold", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("period", [20.0, 19.6])
def test_a_tilted_sample_returns_after_a_whole_turn(fold: int, period: float) -> None:
    """Pictures that agree after 1/n of a turn, apart from the wobble: the return is a whole turn."""
    angle = 2 * np.pi * np.arange(300) / period
    parts = [(k * angle, 1.0) for k in (1, 2, 3)] + ([(angle / fold, 0.4)] if fold > 1 else [])
    pictures = np.stack([size * wave(x) for x, size in parts for wave in (np.cos, np.sin)], axis=1)
    hidden = np.zeros(pictures.shape[1], dtype=bool)
    assert return_lag(pictures.astype(np.float32), hidden) == pytest.approx(period * fold, rel=0.002)


def test_a_crystal_at_rest_does_not_return() -> None:
    """Equal pictures, and noise, repeat at no lag."""
    assert return_lag(*_ring(_film(0.0, SQUARE, 4))) is None
    noise = np.random.default_rng(1).normal(size=(100, 1200)).astype(np.float32)
    assert return_lag(noise, np.zeros(1200, dtype=bool)) is None


@pytest.mark.parametrize(
    ("return_s", "turn_s"),
    [
        *((5.2, 5.2), (5.4545 / 6, 5.4545), (5.0 / 3, 5.0), (1.14, 4.56), (5.05 / 8, 5.05)),
        *((5.77 / 4, None), (5.77 / 6, None), (3.0, None), (5.4 / 8, None), (1.49, None)),
    ],
)
def test_a_turn_fits_the_symmetry_of_a_crystal(return_s: float, turn_s: float | None) -> None:
    """The stated turn takes 5 s: 1, 2, 3, 4 or 6 returns within 12 % of it are a turn, 5 are not."""
    assert turn_of(return_s, 5.0) == (turn_s if turn_s is None else pytest.approx(turn_s, rel=1e-6))


@pytest.mark.parametrize(("axes", "rpm"), [(HEXAGONAL, 10.4), (SQUARE, 5.0)])
def test_a_wrong_rotation_is_reported(axes: tuple, rpm: float) -> None:
    """12 rpm are stated, the crystal rotates more slowly: one event, no rate and no views, and the reason."""
    engine = Analyzer(FPS, 12.0)
    batch = engine.feed(0, _film(rpm, axes, 10.5).frames())
    assert [e.kind for e in batch.events if e.kind.startswith("rotation")] == ["rotation_seen"]
    for name in ("rotation_rpm", "growth_rate_ml_s"):
        assert "does not fit the stated 12 rpm" in batch.values[name].why
    assert np.isnan(batch.frames["growth_rate_ml_s"]).all()
    assert batch.views == ()
    engine.set_rotation(rpm)
    assert engine.feed(210, _film(rpm, axes, 1).frames()).values["rotation_rpm"].value == pytest.approx(rpm)


def test_a_rotation_near_the_stated_one_is_found() -> None:
    """11 rpm instead of 12: the turn is found on a six-fold surface, where 5/6 of it is as near to the stated one."""
    batch = Analyzer(FPS, 12.0).feed(0, _film(11.0, HEXAGONAL, 11.5).frames())
    assert batch.values["rotation_rpm"].value == pytest.approx(11.0, rel=0.01)
