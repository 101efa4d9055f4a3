"""Frames that the camera dropped are counted by its frame counter."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.missing_frames import MissingFrames
from atomstream.analysis.time_gaps import STEPS_NEEDED, TimeGaps
from atomstream.errors import ConfigError
from atomstream.records import FrameMeta
from atomstream.server.archive.records import ChunkTimes

FPS = 30.0


def counted(ids: list[int], step: int = 20) -> list[tuple[float, float]]:
    """Feed counters in parts; return (time, number of missing frames) of each report, times in frames."""
    missing, events = MissingFrames(), []
    numbers = np.array(ids)
    times = (numbers - numbers[0]) / FPS
    for i in range(0, len(ids), step):
        events += missing.add(times[i : i + step], numbers[i : i + step], FPS)
    events += missing.report(FPS)
    return [(round(e.at_s * FPS), e.value) for e in events]


@pytest.mark.parametrize("step", [1, 7, 50])
def test_a_gap_is_counted_wherever_it_lies(step: int) -> None:
    """Frames 30 to 41 are missing, within one call or between two: one event with 12 frames at its begin."""
    assert counted([*range(30), *range(42, 80)], step) == [(30, 12.0)]


def test_many_small_gaps_are_reported_together() -> None:
    """Each tenth of 1000 frames is missing: all are counted, in a few events."""
    ids = [i for i in range(1000) if i % 10 != 5]
    reports = counted(ids)
    assert sum(n for _, n in reports) == 100
    assert len(reports) <= 5
    assert all(counted(ids, step) == reports for step in (1, 7, 300, 900))


def test_a_large_gap_does_not_wait() -> None:
    """A large gap is reported alone and at once; the small ones before it wait for their own report."""
    ids = [*range(20), *range(21, 30), *range(31, 40), *range(60, 100)]
    assert counted(ids, 100) == counted(ids, 1) == [(20, 1.0), (40, 20.0), (30, 1.0)]


@pytest.mark.parametrize("step", [1, 3, 20])
def test_unknown_counters_and_restarts_are_no_gaps(step: int) -> None:
    """Counters of -1, a counter that starts again, and one that jumps far give no gaps; 7 and 8 are the two of -1."""
    assert counted([5, 6, -1, -1, 7, 8], step) == []
    assert counted([5, 6, -1, -1, 9, 10], step) == []
    assert counted([2**63 - 1, -1, -1, 0, 1], step) == []
    assert counted([50, 51, 0, 1, 2], step) == []
    assert counted([1, 2, 5_000_000_000, 5_000_000_001], step) == []


def test_the_analysis_counts_within_a_call() -> None:
    """The counters of a call give one event, also over the state of a stored analysis."""
    frames = np.full((40, 16, 16), 9, np.uint8)
    ids = np.array([*range(10), *range(25, 55)])
    engine = Analyzer(FPS)
    events = list(engine.feed(0, frames[:20], ids[:20] / FPS, ids[:20]).events)
    engine = Analyzer.from_state(engine.state())
    events += engine.feed(20, frames[20:], ids[20:] / FPS, ids[20:]).events
    assert [(e.kind, e.value) for e in events] == [("gap", 15.0)]
    with pytest.raises(ConfigError, match="one counter per frame"):
        engine.feed(40, frames[:5], None, [1, 2])


def test_times_of_a_chunk_follow_the_counter() -> None:
    """Without times of the single frames, the counter shows where frames are missing; otherwise they are even."""
    counters = FrameMeta(ids=(7, 8, 11))
    chunk = ChunkTimes((3, 16, 16), 10.0, 1000.0, 1400.0, meta=counters)
    assert chunk.times_unix_ms().tolist() == [1000.0, 1100.0, 1400.0]
    again = ChunkTimes((3, 16, 16), 10.0, 1000.0, 1400.0, meta=FrameMeta(ids=(7, 3, 4)))
    assert again.times_unix_ms().tolist() == [1000.0, 1100.0, 1200.0]


@pytest.mark.parametrize("ids", [[1, 2], [1.5] * 5, ["1"] * 5, [2**63] * 5, [2**64] * 5])
def test_wrong_counters_change_nothing(ids: list) -> None:
    """Counters that are refused leave the analysis as it was: the frames can be fed again with right ones."""
    frames = np.full((5, 16, 16), 9, np.uint8)
    engine = Analyzer(FPS)
    engine.feed(0, frames)
    with pytest.raises(ConfigError, match="frame_ids"):
        engine.feed(20, frames, None, ids)
    assert engine.frames_fed == 5
    assert [e.kind for e in engine.feed(5, frames, None, range(5, 10)).events] == []


GREY = np.full((40, 16, 16), 9, np.uint8)


def gaps_of(*chunks: tuple[int, np.ndarray, np.ndarray | None]) -> list[tuple[float, float]]:
    """Feed chunks (index, times in frames, counters); return (time in frames, missing frames) of each gap."""
    engine, events = Analyzer(FPS), []
    for index, times, ids in chunks:
        events += engine.feed(index, GREY[: len(times)], times / FPS, ids).events
    events += engine.finish().events
    assert {e.kind for e in events} <= {"gap"}
    return [(round(e.at_s * FPS), e.value) for e in events]


def test_room_in_a_short_chunk_is_not_missing() -> None:
    """After 37 of 40 frames the next chunk goes on: nothing is missing by times or counters; 5 frames are missing if
    times or counters show it.
    """
    first, second = np.arange(37), np.arange(37, 77)
    assert gaps_of((0, first, None), (40, second, None)) == []
    assert gaps_of((0, first, first), (40, second, second)) == []
    assert gaps_of((0, first, first), (40, second + 5, second + 5)) == [(37, 5.0)]
    assert gaps_of((0, first, None), (40, second + 5, None)) == [(37, 5.0)]


def test_a_lost_chunk_is_counted_in_frames() -> None:
    """Between chunks 0 and 2, 40 frames are missing; with short chunks around it, as many as their times show."""
    whole = np.arange(40)
    assert gaps_of((0, whole, None), (80, whole + 80, None)) == [(40, 40.0)]
    assert gaps_of((0, whole[:30], None), (80, whole + 65, None)) == [(30, 35.0)]
    assert gaps_of((80, whole + 80, None)) == [(0, 80.0)]


@pytest.mark.parametrize("fps", [5.0, 30.0, 120.0])
@pytest.mark.parametrize("step", [1, 7, 500])
def test_gaps_by_times(fps: float, step: int) -> None:
    """Without counters, frames that stay late show a gap with its place; a stall that catches up and jitter do not."""
    count = round(6.0 * fps)
    true = np.arange(count) / fps
    shown = true + np.random.default_rng(2).uniform(0, 0.2 / fps, count)
    at, lost = round(2.0 * fps), max(8, round(0.4 * fps))
    paused = shown + np.where(np.arange(count) >= at, lost / fps, 0.0)
    stalled = np.maximum(shown, np.where((true >= 2.0) & (true < 3.0), 3.0, 0.0))

    def found(times: np.ndarray) -> list[tuple[float, float]]:
        gaps, events = TimeGaps(), []
        for first in range(0, count, step):
            events += gaps.add(times[first : first + step], fps)
        return [(e.at_s, e.value) for e in [*events, *gaps.report(fps)]]

    assert found(shown) == found(np.maximum.accumulate(stalled)) == []
    ((at_s, value),) = found(paused)
    assert value == pytest.approx(lost, abs=1)
    assert at_s == pytest.approx(true[at], abs=2.0 / fps)


@pytest.mark.parametrize(("fps", "missing"), [(10.0, 0.05), (30.0, 0.2), (120.0, 0.1)])
@pytest.mark.parametrize("step", [1, 7, 500])
def test_single_missing_frames_by_even_times(fps: float, missing: float, step: int) -> None:
    """In even stamps each missing frame is counted without counters; a late frame and a slower camera miss none."""
    rng = np.random.default_rng(4)
    true = np.arange(round(20.0 * fps)) / fps + rng.uniform(-0.01, 0.01, round(20.0 * fps)) / fps
    lost = rng.random(len(true)) < missing
    lost[: 2 * STEPS_NEEDED], lost[-2 * STEPS_NEEDED :] = False, False
    late = true + np.where(np.arange(len(true)) % 50 == 25, 0.9 / fps, 0.0)
    slower = np.where(true < 10.0, true, 2.0 * true - 10.0)

    def found(times: np.ndarray) -> float:
        gaps, events = TimeGaps(), []
        for first in range(0, len(times), step):
            events += gaps.add(times[first : first + step], fps)
        return sum(e.value for e in [*events, *gaps.report(fps)])

    assert found(true[~lost]) == lost.sum()
    assert found(true) == found(late) == found(slower) == 0
