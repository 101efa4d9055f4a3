"""Laser pulses are distinguished from layers by the shape of a period, on simulated and real traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.illumination import CorrectedTrace
from atomstream.analysis.laser import Laser
from atomstream.analysis.oscillation import analyse_trace
from atomstream.analysis.pulse_shape import pulse_evidence
from atomstream.analysis.pulses import find_pulse_rate, notch, pulse_train_rate
from atomstream.analysis.trace import IntensityTrace
from atomstream.analysis.varpro import Fit
from tests.analysis.traces import FPS, cusps, layers_of, watch
from tests.cells import grid
from tests.paths import DATA


def _pulsed(
    hz: float, seconds: float, depth: float = 0.3, relaxing: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(round(seconds * FPS)) / FPS
    return t, 1 - depth * np.exp(-((t + 0.001) % (1 / hz)) * hz / relaxing)


@pytest.mark.parametrize("hz", grid([0.5, 1.0, 3.0, 5.0], always=[1.0, 5.0]))
def test_pulses_without_layers_are_no_growth(hz: float) -> None:
    """Step flow under a pulsed laser: no rate at any time; the pulse rate is found."""
    _, y = _pulsed(hz, max(12.0, 12 / hz))
    looks, _, tracker = watch(y, np.zeros(len(y)), noise=0.01)
    assert not [look for look in looks if look.rate.determined]
    assert tracker.laser.hz == pytest.approx(hz, rel=0.02)


@pytest.mark.parametrize("relaxing", [0.13, 0.36, 0.6])
@pytest.mark.parametrize("samples", [44, 60, 75])
def test_pulses_each_a_whole_number_of_samples(relaxing: float, samples: int) -> None:
    """A camera at six times the pulse rate: the samples of all periods have the same phases, and the rate is exact."""
    t = np.arange(samples) / 30.0
    y = 1 - 0.1 * np.exp(-((t * 5.0 + 1e-9) % 1.0) / relaxing)
    y = y + np.random.default_rng(samples).normal(0, 0.003, samples)
    assert pulse_train_rate(t, y, 5.0) == pytest.approx(5.0, rel=0.005)


def test_layers_under_pulses_are_reported_and_not_the_pulses() -> None:
    """Layers of 16 pulses each: every reported rate is that of the layers."""
    t, pulses = _pulsed(2.0, 40.0, depth=0.1)
    layers = layers_of(np.full(len(t), 0.125))
    looks, _, _ = watch(pulses * cusps(layers), layers)
    reported = [look.rate for look in looks if look.rate.determined]
    assert reported
    assert all(rate.value == pytest.approx(0.125, rel=0.1) for rate in reported)
    assert reported[-1].value == pytest.approx(0.125, rel=0.02)


@pytest.mark.parametrize(("name", "hz"), [("STO_620C_1Hz", 1.0), ("STO_680C_1Hz", 1.0)])
def test_pulses_of_real_traces_are_recognised_by_their_shape(name: str, hz: float) -> None:
    """In most windows of five pulses of real SrTiO3 depositions, the oscillation is one of pulses."""
    traces = np.load(DATA / "sto_pld_traces_20hz.npz")
    t, y = (traces[f"{name}_50ms_1_{axis}"].astype(float) for axis in "ty")
    t = t - t[0]
    seen = []
    for start in np.arange(6.0, t[-1] - 6.0, 5.0):
        part = (t >= start) & (t <= start + 5.0 / hz)
        seen.append(pulse_train_rate(t[part], y[part], hz) is not None)
    assert np.mean(seen) > 0.6


def test_weak_pulses_are_recognised_at_a_rate_that_is_a_little_wrong() -> None:
    """Pulses of 1 Hz on the slope of a real layer: fits of five are off by 1 to 3 %; the rate is found."""
    traces = np.load(DATA / "sto_pld_traces_long.npz")
    y = traces["treated_213nm_500hz_y"][::10].astype(float)
    t = float(traces["treated_213nm_500hz_start"]) + 0.02 * np.arange(len(y))
    seen = []
    for start in np.arange(56.0, 68.0, 1.0):
        part = (t >= start) & (t <= start + 5.0)
        seen += [pulse_train_rate(t[part], y[part], hz) for hz in (0.97, 0.989, 1.0, 1.02)]
    found = [hz for hz in seen if hz is not None]
    assert len(found) > 0.8 * len(seen)
    assert found == pytest.approx([1.0] * len(found), rel=0.015)


def test_layer_growth_is_no_pulse_train() -> None:
    """Cusps at full layers, a strong second harmonic and damping are symmetric enough in time."""
    t = np.arange(round(12 * FPS)) / FPS
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
        waves = (cusps(0.5 * t), 1 + 0.2 * np.cos(np.pi * t) + 0.09 * np.cos(2 * np.pi * t + seed))
        for wave in waves:
            assert pulse_train_rate(t, wave + noise, 0.5) is None


@pytest.mark.parametrize(("phase", "size"), [(0.0, 0.5), (0.1, 0.5), (0.3, 0.5), (0.5, 0.3)])
def test_the_ends_of_a_short_trace_are_no_pulses(phase: float, size: float) -> None:
    """A light that settles at the start of three oscillations makes a jump in their mean period, but in no period."""
    t = np.arange(146) / 30
    y = 1 + 0.08 * np.cos(2 * np.pi * (0.675 * t + phase)) + size * np.exp(-t / 0.3)
    assert pulse_train_rate(t, y, 0.725) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_traces_that_are_not_finite_have_no_pulses(bad: float) -> None:
    """NaN and infinite samples and times raise nothing."""
    t, y = _pulsed(1.0, 4.0)
    y[::3] = bad
    assert pulse_train_rate(t[:2], y[:2], 1.0) is None
    find_pulse_rate(t, y)
    assert pulse_train_rate(np.full(50, 1.0), y[:50], 1.0) is None


@pytest.mark.parametrize("scale", [1e-200, 1e120, 1e300])
def test_the_scale_of_a_trace_does_not_matter(scale: float) -> None:
    """Tiny and huge intensities do not overflow."""
    t, y = _pulsed(1.0, 6.0)
    assert pulse_train_rate(t, scale * y, 1.0) == pytest.approx(1.0, rel=0.01)


def _wave(hz: float, seconds: float) -> tuple[GrowthTracker, Fit]:
    t, y = _pulsed(hz, seconds)
    _, _, tracker = watch(y, np.zeros(len(y)), noise=0.005)
    fit = analyse_trace(t, y, hz).best
    assert fit is not None
    return tracker, fit


def test_a_slower_oscillation_does_not_replace_a_laser() -> None:
    """Sawtooth layers below half of the known pulse rate are not taken for its pulses; a faster train is."""
    tracker, fit = _wave(0.5, 16.0)
    for known_hz, seen in ((2.0, False), (0.6, True), (0.0, True)):
        laser = Laser(known_hz)
        assert (laser.pulses_in(fit, tracker.trace) is not None) is seen
        assert laser.hz == known_hz


def test_a_pulse_rate_is_taken_from_three_pulses() -> None:
    """A fit of fewer pulses does not give the rate."""
    _, fit = _wave(0.5, 16.0)
    laser = Laser()
    assert not laser.notice(replace(fit, cycles=2.0), 0.5)
    assert laser.hz == 0.0
    assert laser.notice(fit, 0.5)
    assert laser.hz == 0.5


@pytest.mark.parametrize("rotation_hz", [0.0, 0.2])
@pytest.mark.parametrize("veto", ["", "all of the picture brightens and darkens"])
def test_a_pulse_rate_not_seen_any_more_is_discarded(rotation_hz: float, veto: str) -> None:
    """The pulse rate expires also while the substrate rotates, and while no growth rate can be given."""
    layers = np.zeros(90)
    _, _, tracker = watch(cusps(layers), layers)
    tracker.laser, tracker.veto = Laser(5.0, 1.0), veto
    tracker.update(50.0, rotation_hz)
    assert tracker.laser.hz == 5.0
    tracker.update(70.0, rotation_hz)
    assert tracker.laser.hz == 0.0


def test_removing_pulses_keeps_the_times_of_the_samples() -> None:
    """Two samples per second followed by thirty: each remaining sample keeps its time, and the layers their shape."""
    t = np.concatenate([np.arange(0, 60, 0.5), np.arange(60, 90, 1 / FPS)])
    slow = np.cos(2 * np.pi * 0.05 * t)
    without_t, without = notch(t, slow + 0.2 * np.cos(2 * np.pi * 1.0 * t) * (t >= 60), 1.0)
    assert np.isin(without_t, t).all()
    assert len(without_t) > len(t) - 2 * FPS
    assert without == pytest.approx(np.cos(2 * np.pi * 0.05 * without_t), abs=0.06)


LONG = "treated_213nm_500hz"


def _real_in_noise(start: float, seconds: float, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part of a real trace with pulses of 1 Hz (5 % and less of the light), with noise of a share of its light."""
    traces = np.load(DATA / "sto_pld_traces_long.npz")
    y = traces[f"{LONG}_y"][::10].astype(float)
    t = float(traces[f"{LONG}_start"]) + 0.02 * np.arange(len(y))
    part = (t >= start) & (t <= start + seconds)
    y = y[part] / np.percentile(y[part], 99)
    return t[part], y + np.random.default_rng(seed).normal(0.0, noise, len(y))


