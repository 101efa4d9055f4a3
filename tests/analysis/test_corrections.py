"""Marks that the user corrects while the analysis runs: what was joined and counted is what it was without the mark."""

from __future__ import annotations

import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.layer_count import LayerCounter
from tests.analysis.growth_helpers import FPS, RATE, growth_at_rest


def engine_with_two_marks() -> Analyzer:
    """An analysis of 7 s with shutter marks at 2 s and 5 s, each set at its time."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:40])
    engine.mark("A", "shutter", 2.0)
    engine.feed(40, growth_at_rest()[40:100])
    engine.mark("B", "shutter", 5.0)
    engine.feed(100, growth_at_rest()[100:140])
    return engine


def test_the_last_mark_is_removed() -> None:
    """The segment of a removed last mark joins the one before, and all counts begin at the mark before it."""
    engine = engine_with_two_marks()
    assert engine.unmark("B", "shutter", 5.0)
    batch = engine.feed(140, growth_at_rest()[140:])
    assert [(one.label, one.start_s) for one in batch.segments] == [("start", 0.0), ("A", 2.0)]
    assert batch.values["counted_since_s"].value == 2.0
    for name in ("oscillations_since_mark", "oscillations_counted"):
        assert batch.values[name].value == pytest.approx(RATE * 6.0, abs=0.5)
    assert batch.segments[1].counted.value == pytest.approx(RATE * 6.0, abs=0.5)


def test_an_earlier_mark_is_removed() -> None:
    """The two segments that met there are one; the count since the last mark stays."""
    engine = engine_with_two_marks()
    assert engine.unmark("A", "shutter", 2.0)
    batch = engine.feed(140, growth_at_rest()[140:])
    assert [(one.number, one.label, one.start_s) for one in batch.segments] == [
        (0, "start", 0.0),
        (1, "B", 5.0),
    ]
    first = batch.segments[0]
    assert first.end_s == 5.0
    assert first.counted.value == pytest.approx(RATE * 5.0, abs=0.5)
    assert first.rate.value == pytest.approx(RATE, rel=0.1)
    assert "joined" in first.recovery.why
    assert batch.values["oscillations_since_mark"].value == pytest.approx(RATE * 3.0, abs=0.3)


def test_what_was_never_set_changes_nothing() -> None:
    """Another label, kind or time is not a mark; without a pattern a removed mark divides nothing later."""
    engine = engine_with_two_marks()
    assert not engine.unmark("C", "shutter", 5.0)
    assert not engine.unmark("B", "laser", 5.0)
    assert not engine.unmark("B", "shutter", 4.0)
    early = Analyzer(FPS)
    early.mark("open", "shutter", 0.05)
    assert early.unmark("open", "shutter", 0.05)
    batch = early.feed(0, growth_at_rest()[:60])
    assert [one.label for one in batch.segments] == ["start"]


def test_a_removed_change_of_the_rotation() -> None:
    """The speed is that of the change before it, else the stated one; the segment ends with it."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:60])
    engine.set_rotation(6.0, 3.0)
    engine.set_rotation(12.0, 4.0)
    assert engine.unmark("rotation at 12 rpm", "rotation", 4.0, rpm=0.0)
    assert engine._state.rpm == 6.0
    assert engine.unmark("rotation at 6 rpm", "rotation", 3.0, rpm=0.0)
    assert engine._state.rpm == 0.0


def test_a_count_since_a_time_in_an_earlier_run() -> None:
    """Runs after that time count whole, the one in which it lies in proportion, with the doubt about its parts."""
    counter = LayerCounter(0.0, finished=14.0, runs=[(0.0, 5.0, 10.0), (8.0, 10.0, 4.0)], ended_s=10.0)
    part = counter.since(4.0)
    assert part.runs == [(4.0, 5.0, pytest.approx(2.0)), (8.0, 10.0, 4.0)]
    assert part.value(20.0) == pytest.approx(6.0)
    assert part.sigma(20.0) == pytest.approx(0.5 * 0.2 * 10.0)
    assert counter.value(20.0) == 14.0
    running = LayerCounter(0.0, onset_s=0.0, counted=10.0, phase_time_s=5.0, rate=2.0)
    assert running.since(4.0).value(5.0) == pytest.approx(2.0)
    assert running.since(6.0).value(5.0) == 0.0
