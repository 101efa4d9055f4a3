from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.sources import GrowthSpec
from atomstream.sources.sim_growth import growth_intervals, truth_at

T = np.arange(0.0, 60.0, 1 / 120)


def test_layers_grow_at_the_rate() -> None:
    """n = F t, theta = n mod 1, and the rate is F."""
    truth = truth_at(GrowthSpec(rate_ml_s=0.4), T)
    np.testing.assert_allclose(truth.layers, 0.4 * T)
    np.testing.assert_allclose(truth.theta, (0.4 * T) % 1.0)
    assert (truth.rate_ml_s == 0.4).all()


def test_intensity_oscillates_once_a_layer_and_is_damped() -> None:
    """Maxima are at full layers, minima at half ones, and the amplitude decays by e within tau layers."""
    spec = GrowthSpec(rate_ml_s=1.0, tau_ml=12.0, phase_rad=math.pi)
    truth = truth_at(spec, np.array([0.0, 0.5, 1.0, 12.0, 12.5]))
    mean = 1.0 / 3.0
    assert truth.intensity[0] == pytest.approx(1.0)
    assert truth.intensity[1] == pytest.approx(mean - mean * math.exp(-0.5 / 12))
    assert truth.intensity[3] - mean == pytest.approx((1 - mean) / math.e)


@given(
    rate=st.floats(0.01, 3.0),
    pauses=st.lists(st.floats(0.5, 50.0), min_size=0, max_size=6, unique=True).map(sorted),
    start=st.floats(0.0, 5.0),
)
@settings(deadline=None, max_examples=50)
def test_intensity_and_layers_never_jump(rate: float, pauses: list[float], start: float) -> None:
    """With any pauses, layers do not decrease, nothing jumps, and nothing grows in a pause."""
    pairs = tuple((a, b) for a, b in zip(pauses[::2], pauses[1::2], strict=False))
    spec = GrowthSpec(rate_ml_s=rate, pauses=pairs, growth_start_s=start)
    truth = truth_at(spec, T)
    step = 1 / 120
    assert (np.diff(truth.layers) >= 0).all()
    assert np.diff(truth.layers).max() <= rate * step * 1.001
    # steepest: 4 depth F a second of the oscillation, and the healing
    assert np.abs(np.diff(truth.intensity)).max() < (2 * 1.5 * rate + 1.0) * step * 2
    for begin, end in pairs:
        inside = (max(begin, start) <= T) & (end > T)
        assert not truth.rate_ml_s[inside].any()
        assert len(set(truth.layers[inside])) <= 1


def test_the_intensity_recovers_in_a_pause() -> None:
    """After growth stops the intensity recovers with recovery_s."""
    spec = GrowthSpec(rate_ml_s=0.5, growth_stop_s=11.0, recovery_s=4.0)
    truth = truth_at(spec, np.array([11.0, 15.0, 60.0]))
    deficit = 1 - truth.intensity
    assert deficit[1] == pytest.approx(deficit[0] / math.e)
    assert deficit[2] < 1e-3
    assert (truth.layers == 5.5).all()


def test_growth_intervals_leave_the_pauses_out() -> None:
    """Intervals run from start to stop without the pauses; a pause beyond the stop changes nothing."""
    spec = GrowthSpec(growth_start_s=1.0, growth_stop_s=20.0, pauses=((5.0, 8.0), (30.0, 40.0)))
    assert growth_intervals(spec) == [(1.0, 5.0), (8.0, 20.0)]
    assert growth_intervals(GrowthSpec()) == [(0.0, math.inf)]


def test_rotation_and_azimuth() -> None:
    """The angle advances by 6 rpm degrees per second; the azimuth factor has the period of the rotation."""
    truth = truth_at(GrowthSpec(rpm=15.0), np.array([0.0, 1.0, 2.0, 4.0, 5.0]))
    np.testing.assert_allclose(truth.angle_deg, [0, 90, 180, 0, 90], atol=1e-9)
    assert truth.azimuth_factor[0] == pytest.approx(1.0)
    assert truth.azimuth_factor[1] == pytest.approx(truth.azimuth_factor[4])
    assert truth.azimuth_factor[1] != pytest.approx(truth.azimuth_factor[2])


def test_light_has_hum_steps_and_shutter() -> None:
    """Hum follows 1 + h sin(2 pi f t), exposure takes the latest step, the shutter covers half its period."""
    hum = truth_at(GrowthSpec(hum=0.07, hum_hz=59.94), T).light
    np.testing.assert_allclose(hum, 1 + 0.07 * np.sin(2 * np.pi * 59.94 * T))
    steps = GrowthSpec(hum=0.0, exposure_steps=((3.0, 0.6), (1.0, 2.0)))
    assert list(truth_at(steps, np.array([0.0, 1.0, 2.9, 3.0])).light) == [1.0, 2.0, 2.0, 0.6]
    shutter = truth_at(GrowthSpec(hum=0.0, shutter_period_s=2.0), np.array([0.0, 0.9, 1.1, 2.1])).light
    assert list(shutter) == [1.0, 1.0, 0.0, 1.0]


def test_laser_pulses_dim_the_trace() -> None:
    """With pulse_hz each pulse dims the trace, which recovers until the next one."""
    spec = GrowthSpec(pulse_hz=1.0, pulse_dip=0.2, pulse_relax_s=0.1, rate_ml_s=0.01, growth_stop_s=10.0)
    plain = GrowthSpec(rate_ml_s=0.01, growth_stop_s=10.0)
    t = np.array([2.0, 2.1, 2.99, 12.0])
    ratio = truth_at(spec, t).intensity / truth_at(plain, t).intensity
    np.testing.assert_allclose(ratio, [0.8, 1 - 0.2 / math.e, 1.0, 1.0], atol=1e-3)


def test_strain_and_transitions_follow_their_times() -> None:
    """Strain relaxes with the layers; fractional order and spots follow logistics in time."""
    spec = GrowthSpec(
        strain=0.01,
        strain_layers=2.0,
        rate_ml_s=1.0,
        fractional_at_s=20.0,
        roughening_at_s=40.0,
        spottiness=0.8,
    )
    truth = truth_at(spec, np.array([0.0, 2.0, 20.0, 40.0, 3600.0]))
    np.testing.assert_allclose(truth.strain[[0, 1]], [0.0, 0.01 * (1 - 1 / math.e)])
    np.testing.assert_allclose(truth.fractional[[0, 2, 4]], [0.0, 0.5, 1.0], atol=1e-9)
    np.testing.assert_allclose(truth.spottiness[[0, 3, 4]], [0.0, 0.4, 0.8], atol=1e-9)
    d0 = truth.spacing_px[0]
    np.testing.assert_allclose(d0 / truth.spacing_px - 1, truth.strain, atol=1e-12)