@pytest.mark.parametrize("start", [28.0, 36.0, 58.0, 68.0])
def test_weak_pulses_have_another_shape_than_a_wave(start: float) -> None:
    """In noise in which the single pulses of a real trace are not seen, the folded ones still differ from a wave."""
    for seed in range(3):
        t, y = _real_in_noise(start, 6.0, 0.007, seed)
        evidence, hz = pulse_evidence(t, y, 0.985)
        assert evidence > 2.0
        assert hz == pytest.approx(1.0, abs=0.025)


@pytest.mark.parametrize("periods", [2.0, 3.0, 5.5])
def test_layers_have_another_shape_than_pulses(periods: float) -> None:
    """Cusps, a second harmonic and damping within a few layers, in noise."""
    t = np.arange(round(periods / 0.5 * FPS)) / FPS
    noise = np.random.default_rng(3).normal(0, 0.02, len(t))
    wave = 1 + 0.2 * np.cos(np.pi * t) + 0.09 * np.cos(2 * np.pi * t + 1)
    for y in (cusps(0.5 * t), cusps(0.5 * t, tau=3.0), wave):
        assert pulse_evidence(t, y + noise, 0.5)[0] < -2.0


@pytest.mark.parametrize("bad", [np.zeros(50), np.ones(50), np.full(50, np.inf)])
def test_a_shape_that_cannot_be_judged(bad: np.ndarray) -> None:
    """Without a signal there is no evidence for pulses."""
    assert pulse_evidence(np.arange(50) / 10, bad, 0.5)[0] == -np.inf
    assert pulse_evidence(np.arange(5) / 10, np.arange(5.0), 2.0)[0] == -np.inf


def test_weak_pulses_on_the_slope_of_a_layer_are_no_growth() -> None:
    """A real layer of 35 s in noise: at no time the pulses of 1 Hz are given as its rate."""
    t, y = _real_in_noise(0.2, 11.0, 0.012, 0)
    tracker = GrowthTracker(IntensityTrace.for_frames(50.0, t[:3]))
    tracker.start_segment(float(t[0]))
    for part in np.split(np.arange(len(t)), range(25, len(t), 25)):
        flat = np.ones(len(part))
        tracker.feed(CorrectedTrace(t[part], y[part], flat, np.full(len(part), np.nan)))
        assert not tracker.update(float(t[part][-1])).determined
