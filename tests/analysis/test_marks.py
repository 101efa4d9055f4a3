"""Marks of the user in any order, before the pattern is found, and changes of the rotation at their own time."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer, Calibration
from tests.analysis.growth_helpers import FPS, RATE, growth_at_rest


def test_a_mark_before_the_last_one_leaves_its_count() -> None:
    """A mark that comes late, with a time before the last one, does not move the begin of the count back."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:120])
    engine.mark("B", "note", 5.0)
    engine.mark("A", "note", 2.0)
    values = engine.feed(120, growth_at_rest()[120:]).values
    assert values["counted_since_s"].value == 5.0
    assert values["oscillations_since_mark"].value == pytest.approx(RATE * 3.0, abs=0.3)


def test_a_late_mark_divides_the_segment_before() -> None:
    """The segment of the later mark goes on with its rate and count; the one before it is divided at the late mark."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:110])
    engine.mark("B", "shutter", 5.0)
    engine.feed(110, growth_at_rest()[110:150])
    engine.mark("A", "shutter", 2.0)
    batch = engine.feed(150, growth_at_rest()[150:])
    found = [(one.number, one.label, one.start_s, round(one.end_s, 2)) for one in batch.segments]
    assert found == [(0, "start", 0.0, 2.0), (1, "A", 2.0, 5.0), (2, "B", 5.0, 7.95)]
    counts = [one.counted.value for one in batch.segments]
    assert counts == pytest.approx([RATE * 2.0, RATE * 3.0, RATE * 3.0], abs=0.4)
    assert batch.segments[1].counted.sigma > 0.5  # it is unknown whether growth paused in one of the parts
    assert "divided" in batch.segments[1].counted.note
    assert "late" in batch.segments[1].recovery.why
    assert batch.values["layers_grown"].value == pytest.approx(RATE * 3.0, abs=0.3)
    assert batch.values["layers_total"].value == pytest.approx(RATE * 8.0, abs=0.4)


def test_a_late_mark_outside_of_all_segments_changes_none() -> None:
    """A mark before the first frame, after a mark that began a segment, is listed and divides nothing."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:100])
    engine.mark("B", "shutter", 4.0)
    engine.mark("A", "shutter", -1.0)
    batch = engine.feed(100, growth_at_rest()[100:120])
    assert [(one.label, one.start_s) for one in batch.segments] == [("start", 0.0), ("B", 4.0)]
    assert [event.label for event in batch.events if event.kind == "shutter"] == ["B", "A"]


def test_marks_before_the_pattern_is_found() -> None:
    """Marks that came before there was a pattern divide the growth at their own times, in the order of these."""
    engine = Analyzer(FPS)
    engine.mark("note", "note", 0.08)
    engine.mark("open", "shutter", 0.05)
    engine.mark("before", "shutter", -0.5)
    batch = engine.feed(0, growth_at_rest()[:60])
    assert batch.values["counted_since_s"].value == 0.08
    assert [(one.label, one.start_s) for one in batch.segments] == [("start", 0.0), ("open", 0.05)]


def test_without_a_pattern_the_count_has_a_reason() -> None:
    """Each count is undetermined for the reason of the rate, also the one since the last mark."""
    noise = np.random.default_rng(2).integers(0, 5, (40, 64, 64), dtype=np.uint8)
    values = Analyzer(FPS).feed(0, noise).values
    assert values["oscillations_since_mark"] == values["oscillations_counted"]
    assert values["oscillations_since_mark"].why


def test_a_rotation_begins_at_its_own_time() -> None:
    """The segment and the count begin at the time of the change, not at the last frame before it."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:80])
    engine.set_rotation(5.0, 4.3)
    batch = engine.feed(80, growth_at_rest()[80:100])
    assert batch.values["counted_since_s"].value == 4.3
    assert batch.segments[-1].start_s == 4.3
    engine.set_rotation(0.0)
    assert engine.feed(100, growth_at_rest()[100:110]).values["counted_since_s"].value == pytest.approx(
        99 / FPS
    )


def test_a_late_change_of_the_rotation_does_not_change_the_speed() -> None:
    """Of two changes the one with the later time sets the speed, whichever arrived last."""
    engine = Analyzer(FPS)
    engine.feed(0, growth_at_rest()[:100])
    engine.set_rotation(5.0, 4.0)
    engine.set_rotation(30.0, 2.0)
    batch = engine.feed(100, growth_at_rest()[100:120])
    assert engine._state.rpm == 5.0
    assert [one.label for one in batch.segments] == ["start", "rotation at 30 rpm", "rotation at 5 rpm"]


def test_the_first_shutter_mark_of_a_shuttered_growth() -> None:
    """A growth that is declared as shuttered has no rate of growth, from its first shutter mark on."""
    engine = Analyzer(FPS, growth_is_continuous=False)
    engine.feed(0, growth_at_rest()[:60])
    engine.mark("open", "shutter", 2.0)
    batch = engine.feed(60, growth_at_rest()[60:120])
    assert [one.label for one in batch.segments] == ["start"]
    assert batch.values["counted_since_s"].value == 2.0
    assert "shuttered" in batch.values["layers_grown"].why


def test_the_layers_in_all_name_their_condition() -> None:
    """The sum stays determined where the rate is not; its note states what it does not include."""
    engine = Analyzer(FPS, calibration=Calibration(layer_thickness_nm=0.4))
    values = engine.feed(0, growth_at_rest()[:80]).values
    for name in ("layers_total", "thickness_nm"):
        assert values[name].value is not None
        assert (
            "if each oscillation is one layer; growth without oscillations is not counted"
            in values[name].note
        )
