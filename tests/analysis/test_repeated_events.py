"""Events that repeat often are reported together."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.repeated_events import RepeatedEvents
from atomstream.results import Event
from tests.analysis.spot_film import spot_film

FPS = 20.0


def test_repeated_drop_outs_are_reported_together() -> None:
    """Five drop-outs in 5 s: the first one at once, the others in one event with the deepest of them."""
    light = np.ones(110)
    for start in range(20, 105, 18):
        light[start : start + 2] = 0.1 if start == 56 else 0.4
    frames = spot_film(np.ones(110), shape=(60, 80), light=light, fwhm=(6.6, 3.0))
    engine = Analyzer(FPS)
    first, last = engine.feed(0, frames).events, engine.finish().events
    assert [(e.kind, round(e.at_s * FPS)) for e in (*first, *last)] == [("dropout", 20), ("dropout", 38)]
    assert last[0].value == pytest.approx(0.1, abs=0.02)
    assert "changed 4 times" in last[0].label


def test_many_events_wait_for_the_next_report() -> None:
    """Fifty events in 25 s: one at once, then one every ten seconds; none is lost, also in a calm after them."""
    repeated, reported = RepeatedEvents(), []
    for i in range(50):
        reported += repeated.add(Event(0.5 * i, "gap", "", 2.0), 0.5 * i)
    assert [(e.at_s, e.value) for e in reported] == [(0.0, 2.0), (0.5, 38.0), (10.0, 40.0)]
    assert [(e.at_s, e.value) for e in repeated.due(100.0)] == [(20.0, 20.0)]
    assert repeated.report() == []
    assert [e.value for e in repeated.add(Event(101.0, "gap", "", 1.0), 101.0)] == [1.0]


def test_rare_events_are_reported_at_once() -> None:
    """Events more than ten seconds apart do not wait."""
    repeated = RepeatedEvents()
    for now in (0.0, 11.0, 22.0, 33.0):
        event = Event(now, "dropout", "", 0.1)
        assert repeated.add(event, now) == [event]
    assert repeated.report() == []
