"""The count of layers: at any time, without light, over gaps in the frames, and at marks that come late."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from atomstream.analysis import Analyzer, Calibration
from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.illumination import CorrectedTrace
from atomstream.analysis.segments import SegmentLog
from tests.analysis.growth_helpers import Film
from tests.analysis.traces import FPS, cusps, layers_of, watch

RATE = 0.8


@pytest.fixture(scope="module")
def grown() -> GrowthTracker:
    layers = RATE * np.arange(round(14 * FPS)) / FPS
    _, _, tracker = watch(cusps(layers), layers)
    return tracker


@pytest.fixture
def growing(grown: GrowthTracker) -> GrowthTracker:
    """A tracker after 14 s of steady growth at 0.8 layers per second."""
    return copy.deepcopy(grown)


def _feed(tracker: GrowthTracker, t: np.ndarray, layers: np.ndarray) -> None:
    y = cusps(layers) + np.random.default_rng(4).normal(0, 0.01, len(t))
    tracker.feed(CorrectedTrace(t, y, np.ones(len(t)), np.full(len(t), np.nan)))


@pytest.mark.parametrize("time_s", [3.0, 8.3, 12.1, 14.0])
def test_the_count_at_an_earlier_time(growing: GrowthTracker, time_s: float) -> None:
    """The count at a time in the past is what had grown then, also after a later count was reported."""
    if time_s < 12.0:
        growing.counter.report(14.0)
    assert growing.counter.value(time_s) == pytest.approx(RATE * time_s, abs=0.1)
    assert growing.counter.value(14.0) == pytest.approx(RATE * 14.0, abs=0.1)


def test_a_mark_in_the_past_divides_the_count(growing: GrowthTracker) -> None:
    """Layers between a late mark and now are counted in the new segment only."""
    log = SegmentLog([])
    log.cut(12.1, "shutter", growing)
    assert log.finished[0].counted.value == pytest.approx(RATE * 12.1, abs=0.1)
    for now in np.arange(14.5, 18.0, 0.5):
        t = now - 0.5 + np.arange(round(FPS / 2)) / FPS
        _feed(growing, t, RATE * t)
        growing.update(float(now))
    assert growing.oscillations_counted(17.5).value == pytest.approx(RATE * (17.5 - 12.1), abs=0.15)


def test_asking_for_the_count_changes_nothing(growing: GrowthTracker) -> None:
    """A count that was computed for a later time, or twice, has no effect on the next one."""
    before = growing.oscillations_counted(14.0)
    growing.oscillations_counted(15.0)
    growing.segment_counted(15.3)
    assert growing.oscillations_counted(14.0) == before


def test_without_light_rate_and_count_end(growing: GrowthTracker) -> None:
    """No samples: the count goes on for at most 1.2 periods, and the rate is withdrawn with the reason."""
    last = growing.oscillations_counted(14.0).value
    assert last is not None
    for now in np.arange(14.5, 60.0, 0.5):
        growing.update(float(now))
        counted = growing.oscillations_counted(float(now)).value
        assert counted is not None
        assert last - 1e-9 <= counted < RATE * 14.0 + 1.4
        last = counted
        if now > 14.0 + 7.5:
            assert "no light or no frames since 14.0 s" in growing.latest.rate.why
    sigma = growing.oscillations_counted(60.0).sigma
    assert sigma is not None
    assert abs(last - RATE * 14.0) < 1.5 * sigma


@pytest.mark.parametrize("grew_on", [True, False])
def test_the_uncertainty_covers_a_gap_in_the_frames(growing: GrowthTracker, grew_on: bool) -> None:
    """It is unknown whether growth went on while no frames came: the uncertainty covers both cases."""
    gap_s, whole = 15.0, RATE * 14.0
    for now in np.arange(29.5, 42.0, 0.5):
        t = now - 0.5 + np.arange(round(FPS / 2)) / FPS
        layers = RATE * (t if grew_on else t - gap_s)
        _feed(growing, t, layers)
        growing.update(float(now))
        whole = float(layers[-1])
    counted = growing.oscillations_counted(41.5)
    assert counted.value is not None
    assert counted.sigma is not None
    assert abs(counted.value - whole) < 2.5 * counted.sigma


def test_a_mark_before_a_found_end_cuts_there(growing: GrowthTracker) -> None:
    """A mark whose time is before segments that were found since removes or shortens them: none overlap."""
    log = SegmentLog([])
    growing._end_segment(9.0, "growth_stopped")
    growing._end_segment(11.0, "growth_began")
    for segment in growing.pop_found():
        log.add(segment, growing.trace)
    log.cut(7.0, "shutter", growing)
    assert [(one.start_s, one.end_s) for one in log.finished] == [(0.0, 7.0)]
    assert growing.segment_start_s == 7.0


def test_a_segment_of_no_length_only_changes_the_label(growing: GrowthTracker) -> None:
    """A pause of no duration is not a segment; the present segment is named after the change of the rate."""
    log = SegmentLog([])
    growing._end_segment(9.0, "growth_stopped")
    growing._end_segment(9.0, "rate_changed")
    for segment in growing.pop_found():
        log.add(segment, growing.trace)
    assert [(one.start_s, one.end_s) for one in log.finished] == [(0.0, 9.0)]
    assert log.label == "the rate changed"


def test_a_veto_keeps_an_older_rate(growing: GrowthTracker) -> None:
    """A cause that is found now takes back a rate of the last half minute, not one measured long before."""
    old = growing.best
    assert old is not None
    growing.veto = "all of the picture brightens and darkens"
    growing.update(14.5)
    assert growing.best is None
    growing.best = old
    growing.update(14.0 + 60.0)
    assert growing.best is old


def test_the_trace_before_a_veto_is_not_searched_again(growing: GrowthTracker) -> None:
    """After a veto the search begins at its end: the oscillation that it concerned is not found again."""
    growing.veto = "all of the picture brightens and darkens"
    growing.update(14.5)
    growing.veto = ""
    for now in np.arange(15.0, 22.0, 0.5):
        t = now - 0.5 + np.arange(round(FPS / 2)) / FPS
        _feed(growing, t, np.zeros(len(t)))
        assert not growing.update(float(now)).determined


@pytest.mark.parametrize(("rate", "interval_s"), [(6.0, 1.0), (2.5, 2.9), (0.1, 1.0)])
def test_the_count_goes_on_between_two_fits(growing: GrowthTracker, rate: float, interval_s: float) -> None:
    """Fast growth has several periods between two fits; slow growth goes on for more than one period."""
    counter = growing.counter
    counter.rate, counter.fit_interval_s = rate, interval_s
    counted, last_s = counter.value(counter.phase_time_s), counter.phase_time_s
    longest_s = max(interval_s, 1.2 / rate)
    counter.reported = 0.0
    assert counter.value(last_s + longest_s) - counted == pytest.approx(rate * longest_s, abs=0.01)
    assert counter.value(last_s + 2 * longest_s) - counted == pytest.approx(rate * longest_s, abs=0.01)


def test_counts_go_on_over_pauses_and_new_traces(growing: GrowthTracker) -> None:
    """A pause begins a segment; the counts since a note and since the start are the sums over the segments."""
    growing.counts.begin_mark(14.0)
    log = SegmentLog([])

    def layers_at(t: np.ndarray) -> np.ndarray:
        return RATE * np.interp(t, [0, 17, 21, 31], [0, 17, 17, 27])

    for now in np.arange(14.5, 31.5, 0.5):
        t = now - 0.5 + np.arange(round(FPS / 2)) / FPS
        _feed(growing, t, layers_at(t))
        growing.update(float(now))
        if now == 17.0:
            log.cut(17.0, "shutter closed", growing)
        if now == 21.0:
            log.cut(21.0, "shutter open", growing)
    segments = log.segments(31.0, growing)
    grown = [RATE * 17, 0.0, RATE * 10]
    assert [s.counted.value or 0.0 for s in segments] == pytest.approx(grown, abs=0.2)
    counts = growing.counts
    for counter, true in ((counts.mark, RATE * 13), (counts.total, RATE * 27), (counts.segment, RATE * 10)):
        counted = growing.counted(counter, 31.0, "layers")
        assert counted.value == pytest.approx(true, abs=0.3)
        assert counted.sigma is not None
        assert abs(counted.value - true) < 3 * counted.sigma < 1.0


def test_a_mark_in_an_earlier_run_takes_back_what_grew_since(growing: GrowthTracker) -> None:
    """A late mark, before a pause that was found, leaves in the total what had grown at its time."""
    growing.counts.end_run(14.0)
    growing.counts.total.cut(7.0)
    assert growing.counts.total.value(14.0) == pytest.approx(RATE * 7.0, abs=0.1)


def test_another_box_and_notes_keep_the_whole_count() -> None:
    """Another specular box begins a trace; layers and thickness in nm are those of the whole growth."""
    film = Film(16.0, fps=20.0, rate_ml_s=1.5, tau_ml=60.0)
    engine = Analyzer(20.0, calibration=Calibration(layer_thickness_nm=0.4))
    engine.feed(0, film[0:80])
    engine.mark("Mark 1", "note", 4.0)
    engine.feed(80, film[80:180])
    spot = next(region for region in engine.regions if region.name == "specular")
    engine.set_regions([replace(spot, tracked=True)])
    values = engine.feed(180, film[180:320]).values
    assert values["oscillations_counted"].value == pytest.approx(1.5 * 7.0, abs=0.3)
    assert values["oscillations_since_mark"].value == pytest.approx(1.5 * 12.0, abs=0.3)
    assert values["counted_since_s"].value == 4.0
    total, thickness = values["layers_total"], values["thickness_nm"]
    assert total.value == pytest.approx(1.5 * 16.0, abs=0.3)
    assert thickness.value == pytest.approx(0.4 * total.value)
    assert thickness.sigma == pytest.approx(0.4 * total.sigma)
    assert 0.0 < total.sigma < 0.5


@pytest.mark.parametrize(
    ("rate", "grows_s", "slows_s"), [(0.5, 10.0, 6.0), (0.8, 8.0, 4.0), (0.35, 16.0, 8.0), (0.5, 12.0, 8.0)]
)
def test_the_uncertainty_covers_growth_that_slows_down(rate: float, grows_s: float, slows_s: float) -> None:
    """A rate that falls to zero within some layers ends the count too early: its sigma covers this."""
    t = np.arange(round((grows_s + slows_s + 8.0) * FPS)) / FPS
    layers = layers_of(rate * np.clip((grows_s + slows_s - t) / slows_s, 0.0, 1.0))
    looks, _, _ = watch(cusps(layers), layers)
    counted = looks[-1].counted
    assert counted.value is not None
    assert counted.sigma is not None
    assert abs(counted.value - looks[-1].grown) < 2.5 * counted.sigma
    assert counted.sigma > 0.5


def test_the_uncertainty_is_small_where_growth_ends_at_once() -> None:
    """An end within a layer is seen as such: nothing is added to the uncertainty of the count."""
    t = np.arange(round(20.0 * FPS)) / FPS
    layers = layers_of(np.where(t < 10.0, 0.5, 0.0))
    looks, _, _ = watch(cusps(layers), layers)
    counted = looks[-1].counted
    assert counted.value == pytest.approx(looks[-1].grown, abs=0.2)
    assert (counted.sigma or 1.0) < 0.4
    assert "gone on" not in counted.note


def test_growth_that_goes_on_at_another_rate_takes_the_doubt_back() -> None:
    """Where a new rate is found at once, nothing was missed in between, and the uncertainty is small again."""
    t = np.arange(round(30.0 * FPS)) / FPS
    layers = layers_of(np.where(t < 12.0, 0.5, 0.7))
    looks, _, tracker = watch(cusps(layers), layers)
    counted = looks[-1].counted
    assert tracker.counter.slowed_variance == 0.0
    assert counted.value == pytest.approx(looks[-1].grown, abs=0.3)
    assert (counted.sigma or 1.0) < 0.4
