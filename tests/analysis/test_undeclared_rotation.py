"""A pattern that rotates without a stated rotation is noticed; everything else that changes a pattern is not."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analysis, Analyzer
from atomstream.analysis.shapes import Box
from atomstream.analysis.undeclared_rotation import PictureHistory, TurnDetector
from tests.analysis.growth_helpers import Film
from tests.analysis.turning_film import TurningFilm

SQUARE = ((30.0, 0.0), (0.0, 30.0))
HEXAGONAL = ((30.0, 0.0), (15.0, 26.0))
RECTANGULAR = ((22.0, 0.0), (0.0, 34.0))

HZ = 5.0


def seen(film: TurningFilm, dark: np.ndarray | None = None) -> list[float]:
    """Feed a film of 5 frames a second to the detector; return the period that it reports after every half second.

    ``dark`` (N,) are the frames without light.
    """
    detector, spot = TurnDetector(), Box(80.0, 56.0, 10.0, 10.0)
    out = []
    for i, frame in enumerate(film.frames()):
        detector.feed(i / HZ, frame, spot, (12.0, 5.0), dark=dark is not None and bool(dark[i]))
        if i % 3 == 2:
            detector.update()
            out.append(detector.return_s)
    return out


def times(seconds: float) -> np.ndarray:
    """Times of frames at 5 a second."""
    return np.arange(round(seconds * HZ)) / HZ


@pytest.mark.parametrize(
    ("axes", "rpm", "period_s", "seconds"),
    [
        (SQUARE, 6.0, 2.5, 10),
        (SQUARE, 55.6, None, 8),
        (HEXAGONAL, 15.0, None, 8),
        (RECTANGULAR, 6.0, 5.0, 12),
        (RECTANGULAR, 43.9, None, 13),
    ],
)
def test_a_turning_crystal_is_noticed(
    axes: tuple, rpm: float, period_s: float | None, seconds: float
) -> None:
    """Surfaces of two- to six-fold symmetry at 6 to 56 turns a minute, on a tilted holder, with growth."""
    t = times(seconds)
    film = TurningFilm(
        t * rpm / 60 + 0.03, axes, bright=1 - 0.4 * np.sin(np.pi * 0.3 * t) ** 2, wobble=1.0, seed=3
    )
    reported = seen(film)
    assert reported[-1] > 0
    if period_s:
        assert reported[-1] == pytest.approx(period_s, rel=0.05)


def test_a_crystal_that_is_bright_at_few_azimuths_is_noticed_at_once() -> None:
    """Between them it has a fifth of the contrast; the pictures are compared all the same, and no rate is given."""
    t = times(4)
    turns = 0.25 * t + 0.1
    bright = np.exp(-((np.sin(4 * np.pi * turns) / 0.25) ** 2))
    detector, moves = TurnDetector(), []
    for i, frame in enumerate(TurningFilm(turns, SQUARE, light=0.2 + 0.8 * bright).frames()):
        detector.feed(i / HZ, frame, Box(80.0, 56.0, 10.0, 10.0), (12.0, 5.0))
        detector.update()
        moves.append(bool(detector.reason))
    assert all(moves[round(2 * HZ) :])


def test_a_start_and_a_stop_of_the_rotation_are_noticed() -> None:
    """The crystal rests, turns from 5 s to 13 s, and rests again: nothing is reported before and after."""
    t = times(18)
    reported = seen(TurningFilm(np.clip(t - 5, 0, 8) * 0.2, SQUARE))
    assert not any(reported[: round(5 * HZ / 3)])
    assert all(reported[round(9.5 * HZ / 3) : round(13 * HZ / 3)])
    assert reported[-1] == 0


@pytest.mark.parametrize(("axes", "every", "period_s"), [(SQUARE, 6, 1.25), (RECTANGULAR, 5, 5.0)])
def test_a_turning_crystal_is_noticed_between_drop_outs(axes: tuple, every: int, period_s: float) -> None:
    """Some pictures are dark: they are left out, and the others show the rotation."""
    t = times(15)
    dark = np.arange(len(t)) % every == every - 1
    reported = seen(TurningFilm(t * 0.2, axes, light=np.where(dark, 0.02, 1.0)), dark)
    assert reported[-1] == pytest.approx(period_s, rel=0.05)


def test_darkness_is_no_rest() -> None:
    """While the shutter is closed nothing shows that the crystal stopped."""
    t = times(16)
    dark = t > 10
    assert all(seen(TurningFilm(t * 0.2, SQUARE, light=np.where(dark, 0.02, 1.0)), dark)[-8:])


@pytest.mark.parametrize(("found", "seen_s"), [("x.x.x.", 0.0), ("x.xx", 2.0)])
def test_a_return_is_confirmed_by_the_next_search(
    found: str, seen_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation is reported when two searches in a row find the return of the pattern, not two of several."""
    answers = iter(2.0 if letter == "x" else None for letter in found)
    monkeypatch.setattr(PictureHistory, "return_s", lambda self: next(answers))
    detector = TurnDetector()
    for _ in found:
        detector.update()
    assert detector.return_s == seen_s


