"""Rotating substrate: true speed, growth rate and views."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.regions import binned
from atomstream.analysis.rotation import RotationTracker
from atomstream.results import View, undetermined
from tests.analysis.growth_helpers import Film
from tests.cells import grid

TWO_TURNS = {
    "seed": 4101,
    "fps": 30.0,
    "rpm": 15.0,
    "tau_ml": 17.9,
    "phase_rad": 2.329,
    "peaks": (135.0, 81.0, 27.0),
}


@pytest.mark.parametrize("nominal", grid([13.5, 15.0, 16.5], always=[13.5, 16.5]))
def test_speed_is_refined(nominal: float) -> None:
    """A nominal speed that is wrong by 10 % is corrected to 0.5 %."""
    value = Film(14, fps=30.0, rpm=15.0).analysed(rpm=nominal).values["rotation_rpm"]
    assert value.value == pytest.approx(15.0, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "rpm", "seconds"),
    grid(
        [(0.4, 15.0, 24), (0.32, 6.0, 40), (0.8, 6.0, 30), (2.5, 15.0, 14)],
        always=[(0.4, 15.0, 24), (2.5, 15.0, 14)],
    ),
)
def test_rate_under_rotation(rate: float, rpm: float, seconds: float) -> None:
    """The error of the rate under rotation is below 0.6 %."""
    value = Film(seconds, fps=60.0, rpm=rpm, rate_ml_s=rate).analysed().values["growth_rate_ml_s"]
    assert value.value == pytest.approx(rate, rel=0.006)


@pytest.mark.slow
@pytest.mark.parametrize(
    "rate", grid([0.24, 0.25, 0.26, 0.275, 0.475, 0.49, 0.5, 0.75], always=[0.475, 0.49, 0.5])
)
def test_rate_near_a_harmonic_of_the_rotation(rate: float) -> None:
    """Growth near a harmonic of the rotation has an error below 0.4 % and three sigmas, or a reason."""
    answer = Film(max(14, 7 / rate), rpm=15.0, rate_ml_s=rate, fps=30.0, hum=0.0).analysed()
    value, determined = answer.values["growth_rate_ml_s"], answer.frames["growth_rate_ml_s"]
    if value.value is None:
        assert "rotation" in value.why
    else:
        assert value.value == pytest.approx(rate, rel=0.004)
    off = np.abs(determined - rate)[np.isfinite(determined)]
    assert (off < 3 * answer.frames["growth_rate_sigma"][np.isfinite(determined)]).all()


def test_no_wrong_rate_after_two_turns() -> None:
    """With 1.9 turns, rotation and a wrong rate together would explain the trace: only a correct rate is reported."""
    film = Film(20, rate_ml_s=0.1745, **TWO_TURNS)
    answer = film.analysed()
    determined = np.isfinite(answer.frames["growth_rate_ml_s"])
    off = np.abs(answer.frames["growth_rate_ml_s"][determined] - 0.1745)
    assert determined.any()
    assert (off < 4 * answer.frames["growth_rate_sigma"][determined]).all()
    assert answer.values["layers_grown"].value == pytest.approx(0.1745 * 20, abs=0.3)


def test_rotation_uses_the_frame_times() -> None:
    """If frames come 2 % more slowly than nominal, speed and rate follow the frame times."""
    film = Film(24, rpm=15.0, rate_ml_s=0.31, fps=30.0, hum=0.0)
    values = film.analysed(rpm=15.0 / 1.02, times_s=1.02 * np.arange(len(film)) / 30.0).values
    assert values["rotation_rpm"].value == pytest.approx(15.0 / 1.02, rel=0.003)
    assert values["growth_rate_ml_s"].value == pytest.approx(0.31 / 1.02, rel=0.004)


def test_no_growth_while_rotating_has_no_rate() -> None:
    """The modulation by the rotation is not taken for growth."""
    answer = Film(20, fps=30.0, rpm=15.0, rate_ml_s=0.0).analysed()
    assert not answer.values["growth_rate_ml_s"].determined
    assert np.isnan(answer.frames["growth_rate_ml_s"]).all()


def test_views_of_a_square_lattice() -> None:
    """A four-fold surface has views every quarter turn, with the spacing of their azimuths."""
    film = Film(13, fps=60.0, rpm=15.0, height=240, width=320)
    views = film.analysed().views
    angles = sorted(v.angle_deg for v in views)
    truth = float(film.simulator.truth(0).spacing_px[0])
    assert len(angles) >= 4
    assert all(min(abs(a - k * 45) for k in range(9)) < 3 for a in angles)
    for view in views:
        if view.spacing_px.determined:
            order = 1.0 if round(view.angle_deg / 45) % 2 == 0 else np.sqrt(2)
            assert view.spacing_px.value == pytest.approx(order * truth, rel=0.01)


@pytest.mark.parametrize(("fps", "rpm"), [(20.0, 15.0), (30.0, 30.0)])
def test_views_of_a_slow_camera(fps: float, rpm: float) -> None:
    """With 80 and 60 frames per turn, always at the same azimuths, the views are found."""
    views = Film(14, fps=fps, rpm=rpm, height=240, width=320).analysed().views
    found = sorted(round(v.angle_deg) for v in views)
    assert {1, 91, 181, 271} <= set(found)
    assert all(min(abs(angle - k * 45) for k in range(9)) < 3 for angle in found)


def test_too_few_frames_per_turn_give_no_views() -> None:
    """With 40 frames per turn views could be missed, so none is reported."""
    assert Film(10, fps=20.0, rpm=30.0, height=240, width=320).analysed().views == ()


def test_a_view_keeps_its_number() -> None:
    """A view that returns gets its old number; a new azimuth gets a new number."""
    tracker = RotationTracker.for_speed(15.0, 30.0)
    tracker.known_views, tracker.next_view_id = {0: view(0, 1.0), 1: view(1, 91.0), 2: view(2, 181.0)}, 3
    numbers = []
    for angle in (181.0, 2.0, 45.0, 358.0, 93.0):
        numbers.append(tracker._view_id(angle))
        tracker.current_views.append(view(numbers[-1], angle))
    assert numbers == [2, 0, 3, 4, 1]  # 358: the azimuth near it is taken in this turn


def view(number: int, angle: float) -> View:
    """Make a view with this number and azimuth."""
    return View(number, angle, 1.0, undetermined("-"), 0.0, 1)


def test_numbers_go_on_after_a_stop() -> None:
    """After a stop the views get new numbers, because the start angle is unknown."""
    turning = Film(10, fps=30.0, rpm=30.0, height=240, width=320)
    engine = Analyzer(30.0, 30.0)
    before = {v.view_id for v in engine.feed(0, turning[0:200]).views}
    engine.set_rotation(0.0)
    engine = Analyzer.from_state(engine.state())
    engine.set_rotation(30.0)
    after = {v.view_id for v in engine.feed(200, turning[0:200]).views}
    assert before
    assert after
    assert not before & after


def test_lattice_values_belong_to_the_views() -> None:
    """Under rotation there is no single spacing, and the reason refers to the views."""
    assert "views" in Film(5, rpm=15.0).analysed().values["lattice_spacing"].why


def test_set_rotation_begins_a_segment() -> None:
    """Stopping the rotation begins a new segment at rest."""
    turning, still = Film(6, fps=30.0, rpm=15.0), Film(20, fps=30.0)
    engine = Analyzer(30.0, 15.0)
    engine.feed(0, turning[0:180])
    engine.set_rotation(0.0)
    last = engine.feed(180, still[180:600])
    assert [s.label for s in last.segments] == ["start", "rotation at 0 rpm"]
    assert last.values["growth_rate_ml_s"].value == pytest.approx(0.4, rel=0.01)


def test_binning_by_slices_is_the_mean() -> None:
    """Binning by adding slices gives block means, odd edges cut."""
    frames = np.random.default_rng(0).integers(0, 65535, (2, 13, 10), dtype=np.uint16)
    expected = frames[:, :12, :8].reshape(2, 3, 4, 2, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(binned(frames, 4), expected, rtol=1e-6)
