"""Pattern changes are detected, and growth alone is not a change."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import analyze
from atomstream.analysis.change import Clusters, Cusum, threshold
from tests.analysis.growth_helpers import Film
from tests.paths import DATA


def test_two_transitions_of_the_antimony_series() -> None:
    """Real frames of an Sb deposition: one change near the start, one near frame 20, and no other."""
    frames = np.load(DATA / "sb_series_26x40x75.npz")["frames"]
    changes = [e.time_s for e in analyze(frames, 1.0).events if e.kind == "change"]
    assert len(changes) == 2
    assert 1 <= changes[0] <= 3
    assert 17 <= changes[1] <= 24


@pytest.mark.slow
@pytest.mark.parametrize("spec", [{}, {"rate_ml_s": 0.1}, {"drift_px_s": (0.05, 0.05)}, {"rate_ml_s": 0.0}])
def test_plain_growth_is_no_change(spec: dict) -> None:
    """Growth, drift and rest cause no change event."""
    assert [e for e in Film(25, **spec).analysed().events if e.kind == "change"] == []


def test_roughening_is_a_change() -> None:
    """A change from streaks to spots is detected within three seconds and becomes a new cluster."""
    answer = Film(18, roughening_at_s=10.0).analysed()
    changes = [e.time_s for e in answer.events if e.kind == "change"]
    assert len(changes) == 1
    assert 9 < changes[0] < 13
    assert answer.frames["cluster_id"][-1] != answer.frames["cluster_id"][600]


def test_rate_of_false_alarms_is_as_stated() -> None:
    """White noise gives about one alarm per stated run length."""
    rng = np.random.default_rng(5)
    alarms, cusum = 0, Cusum()
    for deviates in rng.normal(size=(40000, 3)):
        if cusum.feed(deviates, 2000):
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
    """Under rotation, mean pictures of whole turns are compared: growth is no change, roughening is one."""
    plain = {"fps": 20.0, "rpm": 30.0, "rate_ml_s": 0.31}
    assert [e for e in Film(50, **plain).analysed().events if e.kind == "change"] == []
    answer = Film(46, roughening_at_s=24.0, **plain).analysed()
    changes = [e.time_s for e in answer.events if e.kind == "change"]
    assert len(changes) == 1
    assert 22 < changes[0] < 32
