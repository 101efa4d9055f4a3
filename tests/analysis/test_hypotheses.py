"""Explanations of an oscillation other than growth: noise, other light, two readings; and errors that are contained."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from atomstream.analysis import Analyzer
from atomstream.analysis.growth import GrowthTracker
from atomstream.analysis.hypotheses import OtherCause
from atomstream.analysis.light_oscillation import interfering_light
from atomstream.analysis.oscillation import analyse_trace
from tests.analysis.growth_helpers import Film
from tests.analysis.traces import FPS, watch
from tests.cells import grid


@pytest.mark.parametrize("seed", range(8))
def test_a_random_walk_has_no_rate(seed: int) -> None:
    """Slow random drifts look like one or two oscillations, but have no rate."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(40 * FPS)) / FPS
    y = 1 + np.cumsum(rng.normal(0, 0.01, len(t))) + rng.normal(0, 0.005, len(t))
    for seconds in (6, 15, 40):
        part = t < seconds
        assert analyse_trace(t[part], y[part]).rate.value is None


def test_two_fair_readings_are_both_named() -> None:
    """Where every second oscillation is stronger, the reason names both rates instead of one of them."""
    t = np.arange(round(24 * FPS)) / FPS
    layers = 0.5 * t
    y = 1 + 0.2 * np.cos(2 * np.pi * layers) + 0.1 * np.cos(np.pi * layers + 0.7)
    looks, _, _ = watch(y, layers)
    assert not looks[-1].rate.determined
    assert "0.25 or 0.5" in looks[-1].rate.why


@pytest.mark.parametrize(("ratio", "phase"), grid([(1.5, 1.0), (2.0, 4.0)], always=[(2.0, 4.0)]))
def test_a_strong_second_harmonic_is_no_double_rate(ratio: float, phase: float) -> None:
    """With a second harmonic that is stronger than the first, no double rate is given after 1.3 layers."""
    t = np.arange(round(13 * FPS)) / FPS
    wave = np.cos(2 * np.pi * 0.4 * t) + ratio * np.cos(4 * np.pi * 0.4 * t + phase)
    looks, _, _ = watch(0.6 + 0.3 * wave / (1 + ratio), 0.4 * t, noise=0.004)
    assert not any(look.rate.determined for look in looks if look.grown > 1.3)
    assert "0.4 or 0.8" in looks[-1].rate.why


@pytest.mark.parametrize(("ratio", "phase"), [(1.3, 0.0), (1.8, 0.0), (1.8, 4.0)])
def test_uneven_first_oscillations_give_no_double_rate(ratio: float, phase: float) -> None:
    """The first two oscillations at the double rate differ: it is not given in the first layer."""
    layers = 0.3 * np.arange(round(3.4 * FPS)) / FPS
    wave = np.cos(2 * np.pi * layers) + ratio * np.cos(4 * np.pi * layers + phase)
    looks, _, _ = watch(0.6 + 0.3 * np.exp(-layers / 30) * wave / (1 + ratio), layers, noise=0.005)
    assert not [look.rate for look in looks if look.rate.determined]


def test_a_cause_that_comes_and_goes_holds_for_two_periods() -> None:
    """A cause stays valid for two periods, for about the same frequency in windows that are not much longer."""
    t = np.arange(0, 10, 0.05)
    fit = analyse_trace(t, 1 + 0.2 * np.cos(2 * np.pi * 0.5 * t)).best
    assert fit is not None
    assert OtherCause("the light", 7.0, 0.5, 4.5).holds_for(fit)
    assert OtherCause("the light", 7.0, 0.55, 4.5).holds_for(fit)
    assert not OtherCause("the light", 7.0, 0.5, 3.2).holds_for(fit)
    assert not OtherCause("the light", 5.0, 0.5, 4.5).holds_for(fit)
    assert not OtherCause("the light", 9.0, 1.0, 4.5).holds_for(fit)


def test_light_that_oscillates_nearby_is_found() -> None:
    """Aliased mains hum in the background near the growth's frequency is found; growth and steps there are not."""
    t = np.arange(round(16 * FPS)) / FPS
    spot = 1 + 0.3 * np.cos(2 * np.pi * 0.5 * t)
    hum = 1 + 0.05 * np.sin(2 * np.pi * 0.62 * t)
    noise = np.random.default_rng(1).normal(0, 0.002, len(t))
    fit = analyse_trace(t, spot * hum).best
    assert fit is not None
    assert interfering_light(t, spot * hum, hum + noise, fit) == pytest.approx(0.62, abs=0.03)
    grown = 1 - 0.05 * np.cos(2 * np.pi * 0.5 * t)
    assert interfering_light(t, spot, grown + noise, fit) == 0.0
    assert interfering_light(t, spot, 1 + 0.1 * (t > 9) + noise, fit) == 0.0


def test_an_error_in_one_part_costs_only_its_values(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the fit makes the rate undetermined and is logged once; the streaks are still measured."""

    def broken(*_: object) -> None:
        raise IndexError("no such window")

    monkeypatch.setattr(GrowthTracker, "update", broken)
    film = Film(4, height=96, width=128)
    analyzer = Analyzer(film.spec.fps)
    with caplog.at_level(logging.ERROR, "atomstream.analysis"):
        batch = analyzer.feed(0, film[0:480])
    assert batch.count == 480
    assert "internal error" in batch.values["growth_rate_ml_s"].why
    assert batch.values["lattice_spacing"].determined
    assert len(caplog.records) == 1
    monkeypatch.undo()
    assert "internal error" not in analyzer.finish().values["growth_rate_ml_s"].why


def test_a_clear_oscillation_is_given_at_its_first_fit() -> None:
    """An oscillation that is far from a random walk does not wait for a second fit that agrees."""
    layers = 0.5 * np.arange(4 * round(FPS)) / FPS
    looks, _, _ = watch(1 + 0.15 * np.exp(-layers / 20) * np.cos(2 * np.pi * layers), layers, noise=0.003)
    reported = [look.rate for look in looks if look.rate.determined]
    assert reported
    assert reported[0].value == pytest.approx(0.5, rel=0.05)
    assert not any("to be confirmed" in look.rate.why for look in looks)


def test_a_bump_after_a_smaller_one_is_no_growth() -> None:
    """Layers begin with their largest oscillation: two bumps, the second one larger, have no rate while it goes on."""
    t = np.arange(12 * round(FPS)) / FPS
    bumps = 0.1 * np.exp(-0.5 * ((t - 4) / 1.25) ** 2) + 0.2 * np.exp(-0.5 * ((t - 9) / 1.25) ** 2)
    looks, _, _ = watch(1 + bumps, np.zeros(len(t)), noise=0.003)
    assert not any(look.rate.determined for look in looks)
