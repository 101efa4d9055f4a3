"""Growth that stops, pauses or changes without a mark: the rate ends, the count stops, segments are cut there."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis.continuation import onset_time, stop_time
from atomstream.analysis.oscillation import analyse_trace
from tests.analysis.traces import FPS, cusps, layers_of, watch
from tests.cells import grid


def _stopped(rate: float, stop: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    t = np.arange(round(seconds * FPS)) / FPS
    layers = np.minimum(rate * t, stop)
    return t, layers


@pytest.mark.parametrize(
    ("rate", "stop", "after"), [(0.46, 6.2, "recovery"), (0.8, 5.5, "hold"), (0.6, 4.7, "step")]
)
def test_an_unmarked_stop_ends_rate_and_count(rate: float, stop: float, after: str) -> None:
    """Undetermined within 1.5 periods of the stop; the count is right within 0.3 layers and never falls."""
    t, layers = _stopped(rate, stop, (stop + 5) / rate)
    y, done = cusps(layers), layers >= stop
    since = t - stop / rate
    if after == "recovery":
        y = y + np.where(done, 0.7 * (1 - y) * (1 - np.exp(-np.clip(since, 0, None) * rate / 1.5)), 0)
    elif after == "step":
        y = y - np.where(done, 0.15, 0.0)
    looks, found, tracker = watch(y, layers)
    reported = [look for look in looks if look.rate.determined]
    assert reported, "growth was found"
    assert reported[-1].time_s < (stop + 1.5) / rate + 0.5
    counted = [look for look in looks if look.counted.value is not None]
    counts = [look.counted.value for look in counted]
    assert abs(counts[-1] - stop) < 0.3
    for look in counted:  # growth that may have ended, and growth that may go on, are within the uncertainty
        assert abs(look.counted.value - look.grown) < 1.5 * look.counted.sigma + 0.1, look
    assert any("growth may have ended" in look.counted.note for look in counted)
    assert (np.diff(counts) >= 0).all()
    assert [segment.next_kind for segment in found] == ["growth_stopped"]
    assert found[0].end_s == pytest.approx(stop / rate, abs=0.25 / rate)
    assert found[0].rate.value == pytest.approx(rate, rel=0.02)
    assert tracker.best is None


@pytest.mark.parametrize(("first", "later", "exact"), [(0.6, 0.1, 0.3), (0.6, 0.05, 0.3), (1.0, 0.05, 0.9)])
def test_a_stop_is_found_after_a_strong_first_layer(first: float, later: float, exact: float) -> None:
    """A first layer that changes the intensity most does not move the end of growth to its own end."""
    t = np.arange(round(15 * FPS)) / FPS
    layers, since = np.minimum(0.4 * t, 4.8), np.clip(t - 12.0, 0, None)
    wave = later * (1 + 2 * np.exp(-layers)) * np.cos(2 * np.pi * layers)
    y = 0.4 + first * np.exp(-1.2 * layers) + wave + 0.1 * (1 - np.exp(-since / 3))
    y = y + np.random.default_rng(1).normal(0, 0.004, len(t))
    before = analyse_trace(t[t < 11.5], y[t < 11.5]).best
    assert before is not None
    assert stop_time(before, t, y) == pytest.approx(12.0, abs=exact)


def test_growth_that_begins_again_is_found() -> None:
    """After an unmarked pause the new rate is reported, the count goes on, and three segments are separate."""
    t = np.arange(round(40 * FPS)) / FPS
    rate = np.where(t < 12, 0.5, np.where(t < 18, 0.0, 0.35))
    layers = layers_of(rate)
    looks, found, _ = watch(cusps(layers, tau=30), layers)
    assert looks[-1].rate.value == pytest.approx(0.35, rel=0.01)
    assert looks[-1].counted.value == pytest.approx(layers[-1], abs=0.4)
    assert [segment.next_kind for segment in found] == ["growth_stopped", "growth_began"]
    assert found[1].end_s == pytest.approx(18, abs=0.8)
    assert not found[1].rate.determined


@pytest.mark.parametrize("factor", grid([0.6, 0.85], always=[0.6]))
def test_a_rate_that_steps_is_followed(factor: float) -> None:
    """Three periods after a step of the rate, the reported rate is the new one within 3 sigma or 2 %."""
    t = np.arange(round(28 * FPS)) / FPS
    rate = np.where(t < 14, 0.45, 0.45 * factor)
    layers = layers_of(rate)
    looks, _, _ = watch(cusps(layers, tau=40), layers)
    late = [look for look in looks if look.time_s > 14 + 3.0 / (0.45 * factor) and look.rate.determined]
    assert late
    for look in late:
        error = abs(look.rate.value - 0.45 * factor)
        assert error < max(3 * look.rate.sigma, 0.02 * 0.45 * factor), look


@pytest.mark.parametrize("change", grid([-0.2, 0.15], always=[-0.2]))
def test_a_drifting_rate_is_the_rate_now(change: float) -> None:
    """While the rate drifts, the reported one is that at the end of the window, within 3 sigma or 2 %."""
    t = np.arange(round(22 * FPS)) / FPS
    rate = 0.45 * (1 + change * t / 30)
    layers = layers_of(rate)
    looks, found, _ = watch(cusps(layers, tau=40), layers)
    reported = [look for look in looks if look.rate.determined]
    assert len(reported) > 0.6 * len(looks)
    for look in reported:
        true = 0.45 * (1 + change * look.time_s / 30)
        assert abs(look.rate.value - true) < max(3 * look.rate.sigma, 0.02 * true), look
    assert any("the rate" in look.rate.note for look in reported)
    assert not found


def test_a_flux_that_falls_after_the_start_is_within_the_uncertainty() -> None:
    """The flux of a cell falls after its shutter opened: rates from few oscillations, too, cover the rate now."""
    t = np.arange(round(9 * FPS)) / FPS
    layers = 0.435 * t + 0.435 * 0.23 * 5.0 * (1 - np.exp(-t / 5.0))
    looks, _, _ = watch(cusps(layers), layers, noise=0.004)
    reported = [look for look in looks if look.rate.determined]
    assert len(reported) > 8
    for look in reported:
        true = 0.435 * (1 + 0.23 * np.exp(-look.time_s / 5.0))
        assert abs(look.rate.value - true) < max(2.5 * look.rate.sigma, 0.02 * true), look


def test_a_long_doubt_does_not_hold_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Growth that agrees with its prediction for longer than its end could be overlooked is counted again."""
    monkeypatch.setattr("atomstream.analysis.growth.is_doubtful", lambda *_: True)
    t = np.arange(round(12 * FPS)) / FPS
    looks, _, _ = watch(cusps(0.8 * t), 0.8 * t)
    counted = [look for look in looks if look.counted.value is not None]
    assert counted[-1].rate.determined
    for look in counted:
        assert -1.8 < look.counted.value - look.grown < 0.3, look


