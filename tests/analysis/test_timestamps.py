"""Frame times of a host that stalls: late timestamps are corrected, pauses are kept, unknown times are NaN."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.timestamps import clock_uncertainty, corrected_times, frame_period
from atomstream.analysis.trace import IntensityTrace
from atomstream.sources import GrowthSpec, Simulator
from tests.analysis.growth_helpers import Film
from tests.cells import grid

FPS, SECONDS, RATE = 120.0, 10.0, 0.8


@cache
def _frames() -> np.ndarray:
    film = Film(SECONDS, rate_ml_s=RATE, height=96, width=128)
    return film[0 : len(film)]


def _true() -> np.ndarray:
    return np.arange(round(SECONDS * FPS)) / FPS


def _stalled(times: np.ndarray, begin: float, length: float) -> np.ndarray:
    """Timestamps after a stall: the frames of the stall are stamped at its end, 1 ms apart."""
    inside = (times >= begin) & (times < begin + length)
    late = np.where(inside, begin + length + 0.001 * np.cumsum(inside), times)
    return np.maximum.accumulate(late)


def _every(times: np.ndarray, period: float, length: float) -> np.ndarray:
    for begin in np.arange(1.0, times[-1], period):
        times = _stalled(times, begin, length)
    return times


def _half_frame(times: np.ndarray) -> np.ndarray:
    return times + np.random.default_rng(4).uniform(-0.5, 0.5, len(times)) / FPS


DISTORTIONS = {
    "jitter of half a frame": _half_frame,
    "200 ms each 2 s": lambda t: _every(t, 2.0, 0.2),
    "200 ms each 2 s and jitter": lambda t: _every(_half_frame(t), 2.0, 0.2),
    "one stall of 1.5 s": lambda t: _stalled(t, 6.3, 1.5),
    "a stall at the very start": lambda t: _stalled(t, 0.0, 1.5),
    "one stall at the end": lambda t: _stalled(t, SECONDS - 0.8, 2.0),
    "stamped by chunks of 0.5 s": lambda t: np.ceil((t + 1e-9) / 0.5) * 0.5,
    "whole milliseconds": lambda t: np.floor(1000 * t) / 1000,
}


def _rates(times: np.ndarray, frames: np.ndarray | None = None) -> tuple[object, np.ndarray, np.ndarray]:
    engine, frames = Analyzer(FPS), _frames() if frames is None else frames
    parts = [engine.feed(i, frames[i : i + 60], times[i : i + 60]) for i in range(0, len(times), 60)]
    parts.append(engine.finish())
    rate, sigma = (
        np.concatenate([p.frames[k] for p in parts]) for k in ("growth_rate_ml_s", "growth_rate_sigma")
    )
    return parts[-1].values["growth_rate_ml_s"], rate, sigma


@pytest.mark.parametrize(
    "name",
    grid(DISTORTIONS, ["200 ms each 2 s and jitter", "one stall at the end", "stamped by chunks of 0.5 s"]),
)
def test_late_timestamps_do_not_change_the_rate(name: str) -> None:
    """With late timestamps the rate stays within 0.3 % at the end and four sigmas at any time."""
    value, rate, sigma = _rates(DISTORTIONS[name](_true()))
    assert value.value == pytest.approx(RATE, rel=0.003)
    determined = np.isfinite(rate)
    assert (np.abs(rate - RATE)[determined] < 4 * sigma[determined] + 0.0016).all()


def test_a_pause_of_the_camera_stays_a_pause() -> None:
    """A pause of 1.3 s is a gap in time, but not in the frame numbers."""
    kept = (_true() < 7.0) | (_true() >= 8.3)
    value, _, _ = _rates(_true()[kept], _frames()[kept])
    assert value.value == pytest.approx(RATE, rel=0.003)


def test_frames_lost_in_a_stall_are_a_gap() -> None:
    """If only 40 frames of a stall of 1.5 s were kept, their times are unknown."""
    times = _stalled(_true(), 6.3, 1.5)
    kept = (_true() < 6.3) | (_true() >= 7.8 - 40 / FPS)
    value, _, _ = _rates(times[kept], _frames()[kept])
    assert abs(value.value - RATE) < 3 * value.sigma
    assert value.value == pytest.approx(RATE, rel=0.01)


def test_chunks_closed_early_do_not_shift_the_clock() -> None:
    """Missing indices of chunks that were closed early do not change the frame times."""
    engine, frames, index = Analyzer(FPS), _frames(), 0
    for i in range(0, len(frames), 90):
        last = engine.feed(index, frames[i : i + 90], _true()[i : i + 90])
        index += 240
    assert last.values["growth_rate_ml_s"].value == pytest.approx(RATE, rel=0.003)


@pytest.mark.parametrize("factor", grid([1.01, 0.99], always=[1.01]))
def test_two_clocks_that_differ_widen_the_sigma(factor: float) -> None:
    """If timestamps and nominal frame rate differ by 1 %, the sigma is larger and a note gives the reason."""
    value, _, _ = _rates(factor * _true())
    assert value.value == pytest.approx(RATE / factor, rel=0.002)
    assert abs(value.value - RATE) < 3 * value.sigma
    assert "not 120" in value.note


def test_a_slow_drift_of_the_cadence_is_followed() -> None:
    """If the frame period grows by 1 %, the timestamps are kept."""
    times = _true() * (1 + 0.005 * _true() / SECONDS)
    clock = corrected_times(times[::6], np.arange(len(times), dtype=float)[::6])
    np.testing.assert_array_equal(clock.times, times[::6])
    value, _, _ = _rates(times)
    assert abs(value.value - RATE) < 3 * value.sigma


def test_an_open_burst_has_no_times() -> None:
    """While a burst continues, its frames have no times."""
    t = np.arange(0, 16, 0.05)
    t[300:] = t[300] + 1.5 + 0.002 * np.arange(20)
    clock = corrected_times(t, 6.0 * np.arange(320))
    assert np.isfinite(clock.times[:300]).all()
    assert np.isnan(clock.times[300:]).all()


def test_a_missing_chunk_is_no_stall() -> None:
    """A gap in the last seconds does not change the rate, and no timestamp is called late."""
    spec = GrowthSpec(fps=20.0, height=120, width=160, rate_ml_s=0.8, tau_ml=60.0, seed=21)
    frames = np.concatenate(list(Simulator(spec).chunks(40, 360)))
    online = Analyzer(20.0, 0.0, 40)
    for k in range(9):
        if k == 3:
            online.gap(40)
            continue
        part = slice(40 * k, 40 * k + 40)
        rate = online.feed(40 * k, frames[part], np.arange(part.start, part.stop) / 20.0).values[
            "growth_rate_ml_s"
        ]
        if k > 3:
            assert "late" not in str(rate)
            assert abs(float(rate) - 0.8) < max(4 * (rate.sigma or 0.0), 0.004)


@pytest.mark.parametrize(
    ("fps", "missing", "jitter_s", "every"),
    [(30.0, 0.1, 0.0, 2), (30.0, 0.3, 0.001, 2), (120.0, 0.1, 0.0005, 6), (10.0, 0.08, 0.002, 1)],
)
@pytest.mark.parametrize("seed", range(3))
def test_missing_frames_are_not_late(
    fps: float, missing: float, jitter_s: float, every: int, seed: int
) -> None:
    """Frames dropped at random: their share is stated, none is called late, and no time is changed."""
    rng = np.random.default_rng(seed)
    true = np.arange(round(30 * fps)) / fps
    t = (true + rng.normal(0, jitter_s, len(true)))[rng.random(len(true)) > missing][::every]
    clock = corrected_times(t, float(every) * np.arange(len(t)))
    assert clock.late_share == 0
    np.testing.assert_array_equal(clock.times, t)
    assert clock.period_s == pytest.approx(1 / fps, rel=2e-3)
    assert clock.missing_share == pytest.approx(missing, abs=0.03)
    note = clock_uncertainty(clock, fps)[1]
    assert "missing" in note
    assert "late" not in note


@pytest.mark.parametrize("name", DISTORTIONS)
def test_late_frames_are_not_missing(name: str) -> None:
    """Frames of a stalled host are late, and none is missing."""
    clock = corrected_times(DISTORTIONS[name](_true())[::6], np.arange(len(_true()), dtype=float)[::6])
    assert clock.missing_share < 0.005


@pytest.mark.parametrize("equal", [60, 90, 100])
def test_equal_timestamps_have_no_frame_period(equal: int) -> None:
    """If most timestamps are equal the frame period is not known, and the nominal frame rate is used."""
    t = np.concatenate([np.zeros(equal), np.arange(1.0, 101.0 - equal)])
    assert math.isnan(frame_period(t, np.arange(100.0)))
    clock = corrected_times(t, np.arange(100.0))
    assert math.isnan(clock.period_s)
    assert np.isnan(clock.times).all()
    trace = IntensityTrace.for_frames(20.0, t)
    trace.feed(t, np.ones(100), np.ones(100), np.zeros(100))
    assert trace.camera_fps() == 20.0
    trace.retune(clock)
    assert trace.fps == 20.0


@pytest.mark.parametrize("factor", [0.4, 0.8, 0.95])
def test_a_slower_camera_misses_no_frames(factor: float) -> None:
    """Timestamps at a lower rate than stated: the rate is that of the timestamps."""
    clock = corrected_times(np.arange(0, 600, 2) / (30 * factor), np.arange(0, 600, 2.0))
    assert 1 / clock.period_s == pytest.approx(30 * factor, rel=1e-3)
    assert (clock.late_share, clock.missing_share) == (0, 0)
