"""Growth rate from a trace: accuracy, stated uncertainty, and traces without growth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter, square

from atomstream.analysis.linear_part import Model
from atomstream.analysis.oscillation import analyse_trace, fit_window
from atomstream.analysis.pulses import find_pulse_rate, notch
from atomstream.analysis.trace import Decimator, decimation_for
from atomstream.analysis.varpro import fit
from tests.analysis.growth_helpers import layer_trace
from tests.paths import DATA


@pytest.mark.parametrize("rate", [0.016, 0.1, 0.25, 0.4, 0.8])
@pytest.mark.parametrize(("cycles", "limit"), [(3.3, 0.006), (6.2, 0.0015), (15, 0.0015)])
def test_rate_and_its_sigma_are_correct(rate: float, cycles: float, limit: float) -> None:
    """Error below 0.15 % at six oscillations and 0.6 % at three, and never above three stated sigmas."""
    found = analyse_trace(*layer_trace(rate, cycles / rate)).rate
    assert found.value == pytest.approx(rate, rel=limit)
    assert abs(found.value - rate) < 3 * found.sigma
    assert found.sigma < 5 * limit * rate


def test_fast_growth() -> None:
    """2.5 layers per second have 8 samples per period in the slow trace, and an error below 0.5 %."""
    assert analyse_trace(*layer_trace(2.5, 4)).rate.value == pytest.approx(2.5, rel=0.005)


@pytest.mark.parametrize(("pulse_hz", "enough"), [(0.25, False), (1.5, True), (0.0, True)])
def test_a_laser_gives_one_independent_sample_per_pulse(pulse_hz: float, enough: bool) -> None:
    """A wave of five pulses a period, from which the pulses were averaged away, may be noise; one of thirty is not."""
    t = np.arange(0, 48, 0.05)
    noise = np.random.default_rng(3).normal(0, 0.01, len(t))
    answer = analyse_trace(t, 1 + 0.2 * np.cos(2 * np.pi * 0.05 * t) + noise, pulse_hz=pulse_hz)
    assert answer.determined is enough
    assert enough or "noise alone" in answer.rate.why


@pytest.mark.parametrize("seed", range(3))
def test_two_oscillations_after_another_first_layer(seed: int) -> None:
    """A first layer with four times the usual change hides two oscillations only until the search leaves it out."""
    t = np.arange(0, 5.0, 0.05)
    y = 1 + 0.2 * np.cos(2 * np.pi * 0.4 * t) + 0.8 * np.exp(-0.4 * t / 0.35)
    found = analyse_trace(t, y + np.random.default_rng(seed).normal(0, 0.004, len(t))).rate
    assert found.value == pytest.approx(0.4, rel=0.03)
    assert abs(found.value - 0.4) < 3 * found.sigma


@pytest.mark.parametrize("before", [0.3, 0.36, 0.43, 0.46])
@pytest.mark.parametrize("step_s", [6.0, 12.0])
def test_an_earlier_step_of_the_rate_is_no_drift(before: float, step_s: float) -> None:
    """When the window of a steady rate grows back over a step, its rate stays that after the step."""
    t = np.arange(0, 28, 0.05)
    layers = np.where(t < step_s, before * t, before * step_s + 0.4 * (t - step_s))
    y = 1 + 0.2 * np.exp(-layers / 20) * np.cos(2 * np.pi * layers)
    found = fit_window(t, y + np.random.default_rng(0).normal(0, 0.004, len(t)), 0.4, change="none").rate
    assert found.value == pytest.approx(0.4, rel=0.002)
    assert abs(found.value - 0.4) < 2 * found.sigma


@pytest.mark.parametrize("cycles", [3, 8])
def test_the_sigma_includes_a_shift_of_the_extrema(cycles: int) -> None:
    """Extrema that shift by 0.03 oscillations over a window change a rate without noise; its sigma covers this."""
    t = np.arange(0, cycles / 0.4, 0.05)
    turn = 0.4 * t + 0.03 * t / t[-1]
    found = analyse_trace(t, 1 + 0.2 * np.cos(2 * np.pi * turn)).rate
    assert abs(found.value - 0.4) < 3 * found.sigma
    assert found.sigma < 0.023 * 0.4


@pytest.mark.parametrize(("cycles", "limit"), [(2.2, 1.5), (8.0, 1.2)])
def test_sigma_in_slow_noise(cycles: float, limit: float) -> None:
    """In noise with a correlation time of half a period, errors are about a sigma, in two oscillations too."""
    pulls = []
    for seed in range(40):
        t = np.arange(0, cycles / 0.5, 0.05)
        white = np.random.default_rng(seed).normal(0, 1, len(t) + 200)
        slow = lfilter([0.31], [1.0, -0.951], white)[200:]
        found = fit(t, 1 + 0.1 * np.cos(np.pi * t) + 0.03 * slow, 0.5, Model(1, True))
        if found is not None:
            pulls.append((found.frequency - 0.5) / found.sigma_hz)
    assert len(pulls) > 30
    assert float(np.sqrt(np.mean(np.square(pulls)))) < limit


def test_damping_in_layers() -> None:
    """The damping in layers is found within its uncertainty."""
    damping = analyse_trace(*layer_trace(0.4, 20, tau=9)).damping
    assert damping.value == pytest.approx(9, abs=2.5 * damping.sigma)
    assert damping.sigma < 2.5


def test_too_few_oscillations_give_a_reason() -> None:
    """A short trace has no rate, and the reason states how much longer it must be."""
    answer = analyse_trace(*layer_trace(0.1, 12))
    assert answer.rate.value is None
    assert "1.5 are needed" in answer.rate.why
    assert " s more would help" in answer.rate.why


@pytest.mark.parametrize("hz", [4.6, 5.0, 5.5, 6.0, 7.0])
@pytest.mark.parametrize("seconds", [10, 40])
def test_a_vibration_is_no_growth_of_half_its_rate(hz: float, seconds: float) -> None:
    """A vibration too fast for the trace has no rate, in particular not half its frequency."""
    t = np.arange(0, seconds, 0.05)
    y = np.sin(2 * np.pi * hz * t) + np.random.default_rng(1).normal(0, 0.02, len(t))
    answer = analyse_trace(t, y)
    assert answer.rate.value is None
    assert "a higher frame rate would help" in answer.rate.why


@pytest.mark.parametrize("seed", range(12))
def test_noise_does_not_suggest_a_higher_frame_rate(seed: int) -> None:
    """For noise alone, the reason does not suggest a higher frame rate."""
    t = np.arange(0, (2, 4, 10)[seed % 3], 0.05)
    answer = analyse_trace(t, np.random.default_rng(seed).normal(0, 1, len(t)))
    assert answer.rate.value is None
    assert "frame rate" not in answer.rate.why


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["white", "wander"])
def test_noise_has_no_rate(seed: int, kind: str) -> None:
    """White noise and a slow drift of the beam give no rate."""
    rng = np.random.default_rng(seed)
    t = np.arange(0, 40, 0.05)
    y = rng.normal(0, 1, len(t))
    if kind == "wander":
        y = 0.02 * y + np.interp(t, np.linspace(0, 40, 4), rng.normal(0, 1, 4))
    assert analyse_trace(t, y).rate.value is None


@pytest.mark.parametrize("duty", [0.5, 0.3])
def test_square_wave_is_no_growth(duty: float) -> None:
    """A shutter that opens and closes gives two levels, not a rate."""
    t = np.arange(0, 40, 0.05)
    y = square(2 * np.pi * t / 5, duty) + np.random.default_rng(0).normal(0, 0.03, len(t))
    assert analyse_trace(t, y).rate.value is None


def test_growth_that_stopped_has_no_rate() -> None:
    """After the end of the growth there is no rate."""
    t, y = layer_trace(0.4, 20)
    rest = np.arange(20, 28, 0.05)
    y = np.append(y, y[-1] + 0.2 * (1 - np.exp(-(rest - 20) / 2)))
    assert analyse_trace(np.append(t, rest), y, near_hz=0.4).rate.value is None


@pytest.mark.parametrize("hum_hz", [59.3, 59.94, 60.0, 50.0])
def test_mains_hum_does_not_alias(hum_hz: float) -> None:
    """7 % of mains hum changes the rate by less than 0.2 %; it is not aliased."""
    t, y = layer_trace(0.4, 20, hz=120, noise=0.003)
    y = y * (1 + 0.07 * np.sin(2 * np.pi * hum_hz * t))
    slow_t, slow_y, _ = Decimator(decimation_for(120)).feed(t, y, np.arange(len(t)))
    assert analyse_trace(slow_t, slow_y).rate.value == pytest.approx(0.4, rel=0.002)


def test_decimator_in_pieces_equals_at_once() -> None:
    """Feeding in pieces gives the same samples as at once, with NaN gaps."""
    t, y = layer_trace(0.4, 5, hz=120)
    y[200:215] = np.nan
    whole = Decimator(6).feed(t, y, np.arange(len(t)))
    pieces = Decimator(6)
    parts = [
        pieces.feed(t[i : i + 7], y[i : i + 7], np.arange(i, i + 7)[: len(t) - i])
        for i in range(0, len(t), 7)
    ]
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), whole[1])
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), whole[0])


@pytest.mark.parametrize(("name", "low", "high"), [("STO_620C", 63.5, 65.4), ("STO_680C", 61.2, 64.1)])
def test_real_pld_growth_at_one_pulse_a_second(name: str, low: float, high: float) -> None:
    """Real SrTiO3 growth: the pulse rate is found, the period is within that of different fits, sigma covers them."""
    traces = np.load(DATA / "sto_pld_traces_20hz.npz")
    t, y = (traces[f"{name}_1Hz_50ms_1_{axis}"].astype(float) for axis in "ty")
    even = np.linspace(t[0], t[-1], len(t))
    y = np.interp(even, t, y)
    pulse = find_pulse_rate(even, y)
    assert pulse == pytest.approx(1.0, rel=0.003)
    rate = analyse_trace(*notch(even, y, pulse)).rate
    assert low < 1 / rate.value < high
    assert 0.004 < rate.sigma / rate.value < 0.035


def test_real_pld_growth_with_hum() -> None:
    """A real 500 Hz trace with hum at 60 and 120 Hz and a 3 Hz laser: 2.1 oscillations, not the pulse rate."""
    trace = np.load(DATA / "sto_pld_trace_500hz.npz")
    t, y = trace["t"].astype(float), trace["y"].astype(float)
    pulse = find_pulse_rate(t, y)
    assert pulse == pytest.approx(3.0, rel=0.01)
    slow_t, slow_y, _ = Decimator(decimation_for(500)).feed(t, y, np.arange(len(t)))
    rate = analyse_trace(*notch(slow_t, slow_y, pulse)).rate
    assert rate.value == pytest.approx(0.0845, rel=0.06)


def test_no_pulses_in_plain_growth() -> None:
    """Noise and the cusps of layer growth are not taken for laser pulses."""
    for rate in (0.4, 0.8, 2.5):
        assert find_pulse_rate(*layer_trace(rate, 30, hz=120)) is None


@pytest.mark.parametrize("rotation_hz", [0.0, 0.1])
@pytest.mark.parametrize("times", ["equal", "bursts", "one late"])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
def test_strange_traces_raise_nothing(rotation_hz: float, times: str, scale: float) -> None:
    """Equal times, bursts of stamps and extreme intensities give a rate or a reason, and never an error."""
    t = np.arange(0, 60, 0.05)
    t = {"equal": np.floor(t / 20) * 20, "bursts": np.floor(t), "one late": np.append(t[:-1], 1e9)}[times]
    y = scale * (1 + 0.3 * np.sin(2 * np.pi * 0.4 * np.arange(len(t)) * 0.05))
    result = analyse_trace(t, y, None, rotation_hz)
    assert result.determined or result.rate.why
    followed = analyse_trace(t, np.round(y / scale), 0.4, rotation_hz)
    assert followed.determined or followed.rate.why