def test_a_slow_first_layer_is_within_the_uncertainty_of_the_count() -> None:
    """A first layer that takes 1.5 times as long as the others is not in the window of the first fit."""
    t = np.arange(round(7 * FPS)) / FPS
    layers = np.where(t < 1.65, t / 1.65, 1 + 0.92 * (t - 1.65))
    looks, _, _ = watch(cusps(layers), layers, noise=0.005)
    counted = [look for look in looks if look.counted.value is not None]
    assert len(counted) > 4
    for look in counted:
        assert abs(look.counted.value - look.grown) < 3 * look.counted.sigma, look


@pytest.mark.parametrize("seed", grid([0, 1], always=[0]))
def test_steady_growth_is_never_taken_for_ended(seed: int) -> None:
    """Steady, damped growth is reported from its first number to the last look, in one segment."""
    t = np.arange(round(25 * FPS)) / FPS
    layers = 0.5 * t
    looks, found, _ = watch(cusps(layers, tau=15), layers, noise=0.02, seed=seed)
    determined = [look.rate.determined for look in looks]
    assert all(determined[determined.index(True) :])
    assert not found
    assert looks[-1].counted.value == pytest.approx(layers[-1], abs=0.15)


def test_growth_after_a_rest_is_counted_from_its_onset() -> None:
    """A dead time before unmarked growth is not counted, and its end is found within a tenth of a layer."""
    t = np.arange(round(22 * FPS)) / FPS
    layers = 0.5 * np.clip(t - 7.3, 0, None)
    looks, _, tracker = watch(cusps(layers), layers)
    assert looks[-1].counted.value == pytest.approx(layers[-1], abs=0.2)
    assert tracker.onset_s == pytest.approx(7.3, abs=0.3)
    assert "counted from" in looks[-1].counted.note


def test_a_mark_ends_a_doubt() -> None:
    """After a mark, the count and the rate of the new segment do not wait for a doubt about the one before it."""
    t = np.arange(round(12 * FPS)) / FPS
    layers = np.minimum(0.8 * t, 8.0)
    _, _, tracker = watch(cusps(layers), layers)
    tracker.doubtful, tracker.unconfirmed_hz = True, 0.8
    tracker.start_segment(12.0)
    assert not tracker.doubtful
    assert tracker.unconfirmed_hz == 0.0


def test_an_onset_is_followed_back_for_a_bounded_time() -> None:
    """A fast oscillation that fills a long trace is followed through 100 periods, not through all of it."""
    t = np.arange(round(400 * FPS)) / FPS
    y = 1 + 0.3 * np.cos(2 * np.pi * 2.0 * t)
    fit = analyse_trace(t[-300:], y[-300:]).best
    assert fit is not None
    assert 300 < onset_time(fit, t, y, 0.0) < t[-1] - 40


def test_the_count_hardly_goes_on_after_an_end_at_an_extremum() -> None:
    """Growth that ends at the bottom of an oscillation is doubted at once: the count is right within 0.2 layers."""
    rate, seconds = 0.4, 16.2
    grown = layers_of(np.where(np.arange(round(seconds * FPS)) < round(3.5 / rate * FPS), rate, 0.0))
    looks, _, _ = watch(cusps(grown), grown)
    assert not looks[-1].rate.determined
    assert looks[-1].counted.value == pytest.approx(float(grown[-1]), abs=0.2)
