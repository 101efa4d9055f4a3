"""The films of ``benchmarks.truth`` have a consistent truth, and its scorer decides known cases correctly."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from atomstream.results import Measurement, measured, undetermined
from benchmarks.truth import catalogue, composites, score
from benchmarks.truth.baselines import damped_sine, fft_peak
from benchmarks.truth.camera import Codec
from benchmarks.truth.growth import Growth, Piece, intensity, steady
from benchmarks.truth.picture import svg
from benchmarks.truth.table import table, totals
from benchmarks.truth.traces import fault_of, feed_trace, random_trace


def look(t: float = 10.0, rate: float | None = 0.5, true: float | None = 0.5, **other: Any) -> dict[str, Any]:
    """Return one reading of the live values (a "look"), as :mod:`benchmarks.truth.watch` stores it."""
    made = {
        "t": t, "rate": rate, "sigma": 0.001, "true": true, "readings": (), "note": "", "why": "", "layers": None,
        "layers_sigma": 0.05, "counted": None, "true_layers": (5.0,), "since": 0.0, "segments": 1, "ceiling": 2.0,
    }  # fmt: skip
    return {**made, **other}


def record(looks: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    """Return the record of a film with these looks."""
    made = {
        "kind": "made", "seed": 0, "crash": "", "looks": looks, "checks": [], "segments": [], "events": [], "trace": [],
        "marked": False, "jumps": [], "slack": 0.0, "grown": 0.0,
    }  # fmt: skip
    return {**made, **other}


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_the_truth_of_a_film_is_consistent(kind: str) -> None:
    """The true layers are the integral of the true rate, the times never decrease, and no frame is uniform."""
    film = catalogue.film(kind, 2)
    frames = film.frames(0, 2)
    assert frames.dtype in (np.uint8, np.uint16)
    assert frames[0].min() < frames[0].max()
    assert np.all(np.diff(film.times) >= 0)
    fine = np.linspace(0, film.times[-1], 4001)
    grown = float(np.mean(film.growth.rate(fine))) * fine[-1]
    assert grown == pytest.approx(float(film.growth.layers(film.times[-1])), abs=0.05)
    truths = [film.truth(float(t)) for t in film.times[:: max(1, len(film) // 50)]]
    assert all(math.isnan(one.rate) or one.rate >= 0 for one in truths)


@pytest.mark.parametrize("kind", ["moves", "codec"])
def test_a_film_is_reproducible(kind: str) -> None:
    """The same seed gives the same frames, however they are cut; another seed gives others."""
    film, again = catalogue.film(kind, 2), catalogue.film(kind, 2)
    first = film.frames(0, 8)
    assert np.array_equal(first, np.concatenate([again.frames(0, 3), again.frames(3, 8)]))
    assert not np.array_equal(first, catalogue.film(kind, 3).frames(0, 8))


@pytest.mark.parametrize("kind", composites.TRACES)
def test_a_composite_follows_its_trace(kind: str) -> None:
    """The spot's intensity follows the real trace, the times never decrease, and the true rate is known somewhere."""
    film = composites.film(kind, 4)
    picked = np.linspace(0, len(film) - 1, 40).astype(int)
    frames = np.concatenate([film.frames(i, i + 1) for i in picked]).astype(float)
    pictures = composites.real_frames()
    y, x = composites.specular_spot(pictures[composites.frame_number(kind, 4) % len(pictures)][1])
    spot = frames[:, max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].mean(axis=(1, 2))
    trace = composites.TRACES[kind]
    t, light = composites.real_trace(trace.name)
    light = light[(t >= trace.start) & (t <= trace.end)][picked]
    assert np.corrcoef(spot, light)[0, 1] > 0.8
    assert np.all(np.diff(film.times) >= 0)
    assert any(film.truth(float(at)).rate > 0 for at in film.times[picked])


