"""Pattern changes are detected, and growth alone is not a change (see test_truth.py, too)."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import analyze
from atomstream.analysis.change import ChangeTracker, Clusters, Cusum, threshold
from atomstream.analysis.pattern import Pattern, find_pattern
from atomstream.analysis.sudden_change import SuddenChangeTracker
from tests.analysis.composites import TRACES, Composite
from tests.analysis.growth_helpers import Film
from tests.paths import DATA


@pytest.mark.parametrize("fps", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("name", ["sb_series_26x40x75", "sb_deposition_26x259x347"])
def test_two_transitions_of_the_antimony_series(name: str, fps: float) -> None:
    """Real frames of an Sb deposition: a change within frames 0 to 3, one within 22 to 24, at any speed."""
    frames = np.load(DATA / f"{name}.npz")["frames"]
    changes = [e.time_s * fps for e in analyze(frames, fps).events if e.kind == "change"]
    assert len(changes) == 2
    assert 0 <= changes[0] <= 3
    assert 22 <= changes[1] <= 24


@pytest.mark.parametrize(("picture", "trace"), [(0, TRACES[0]), (8, TRACES[0]), (16, TRACES[1])])
def test_real_growth_is_no_change(picture: int, trace: str) -> None:
    """Real frames whose specular spot is scaled by real traces of PLD: no change, from frame to frame or slowly."""
    film = Composite(picture, trace, seed=picture)
    spot, slow, sudden, events = find_pattern(film.frame(0)), ChangeTracker(), SuddenChangeTracker(), []
    assert spot is not None
    for i in range(9, len(film), 10):
        events += slow.feed(film.times[i], film.frame(i).astype(np.float32), (0.0, 0.0), spot)
    for i in range(300, 700):
        rows = film.frame(i)[spot.band[0] : spot.band[1]].mean(axis=0, keepdims=True)
        events += sudden.feed(film.times[i : i + 1], rows.astype(np.float32), spot, 20.0)
    assert events + sudden.finish() == []


def test_another_picture_is_a_change_from_frame_to_frame() -> None:
    """A film that switches to another real picture within a frame: one change, at that frame."""
    one, other = Composite(0, TRACES[0], seed=1), Composite(5, TRACES[0], seed=1)
    frames = np.stack([(one if i < 37 else other).frame(i) for i in range(60)]).astype(np.uint16)
    changes = [e.time_s for e in analyze(frames, 20.0).events if e.kind == "change"]
    assert changes == pytest.approx([36.5 / 20], abs=0.06)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_small_change_is_found_after_a_restart(restarted: bool) -> None:
    """A tracker that was restarted during a change with a step of the light finds the same changes as a new one."""
    x = np.arange(160.0)
    streaks = [np.exp(-(((x - at) / 4.0) ** 2)) for at in (20.0, 50.0, 110.0, 140.0)]
    plain = (10.0 + 50.0 * sum(streaks)).astype(np.float32)
    stronger, spot = (
        plain + np.float32(22.0) * streaks[0].astype(np.float32),
        Pattern(80, 60, 5, 9, (0, 9), 30),
    )
    noise = np.random.default_rng(2).normal(0.0, 0.1, (80, 160)).astype(np.float32)
    tracker, t = SuddenChangeTracker(), np.arange(80) / 30.0
    if restarted:
        tracker.feed(t[:12], np.repeat([plain, plain.cumsum()], [10, 2], axis=0) + noise[:12], spot, 30.0)
        assert tracker.goes_on
        tracker.light_changed(False)
        tracker.restart()
    film = np.where(t[:, None] < 1.2, plain, stronger) + noise
    assert len(tracker.feed(t, film, spot, 30.0)) == 1


def test_roughening_is_a_change() -> None:
    """A change from streaks to spots is detected within three seconds and becomes a new cluster."""
    answer = Film(18, fps=30.0, roughening_at_s=10.0).analysed()
    changes = [e.time_s for e in answer.events if e.kind == "change"]
    assert len(changes) == 1
    assert 9 < changes[0] < 13
    assert answer.frames["cluster_id"][-1] != answer.frames["cluster_id"][150]


def test_rate_of_false_alarms_is_as_stated() -> None:
    """White noise gives about one alarm per stated run length."""
    rng = np.random.default_rng(5)
    alarms, cusum = 0, Cusum()
    for deviates in rng.normal(size=(20000, 3)):
        if cusum.feed(deviates, 1000):
            alarms += 1
            cusum.reset()
    assert 7 <= alarms <= 60


def test_threshold_grows_with_the_run_length() -> None:
    """A longer run length needs a higher threshold."""
    assert threshold(1e3) < threshold(1e5) < threshold(1e7)


def test_cluster_ids_are_permanent() -> None:
    """A picture that returns gets its old cluster id."""
    rng = np.random.default_rng(0)
    a, b = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 300)))
    clusters = Clusters()
    ids = [clusters.assign((v + rng.normal(0, 0.002, 300)).astype(np.float32))[0] for v in (a, a, b, b, a, b)]
    assert ids == [0, 0, 1, 1, 0, 1]


@pytest.mark.slow
def test_roughening_is_a_change_while_rotating() -> None:
    """Under rotation, mean pictures of whole turns are compared: growth is not a change, roughening is one."""
    answer = Film(46, fps=20.0, rpm=30.0, rate_ml_s=0.31, roughening_at_s=24.0).analysed()
    changes = [e.time_s for e in answer.events if e.kind == "change"]
    assert len(changes) == 1
    assert 22 < changes[0] < 32