def still_films() -> dict[str, TurningFilm]:
    """Films of a crystal at rest in which much changes."""
    t, rng = times(20), np.random.default_rng(1)
    rest = np.full(len(t), 0.04)
    square_wave = (t % 4.0 < 2.0).astype(float)
    walk = np.cumsum(rng.normal(0, 0.5, (len(t), 2)), axis=0)
    return {
        "growth": TurningFilm(rest, bright=0.6 + 0.4 * np.cos(2 * np.pi * 0.25 * t)),
        "vibration": TurningFilm(rest, move=np.stack([2 * np.sin(3 * t), 4 * np.sin(2.1 * t)], axis=1)),
        "a drifting beam": TurningFilm(rest, move=np.clip(walk, -6, 6)),
        "a shutter": TurningFilm(rest, light=0.05 + 0.95 * square_wave),
        "drop-outs": TurningFilm(rest, light=np.where(rng.random(len(t)) < 0.1, 0.2, 1.0)),
        "exposure": TurningFilm(rest, light=0.7 + 0.3 * np.sin(0.9 * t)),
        "two states": TurningFilm(rest + 0.06 * square_wave),
        "there and back": TurningFilm(rest + 0.1 * np.clip(1 - np.abs(t - 10) / 6, 0, 1)),
        "another azimuth": TurningFilm(rest + 0.09 * (t > 9)),
        "noise": TurningFilm(rest, light=np.full(len(t), 0.12), noise=3.0),
    }


@pytest.mark.parametrize("name", still_films())
def test_a_crystal_at_rest_does_not_turn(name: str) -> None:
    """Growth, motion, light, and changes of the pattern without a return in the same direction are not a rotation."""
    assert not any(seen(still_films()[name]))


@pytest.mark.parametrize(("light", "noise", "spot"), [(0.05, 0.1, 10.0), (0.03, 0.3, 30.0)])
def test_a_nearly_black_picture_at_rest_agrees_with_itself(light: float, noise: float, spot: float) -> None:
    """Where most pixels hold the same count, rounding is the noise: the few counts that change are no other pattern."""
    film = TurningFilm(np.full(24, 0.04), light=np.full(24, light), bright=np.full(24, spot), noise=noise)
    detector = TurnDetector()
    for i, frame in enumerate(film.frames()):
        detector.feed(i / HZ, frame, Box(80.0, 56.0, 10.0, 10.0), (12.0, 5.0))
    detector.update()
    assert not detector.moves
    assert np.nanmedian(detector.history.similarity) > 0.9


@pytest.fixture(scope="module")
def turning() -> Analysis:
    """A film of a crystal that rotates at 15 rpm while 0 was stated, without growth."""
    return Film(14, rpm=15.0, fps=30.0, rate_ml_s=0.0).analysed(rpm=0.0)


def test_a_turning_film_has_no_rate(turning: Analysis) -> None:
    """No growth rate is reported at any time, and the reason names what to do."""
    assert np.isnan(turning.frames["growth_rate_ml_s"]).all()
    for name in ("growth_rate_ml_s", "lattice_spacing", "rotation_rpm"):
        assert "set the rotation" in turning.values[name].why


def test_the_rotation_is_reported_once(turning: Analysis) -> None:
    """One event, within 6 s, and no false changes or orders beside it."""
    events = [e for e in turning.events if e.kind in ("rotation_seen", "change", "fractional_order")]
    assert [e.kind for e in events] == ["rotation_seen"]
    assert events[0].at_s < 6
    assert events[0].value == pytest.approx(1.0, rel=0.1)


def test_growth_at_rest_keeps_its_rate() -> None:
    """In an ordinary growth no rotation is reported, and the analysis continues from a stored state."""
    film = Film(10, fps=20.0)
    engine = Analyzer(20.0)
    before = engine.feed(0, film[0:100])
    engine = Analyzer.from_state(engine.state())
    after = engine.feed(100, film[100:200])
    assert after.values["growth_rate_ml_s"].value == pytest.approx(0.4, rel=0.02)
    assert not [e for e in (*before.events, *after.events) if e.kind == "rotation_seen"]


def test_stating_the_rotation_gives_the_rate() -> None:
    """After `set_rotation` the growth rate is reported again."""
    film = Film(24, rpm=15.0, fps=20.0)
    engine = Analyzer(20.0)
    why = engine.feed(0, film[0:120]).values["growth_rate_ml_s"].why
    assert "set the rotation" in why
    engine.set_rotation(15.0)
    assert engine.feed(120, film[120:480]).values["growth_rate_ml_s"].value == pytest.approx(0.4, rel=0.02)