@pytest.mark.parametrize("half", [0, 1])
def test_all_real_frames_are_used(half: int) -> None:
    """26 films of a kind use all frames, in each half of the seeds."""
    count = len(composites.real_frames())
    seeds = range(half, 2 * count, 2)
    assert len({composites.frame_number("real_620C", seed) % count for seed in seeds}) == count == 26


def test_the_layers_oscillate_once_per_layer_and_conserve_matter() -> None:
    """The birth-death model's intensity begins at 1 and has one maximum per layer."""
    x = np.arange(0, 8, 0.01)
    light = intensity(x, 40.0)
    crests = [i for i in range(1, len(x) - 1) if light[i - 1] < light[i] >= light[i + 1]]
    assert light[0] == pytest.approx(1.0)
    assert 6 <= len(crests) <= 8
    assert np.diff(x[crests]) == pytest.approx(np.ones(len(crests) - 1), abs=0.1)


def test_after_a_stop_no_number_is_judged_for_one_and_a_half_periods() -> None:
    """Numbers are judged only 1.5 periods after a stop; then each one is false. A restart begins a new count."""
    growth = Growth((Piece(0.0, 10.0, 0.5, 0.5), Piece(20.0, 40.0, 0.25, 0.25)))
    assert [growth.in_doubt(t) for t in (9.9, 10.1, 12.9, 13.1, 20.1)] == [False, True, True, False, False]
    assert growth.layers(np.array([10.0, 15.0, 24.0])) == pytest.approx([5.0, 5.0, 6.0])
    slowing = Growth((Piece(0.0, 10.0, 0.5, 0.5), Piece(10.0, 20.0, 0.5, 0.0)))
    assert slowing.jumps() == [(0.0, 0.0, 0.5), (20.0, 0.5, 0.0)]
    assert [slowing.in_doubt(t) for t in (15.0, 21.0, 23.1)] == [False, True, False]
    assert growth.jumps() == [(0.0, 0.0, 0.5), (10.0, 0.5, 0.0), (20.0, 0.0, 0.25), (40.0, 0.25, 0.0)]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (look(rate=0.509), score.RIGHT),  # within 2 %
        (look(rate=0.52), score.FALSE),
        (look(rate=0.52, sigma=0.01), score.RIGHT),  # within 3 sigma
        (look(true=0.0), score.FALSE),
        (look(true=0.0, rate=None), score.QUIET),
        (look(rate=None), score.SILENT),
        (look(true=None, rate=1.9), score.OPEN),
        (look(true=None, rate=3.0), score.FALSE),
        (look(rate=0.25, readings=(0.25,)), score.FALSE),
        (
            look(rate=None, readings=(0.25,), why="0.25 or 0.5 ML/s: every second crest is higher"),
            score.NAMED,
        ),
        (look(rate=None, why="0.5 ML/s is possible"), score.SILENT),
        (
            look(rate=0.25, readings=(0.25,), note="0.25 or 0.502 ML/s: every second crest is higher"),
            score.RIGHT,
        ),
    ],
)
def test_the_verdict_on_one_check(one: dict[str, Any], said: str) -> None:
    """Right within 2 % or 3 sigma; false otherwise, or where nothing grows; a fair reading needs its note."""
    assert score.verdict(one) == said


def test_a_film_is_added_up() -> None:
    """First number, withdrawal, falling count and longest false run of one film."""
    looks = [
        look(1.0, None), look(2.0, 0.7), look(3.0, 0.7), look(4.0, 0.5, layers=2.0), look(5.0, None),
        look(6.0, 0.5, layers=1.5), look(7.0, 0.5, layers=5.1), look(8.0, 0.5, true=None),
    ]  # fmt: skip
    made = score.score(record(looks))
    assert (made.first, made.withdrawn, made.falls) == (2.0, True, 1)
    assert made.false_periods == pytest.approx(1.0)
    assert made.layer_errors == pytest.approx([-3.0, -3.5, 0.1])
    assert "made" in table([made])
    assert "40.0 % of 5" in totals([made])


