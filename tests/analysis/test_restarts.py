"""Trackers discard the earlier pictures wherever these cannot be compared with the later ones."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy as np
import pytest

from atomstream.analysis import Analyzer, Box, commands
from atomstream.analysis.stream_state import PatternTrackers, Restart
from tests.analysis.spot_film import spot_film

FPS = 10.0
ALL = {"change", "sudden", "chooser", "common", "orders"}


def _film(count: int) -> np.ndarray:
    return spot_film(np.ones(count), shape=(60, 80), fwhm=(6.6, 3.0))


@cache
def _state() -> dict[str, Any]:
    engine = Analyzer(FPS)
    engine.feed(0, _film(30))
    assert _with_pictures(engine) == ALL
    return engine.state()


def _fed() -> Analyzer:
    """Return an analysis of 30 frames at rest, whose trackers all hold pictures."""
    return Analyzer.from_state(_state())


def _trackers(engine: Analyzer) -> PatternTrackers:
    trackers = engine._state.trackers
    assert trackers is not None
    return trackers


def _with_pictures(engine: Analyzer) -> set[str]:
    """Return which trackers hold earlier pictures."""
    trackers = _trackers(engine)
    held = {
        "change": trackers.change.recent,
        "sudden": trackers.sudden.recent,
        "chooser": trackers.chooser.pictures,
        "common": trackers.common.samples,
        "orders": trackers.surface.detectors[0].levels,
    }
    return {name for name, pictures in held.items() if len(pictures)}


@pytest.mark.parametrize("why", get_args(Restart))
def test_what_a_restart_discards(why: Restart) -> None:
    """A gap ends the comparison of consecutive frames only; every other reason ends the slow comparisons too."""
    engine = _fed()
    _trackers(engine).restart(why)
    kept = {"gap": {"change", "chooser", "common"}, "light": {"sudden"}, "pattern": {"sudden"}}
    assert _with_pictures(engine) == kept.get(why, set())


def test_commands_restart_the_trackers() -> None:
    """The user's commands discard the pictures: a gap, another rotation, another specular box."""
    engine = _fed()
    engine.gap(20)
    commands.end_skip(engine._state)
    assert _with_pictures(engine) == {"change", "chooser", "common"}
    engine = _fed()
    engine.set_rotation(5.0)
    assert _with_pictures(engine) == set()
    engine = _fed()
    engine.set_regions([Box(40, 25, 5, 9, "specular", tracked=True)])
    assert _with_pictures(engine) == set()


def test_a_new_specular_box_begins_a_segment() -> None:
    """The trace of another box is another trace: the segment ends, and the new one has no sample of the old box."""
    engine, film = _fed(), _film(70)
    old = _trackers(engine).growth.trace.since(0.0)[1].mean()
    spot, mine = engine.regions[0], Box(60, 20, 8, 8, "mine", tracked=True)
    other = Box(spot.x, spot.y, spot.width, 4.0, "specular", tracked=True)
    engine.set_regions([other, mine])
    batch = engine.feed(30, film[30:60])
    assert [s.label for s in batch.segments] == ["start", "the specular box was set"]
    begin_s = batch.segments[0].end_s
    t, y = _trackers(engine).growth.trace.since(0.0)
    assert t[0] > begin_s == batch.segments[1].start_s
    assert y.max() < 0.8 * old
    spot_tracker, mine_tracker = _trackers(engine).spot, engine._state.box_trackers["mine"]
    engine.set_regions([other, mine, Box(20, 20, 5, 5, "another")])
    assert _trackers(engine).spot is spot_tracker
    assert engine._state.box_trackers["mine"] is mine_tracker
    assert len(engine.feed(60, film[60:]).segments) == 2
