"""A bright spot that never changes is not taken for the specular spot for long."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer, Box
from atomstream.results import Event
from tests.analysis.spot_film import spot_film

FPS = 10.0
REFLECTION = (75, 30)


def _film(level: np.ndarray, reflection: np.ndarray) -> np.ndarray:
    """Frames of a spot of intensity ``level`` (N,), and a brighter reflection of brightness ``reflection`` (N,)."""
    frames = spot_film(level, shape=(96, 128), peak=90.0).astype(np.float64)
    y, x = np.mgrid[:96, :128]
    spot = np.exp(-((y - REFLECTION[0]) ** 2 + (x - REFLECTION[1]) ** 2) / 12.0)
    frames += reflection[:, None, None] * spot
    whole: np.ndarray = np.clip(frames, 0, 255).astype(np.uint8)
    return whole


def _fed(frames: np.ndarray, analyzer: Analyzer | None = None) -> tuple[list[Event], np.ndarray, Analyzer]:
    analyzer = analyzer or Analyzer(FPS)
    batch = analyzer.feed(0, frames)
    return [e for e in batch.events if e.kind == "spot"], batch.frames["specular_x"], analyzer


T = np.arange(120) / FPS
GROWTH = 0.75 + 0.25 * np.cos(2 * np.pi * 0.4 * T)


def test_the_spot_that_changes_is_chosen() -> None:
    """The brighter reflection is left for the spot that oscillates, with an event.

    Segments are cut there, and the note of the count states from when on it counts.
    """
    batch = Analyzer(FPS).feed(0, _film(GROWTH, np.full(120, 200.0)))
    x = batch.frames["specular_x"]
    assert x[0] == pytest.approx(REFLECTION[1], abs=1.0)
    assert x[-1] == pytest.approx(64.0, abs=1.0)
    (event,) = [e for e in batch.events if e.kind == "spot"]
    assert event.time_s < 8.0
    before, after = batch.segments
    assert before.end_s == after.start_s == pytest.approx(event.time_s)
    assert after.label == "another spot"
    assert not before.rate.determined
    counted = batch.values["oscillations_counted"]
    assert f"counted from {event.time_s:.1f} s on, when this spot was chosen" in (counted.note or counted.why)


def test_saturation_of_the_spot_before_is_not_that_of_the_chosen_one() -> None:
    """A saturated reflection is left: the rate of the chosen spot does not get its uncertainty."""
    batch = Analyzer(FPS).feed(0, _film(GROWTH, np.full(120, 400.0)))
    assert batch.values["saturated_fraction"].value == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("growing", [True, False], ids=["both change", "nothing changes"])
def test_the_chosen_spot_stays(growing: bool) -> None:
    """A chosen spot stays if it changes as well, or if nothing does."""
    level = GROWTH if growing else np.ones(120)
    events, x, _ = _fed(_film(level, 200.0 * (0.9 + 0.1 * level)))
    assert events == []
    assert np.abs(x - REFLECTION[1]).max() < 1.0


def test_the_users_choice_stays() -> None:
    """A specular box that the user set is not replaced."""
    analyzer = Analyzer(FPS)
    analyzer.set_regions([Box(REFLECTION[1], REFLECTION[0], 8.0, 8.0, "specular", tracked=True)])
    events, x, _ = _fed(_film(GROWTH, np.full(120, 200.0)), analyzer)
    assert events == []
    assert np.abs(x - REFLECTION[1]).max() < 1.0
