"""Steps and drop-outs of the light are removed from a trace, and leave no error behind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from atomstream.analysis.illumination import CorrectedTrace, IlluminationTracker, sample_picture
from atomstream.results import Event
from tests.analysis.spot_film import spot_film
from tests.cells import grid

FPS = 30.0
SHAPE = (60, 80)


def _corrected(
    light: np.ndarray,
    fps: float = FPS,
    dark_level: float = 0.0,
    spot: np.ndarray | None = None,
    block: int = 3,
    gap_at: int = 0,
) -> tuple[CorrectedTrace, list[Event]]:
    """Return the corrected trace of a spot whose true intensity is ``spot`` (default 1), and the events.

    Frames are missing before frame ``gap_at``; their time is left out.
    """
    spot = np.ones(len(light)) if spot is None else spot
    frames = spot_film(spot, shape=SHAPE, light=light, dark_level=dark_level, fwhm=(6.6, 3.0))
    pictures, t, y = sample_picture(frames), np.arange(len(light)) / fps, spot * light
    tracker, traces, events = IlluminationTracker(255.0, fps), [], []
    for first, end in ((0, gap_at), (gap_at, len(t))):
        for i in range(first, end, block):
            part = slice(i, min(i + block, end))
            trace, new = tracker.feed(t[part], y[part], 0.0 * y[part], pictures[part])
            traces.append(trace)
            events += new
        if end == gap_at > 0:
            trace, new = tracker.flush()
            traces.append(trace)
            events += new
    trace, new = tracker.flush()
    columns = (
        np.concatenate([getattr(one, name) for one in (*traces, trace)]) for name in CorrectedTrace.__slots__
    )
    return CorrectedTrace(*columns), [*events, *new]


@pytest.mark.parametrize(
    ("dark_level", "low", "frames"),
    grid(
        itertools.product([0.0, 10.0], [0.0, 0.05, 0.3, 0.5], [1, 2, 3, 6]),
        always=[(0.0, 0.0, 1), (10.0, 0.0, 6), (10.0, 0.05, 2), (0.0, 0.3, 3), (10.0, 0.5, 1), (0.0, 0.5, 6)],
    ),
)
def test_a_drop_out_leaves_no_error(dark_level: float, low: float, frames: int) -> None:
    """Ten drop-outs of one frame to 0.2 s: each is an event, its samples are NaN, the others keep their values."""
    light = np.ones(400)
    starts = 40 + 33 * np.arange(10)
    for start in starts:
        light[start : start + frames] = low
    trace, events = _corrected(light, dark_level=dark_level)
    assert len(trace.t) == len(light)
    np.testing.assert_allclose(trace.t, np.arange(len(light)) / FPS)
    assert np.isnan(trace.y[light < 1]).all()
    np.testing.assert_array_equal(trace.y[np.isfinite(trace.y)], 1.0)
    assert np.isfinite(trace.y).sum() >= (light == 1).sum() - 4 * len(starts)
    assert [e.kind for e in events] == ["dropout"] * 10
    assert np.abs(np.array([e.time_s for e in events]) - starts / FPS).max() < 2.1 / FPS


def test_a_partly_exposed_frame_at_each_end_of_a_drop_out() -> None:
    """A drop-out that begins and ends within the exposure of a frame spoils no frame beside it."""
    light = np.ones(200)
    light[50:55] = 0.6, 0.3, 0.3, 0.3, 0.7
    light[100:104] = 0.9, 0.3, 0.3, 0.2
    light[150:154] = 0.3, 0.3, 0.9, 1.0
    trace, events = _corrected(light)
    np.testing.assert_array_equal(trace.y[np.isfinite(trace.y)], 1.0)
    assert [e.kind for e in events] == ["dropout"] * 3


@pytest.mark.parametrize(("low", "kinds"), [(0.5, ["exposure", "exposure"]), (0.0, ["dark", "light"])])
def test_levels_that_return_are_the_same_levels(low: float, kinds: list[str]) -> None:
    """Twelve long changes of the light add up no error: after each one the trace has its old value."""
    light = np.ones(1000)
    for start in range(60, 960, 80):
        light[start : start + 40] = low
    spot = 1.0 + 0.2 * np.sin(2 * np.pi * 0.31 * np.arange(1000) / FPS)
    trace, events = _corrected(light, spot=spot)
    ratio = trace.y / spot
    np.testing.assert_array_equal(ratio[(light == 1) & np.isfinite(ratio)].round(9), 1.0)
    assert np.isfinite(ratio[light == 1]).mean() > 0.9
    assert [e.kind for e in events] == kinds * 12
    if low:
        assert np.nanmax(np.abs(ratio[light < 1] - 1.0)) < 0.06


def test_steps_to_new_levels_are_corrected() -> None:
    """Each step of the exposure is divided out within 3 %, also up to a picture twice as bright."""
    light = np.repeat([1.0, 0.7, 1.2, 0.4, 1.1, 1.0], 60)
    trace, events = _corrected(light, dark_level=5.0)
    assert np.nanmax(np.abs(trace.y - 1.0)) < 0.03
    assert [round(e.time_s * FPS) for e in events] == [60, 120, 180, 240, 300]
    np.testing.assert_array_equal(trace.y[320:], 1.0)


def test_growth_and_hum_are_no_steps() -> None:
    """A fast oscillation of the spot and 7 % of hum cause no events and stay in the trace."""
    t = np.arange(300) / 20.0
    spot = 1.0 + 0.4 * np.sin(2 * np.pi * 2.3 * t)
    light = 1.0 + 0.07 * np.sin(2 * np.pi * 59.3 * t)
    trace, events = _corrected(light, fps=20.0, spot=spot, block=2)
    assert events == []
    np.testing.assert_array_equal(trace.y, spot * light)


def test_a_step_while_frames_are_missing() -> None:
    """After missing frames no sample is delayed any more, and the level after them is still found."""
    frames = spot_film(np.ones(120), shape=SHAPE, light=np.repeat([1.0, 0.5], 60), fwhm=(6.6, 3.0))
    pictures, t = sample_picture(frames), np.arange(120) / FPS
    y = np.repeat([1.0, 0.5], 60)
    tracker = IlluminationTracker(255.0, FPS)
    first, _ = tracker.feed(t[:58], y[:58], y[:58], pictures[:58])
    rest, _ = tracker.flush()
    assert len(first.t) + len(rest.t) == 58
    after, events = tracker.feed(t[58:] + 1.0, y[58:], y[58:], pictures[58:])
    assert [e.kind for e in events] == ["exposure"]
    assert after.y[-1] == pytest.approx(1.0, rel=0.03)


@pytest.mark.parametrize("seconds", [0.3, 3.0, 10.0])
@pytest.mark.parametrize(("start", "dark_level"), [(0.0, 0.0), (0.1, 10.0), (0.6, 0.0)])
def test_light_that_comes_back_slowly(seconds: float, start: float, dark_level: float) -> None:
    """After a drop-out the light rises from ``start`` to its old level: it is on again, and the trace is right."""
    ramp = np.linspace(start, 1.0, round(seconds * FPS))
    light = np.concatenate([np.ones(60), np.zeros(30), ramp, np.ones(75)])
    trace, events = _corrected(light, dark_level=dark_level)
    assert [e.kind for e in events] == ["dark", "light"]
    np.testing.assert_array_equal(trace.y[-30:], 1.0)
    assert np.nanmin(trace.y) > 0.94
    assert np.nanmax(trace.y) < 1.06


@pytest.mark.parametrize("after", [1, 2, 4, 7, 9])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.6])
def test_a_step_just_before_frames_are_missing(after: int, level: float) -> None:
    """A step ``after`` frames before a gap is a step: one event at its time, and the trace is right after the gap."""
    light = np.where(np.arange(120) < 60, 1.0, level)
    trace, events = _corrected(light, gap_at=60 + after)
    kind = "exposure" if level else "dark"
    assert [(e.kind, round(e.at_s * FPS)) for e in events] == [(kind, 60)]
    assert len(trace.t) == 120
    if level:
        np.testing.assert_allclose(trace.y[np.isfinite(trace.y)], 1.0, rtol=0.03)
        assert np.isfinite(trace.y).sum() > 120 - 15
    else:
        assert np.isnan(trace.y[60:]).all()


def test_a_drop_out_just_before_frames_are_missing() -> None:
    """Light that has its old level after the gap did not step."""
    light = np.ones(120)
    light[57:60] = 0.3
    trace, events = _corrected(light, gap_at=60)
    assert [e.kind for e in events] in ([], ["dropout"])
    np.testing.assert_array_equal(trace.y[np.isfinite(trace.y)], 1.0)


@pytest.mark.parametrize("seconds", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("back_s", [0.0, 2.0])
@pytest.mark.parametrize("dark_level", [0.0, 10.0])
def test_light_that_goes_out_slowly(seconds: float, back_s: float, dark_level: float) -> None:
    """After a fade to dark the light has its old level again, whether it comes back at once or slowly.

    The end of a fast fade may be reported as steps too.
    """
    down, up = np.linspace(1.0, 0.0, round(seconds * FPS)), np.linspace(0.0, 1.0, round(back_s * FPS))
    light = np.concatenate([np.ones(150), down, np.zeros(90), up, np.ones(120)])
    trace, events = _corrected(light, dark_level=dark_level, block=15)
    assert [e.kind for e in events if e.kind not in ("dropout", "exposure")] == ["dark", "light"]
    np.testing.assert_allclose(trace.y[-40:], 1.0, rtol=0.03)
    np.testing.assert_array_equal(trace.y[:140], 1.0)


def test_a_film_that_roughens_is_not_dark() -> None:
    """Spots that fade in 20 s while the diffuse light stays: no event, and the intensity follows the spot."""
    spot = np.concatenate([np.ones(150), np.linspace(1.0, 0.02, round(20 * FPS)), np.full(90, 0.02)])
    trace, events = _corrected(np.ones(len(spot)), spot=spot, block=15)
    assert events == []
    np.testing.assert_allclose(trace.y[-60:], 0.02, rtol=0.05)