def test_a_stop_is_scored() -> None:
    """Periods until no rate is reported, and the error of the count at the end."""
    looks = [look(t, 0.5 if t < 16 else None, 0.5 if t < 10 else 0.0, counted=7.0) for t in range(1, 20)]
    made = score.score(record(looks, jumps=[(0.0, 0.0, 0.5), (10.0, 0.5, 0.0)]))
    assert made.stop_periods == pytest.approx(2.5)
    assert made.stop_error == pytest.approx(2.0)


def test_a_film_is_drawn() -> None:
    """The picture is well-formed XML with one point for each reported rate, false ones in red."""
    looks = [look(1.0, None, 0.5), look(2.0, 0.5), look(3.0, 0.9), look(4.0, None, None)]
    drawn = svg(record(looks, trace=[(0.0, 1.0), (2.0, 3.0), (4.0, 2.0)]))
    circles = [
        one.get("fill") for one in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert circles == ["#06c", "#c00"]
    assert svg(record([]))


def test_the_simple_methods_find_a_sine() -> None:
    """Both find the frequency of a damped sine with noise."""
    t = np.arange(600) / 30
    y = (
        100
        + 10 * np.exp(-t / 15) * np.cos(2 * np.pi * 0.43 * t)
        + np.random.default_rng(1).normal(0, 0.5, 600)
    )
    assert fft_peak(t, y) == pytest.approx(0.43, rel=0.02)
    assert damped_sine(t, y) == pytest.approx(0.43, rel=0.005)
    assert math.isnan(fft_peak(t, np.full(600, 3.0)))


def test_the_codec_holds_small_changes() -> None:
    """A block that changes less than the quantisation step keeps its old content."""
    frame = np.full((16, 16), 100, np.uint8)
    codec = Codec(20.0)
    first = codec.pass_through(frame)
    assert np.array_equal(codec.pass_through(frame + 1), first)
    assert not np.array_equal(codec.pass_through(frame + 90), first)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 5, 6, 7, 12, 13, 14])
def test_random_traces_raise_nothing(seed: int) -> None:
    """NaN, infinity, spikes, huge numbers, bursts, repeated times and rotation raise nothing; a seed repeats itself."""
    name, fps, t, y, rotation = random_trace(seed)
    assert random_trace(seed)[0] == name
    assert np.array_equal(random_trace(seed)[3], y, equal_nan=True)
    feed_trace(fps, t[:200], y[:200], rotation, seed)


def test_the_count_does_not_fall_between_the_fits_under_rotation() -> None:
    """The count goes on between two joint fits; the second one does not make it smaller."""
    _, fps, t, y, rotation = random_trace(700111)
    feed_trace(fps, t[:140], y[:140], rotation, 700111)


@pytest.mark.parametrize(
    ("result", "fault"),
    [
        (measured(0.4, 0.01, "1/s"), ""),
        (undetermined("too short", "1/s"), ""),
        (undetermined("", "1/s"), "no number and no reason"),
        (measured(40.0, 0.01, "1/s"), "1/s outside of 0 to the highest possible value"),
        (Measurement(math.inf, 0.01, "1/s"), "1/s outside of 0 to the highest possible value"),
        (measured(0.4, float("nan"), "1/s"), "1/s without a finite uncertainty"),
    ],
)
def test_results_that_no_trace_can_have_are_found(result: Measurement, fault: str) -> None:
    """A rate above half the frame rate, or a number that is not finite, is an error whatever the trace."""
    assert fault_of(result, 15.0) == fault


def test_steady_growth_has_one_rate() -> None:
    """The rate is constant between start and end, and 0 elsewhere."""
    assert steady(0.4, 2.0, 5.0).rate(np.array([1.0, 2.0, 4.9, 5.0])) == pytest.approx([0, 0.4, 0.4, 0])
