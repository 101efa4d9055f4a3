"""Online analysis: frames split into several calls, restored state, gaps, invalid input, events and segments."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from atomstream.analysis import Analyzer, Box, Calibration, Line, analyze
from atomstream.errors import ConfigError
from atomstream.results import Event
from tests.analysis.growth_helpers import Film


def _fed(
    film: Film, cuts: list[int], engine: Analyzer | None = None
) -> tuple[dict[str, np.ndarray], Analyzer]:
    engine = engine or Analyzer(film.spec.fps, film.spec.rpm)
    batches = []
    for start, stop in zip(cuts, [*cuts[1:], len(film)], strict=True):
        batches.append(engine.feed(start, film[start:stop]))
    batches.append(engine.finish())
    return {
        k: np.concatenate([b.frames[k] for b in batches if k in b.frames]) for k in batches[0].frames
    }, engine


@pytest.mark.parametrize("rpm", [0.0, 15.0])
def test_results_do_not_depend_on_the_chunk_size(rpm: float) -> None:
    """Chunks of one frame, odd chunks and one large chunk give the same columns."""
    film = Film(4, fps=60.0, rpm=rpm, height=48, width=64)
    whole, _ = _fed(film, [0])
    for cuts in (list(range(0, len(film), 7)), list(range(len(film)))):
        parts, _ = _fed(film, cuts)
        for name, column in whole.items():
            np.testing.assert_allclose(parts[name], column, rtol=1e-6, atol=1e-9, err_msg=name)
        assert len(parts["time_seconds"]) == len(film)


def test_a_restored_state_gives_the_same_results() -> None:
    """A state that was restored from msgpack gives the same further results."""
    film = Film(4, rate_ml_s=1.0, height=48, width=64)
    whole, _ = _fed(film, [0, 301])
    engine = Analyzer(film.spec.fps)
    first = engine.feed(0, film[0:301])
    again = Analyzer.from_state(msgpack.unpackb(msgpack.packb(engine.state()), strict_map_key=False))
    second, _ = _fed(film, [301], again)
    for name, column in whole.items():
        np.testing.assert_array_equal(
            np.concatenate([first.frames[name], second[name]]), column, err_msg=name
        )


def test_frames_fed_twice_count_once() -> None:
    """A repeated chunk is skipped: its results are neither doubled nor lost."""
    film = Film(2, height=48, width=64)
    engine = Analyzer(film.spec.fps)
    assert engine.feed(0, film[0:120]).count == 120
    assert engine.feed(60, film[60:180]).count == 60


def test_missing_chunks_become_a_gap_event() -> None:
    """A gap of two seconds is an event, and the rate stays correct."""
    film = Film(11, fps=60.0, rate_ml_s=0.8)
    engine = Analyzer(film.spec.fps)
    engine.feed(0, film[0:240])
    after = engine.feed(360, film[360 : len(film)])
    assert [(e.kind, e.value) for e in after.events if e.kind == "gap"] == [("gap", 120.0)]
    assert after.values["growth_rate_ml_s"].value == pytest.approx(0.8, rel=0.005)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1), (3, 700), (16, 16)])
@pytest.mark.parametrize("fill", ["black", "white", "noise", "grey"])
def test_frames_without_a_pattern_give_no_number(shape: tuple[int, int], fill: str) -> None:
    """Tiny, black, white, grey and noisy frames cause no error and give no number."""
    noise = np.random.default_rng(0).integers(0, 256, (90, *shape), dtype=np.uint8)
    frames = {"noise": noise}.get(fill, np.full_like(noise, {"black": 0, "white": 255}.get(fill, 90)))
    answer = analyze(frames, 30)
    assert not answer.values["growth_rate_ml_s"].determined
    assert answer.values["growth_rate_ml_s"].why
    assert np.isnan(answer.frames["growth_rate_ml_s"]).all()


def test_white_frames_are_reported_as_saturated() -> None:
    """White frames are reported as saturated, although no spot is found."""
    answer = analyze(np.full((30, 20, 20), 255, np.uint8), 10)
    assert (answer.frames["saturated_fraction"] == 1).all()


@pytest.mark.slow
def test_one_frame_per_second() -> None:
    """At 1 frame per second slow growth is measured."""
    answer = Film(75, fps=1.0, rate_ml_s=0.08).analysed()
    assert answer.values["growth_rate_ml_s"].value == pytest.approx(0.08, rel=0.01)


def test_frame_times_are_used_instead_of_the_nominal_rate() -> None:
    """With a nominal rate of 120 fps and frame times at 30 fps, the frame times give the rate."""
    film = Film(20, fps=30.0)
    engine = Analyzer(120.0)
    for start in range(0, len(film), 60):
        last = engine.feed(start, film[start : start + 60], (start + np.arange(60)) / 30.0)
    assert last.values["growth_rate_ml_s"].value == pytest.approx(0.4, rel=0.005)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Analyzer(0), "fps"),
        (lambda: Analyzer(10, float("nan")), "rpm"),
        (lambda: Analyzer(10).feed(0, np.zeros((2, 8, 8))), "uint8 or uint16"),
        (lambda: Analyzer(10).feed(0, np.zeros((2, 8, 8), np.uint8), [0.0]), "times_s"),
        (lambda: Calibration(beam_energy=-1), "beam_energy"),
        (lambda: Box(1, 1, 0, 3, "a"), "region 'a'"),
        (
            lambda: Analyzer(10).set_regions([Box(1, 1, 3, 3, "a"), Line(0, 0, 1, 1, "a")]),
            "names must be unique",
        ),
    ],
)
def test_invalid_settings_are_named(call, sentence: str) -> None:
    """Invalid settings raise ConfigError with a message that names them."""
    with pytest.raises(ConfigError, match=sentence):
        call()


def test_a_state_of_another_version_is_refused() -> None:
    """The state holds class names, so a state of an older version raises ConfigError and is never half restored."""
    state = Analyzer(10).state()
    with pytest.raises(ConfigError, match="version 6"):
        Analyzer.from_state({**state, "version": 6})
    with pytest.raises(ConfigError, match="unknown part 'Stage'"):
        Analyzer.from_state({**state, "state": {"~c": "Stage", "~f": {}}})


def test_another_frame_size_is_refused() -> None:
    """A changed frame size raises ConfigError."""
    engine = Analyzer(10)
    engine.feed(0, np.zeros((2, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match="stream of shape"):
        engine.feed(2, np.zeros((2, 9, 8), np.uint8))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_one_picture_with_samples_is_no_frames(samples: int) -> None:
    """A picture with 1 to 4 samples per pixel, (H, W, samples), is refused; it would be H frames of some columns."""
    with pytest.raises(ConfigError, match="is one picture with samples per pixel"):
        Analyzer(10).feed(0, np.zeros((24, 32, samples), np.uint8))


def test_regions_of_the_user_are_traced() -> None:
    """A box gives a background-subtracted trace and a line its profile, from the frame at which it was set."""
    film = Film(2)
    engine = Analyzer(film.spec.fps)
    first = engine.feed(0, film[0:120])
    spot = engine.regions[0]
    engine.set_regions(
        [Box(spot.x, spot.y, spot.width, spot.height, "mine"), Line(40, 42, 120, 42, "cut", 5)]
    )
    second = engine.feed(120, film[120:240])
    assert "region:mine" not in first.frames
    np.testing.assert_allclose(second.frames["region:mine"], second.frames["specular_intensity"], rtol=0.05)
    assert len(second.lines["cut"]) == 81
    assert np.argmax(second.lines["cut"]) == pytest.approx(40, abs=1)


def test_box_intensity_is_counts_over_the_ring() -> None:
    """Intensity is sum(box) - area * background, for any background."""
    frames = np.full((3, 40, 40), 30, np.uint8)
    frames[:, 18:21, 18:21] = 130
    from atomstream.analysis.regions import measure_box

    trace = measure_box(frames, Box(19, 19, 9, 9), 255)
    np.testing.assert_array_equal(trace.intensity, 900)
    np.testing.assert_array_equal(trace.background, 30)


def test_exposure_steps_are_events_and_do_not_change_the_rate() -> None:
    """Each change of exposure is an event with its factor, and the rate stays correct."""
    answer = Film(10, fps=60.0, rate_ml_s=0.8, exposure_steps=((3.0, 0.6), (6.5, 1.2))).analysed()
    steps = [e for e in answer.events if e.kind == "exposure"]
    assert [round(e.time_s, 1) for e in steps] == [3.0, 6.5]
    assert steps[0].value == pytest.approx(0.6, rel=0.05)
    assert steps[1].value == pytest.approx(2.0, rel=0.05)
    assert answer.values["growth_rate_ml_s"].value == pytest.approx(0.8, rel=0.005)


def test_marks_begin_segments_with_separate_counts() -> None:
    """Each growth segment has a rate, the pause has none but a recovery time."""
    film = Film(23, fps=60.0, rate_ml_s=0.8, pauses=((6.0, 16.0),), recovery_s=2.5)
    marks = [Event(6.0, "shutter", "closed"), Event(16.0, "shutter", "open"), Event(2.5, "note", "hello")]
    first, pause, second = film.analysed(events=marks).segments
    assert first.rate.value == pytest.approx(0.8, rel=0.006)
    assert first.counted.value == pytest.approx(4.8, abs=0.25)
    assert pause.rate.value is None
    assert pause.recovery.value == pytest.approx(2.5, rel=0.15)
    assert second.rate.value == pytest.approx(0.8, rel=0.01)
    assert second.counted.value == pytest.approx(5.6, abs=0.3)


def test_shuttered_growth_has_a_period_and_no_rate() -> None:
    """If the shutter opens every two seconds, the period is that of the recipe and there is no growth rate."""
    film = Film(16, fps=30.0, rate_ml_s=0.5)
    marks = [Event(float(t), "shutter", "open") for t in np.arange(0.5, 16, 1.0)]
    values = film.analysed(events=marks).values
    assert values["oscillation_period"].value == pytest.approx(2.0, rel=0.01)
    assert "recipe" in values["growth_rate_ml_s"].why
    assert "recipe" in values["layers_grown"].why


def test_result_as_text_pandas_and_xarray() -> None:
    """The repr shows the rate with its uncertainty; pandas and xarray results have units and times."""
    answer = Film(5, rate_ml_s=0.8).analysed()
    assert "growth_rate_ml_s" in repr(answer)
    assert "±" in repr(answer)
    table, data = answer.to_pandas(), answer.to_xarray()
    assert len(table) == 600
    assert table.attrs["units"]["lattice_spacing"] == "px"
    assert data.attrs["beam_energy"] == 20.0
    assert data["growth_rate_ml_s"].attrs["units"] == "1/s"
    assert data.sizes == {"time": 600}


def test_times_that_step_back_are_tolerated() -> None:
    """Frame times with NaN and backward steps cause no error, and the rate stays correct."""
    film = Film(7, rate_ml_s=0.8)
    times = np.arange(len(film)) / 120.0
    times[::97], times[50::211] = np.nan, times[50::211] - 0.02
    answer = film.analysed(times_s=times)
    assert answer.values["growth_rate_ml_s"].value == pytest.approx(0.8, rel=0.01)
    assert (np.diff(answer.frames["time_seconds"]) >= 0).all()


def test_an_untracked_specular_box_stays() -> None:
    """The user's specular box moves only if it is tracked."""
    film = Film(3, drift_px_s=(1.0, 0.0))
    engine = Analyzer(120.0)
    engine.feed(0, film[0:24])
    engine.set_regions([Box(80, 42, 9, 21, "specular")])
    engine.feed(24, film[24:360])
    assert engine.regions[0].x == 80
    engine.set_regions([Box(82, 42, 9, 21, "specular", tracked=True)])
    engine.feed(360, film[0:0])
    assert engine.regions[0].tracked
