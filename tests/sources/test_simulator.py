from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.errors import ConfigError
from atomstream.sources import GrowthSpec, Simulator, no_signal_specs

SMALL = GrowthSpec(height=60, width=80, seed=5)


def test_frames_have_the_camera_shape_and_dtype() -> None:
    """Frames come as uint8 (count, H, W), into a given array if there is one."""
    simulator = Simulator(SMALL)
    out = np.empty((3, 60, 80), np.uint8)
    assert simulator.frames(2, 3, out) is out
    np.testing.assert_array_equal(out, simulator.frames(2, 3))
    assert simulator.frames(0, 0).shape == (0, 60, 80)


@given(st.integers(0, 40), st.integers(1, 7), st.sampled_from([0.0, 15.0]))
@settings(max_examples=20, deadline=None)
def test_a_frame_is_the_same_in_any_chunk(start: int, size: int, rpm: float) -> None:
    """Any range equals the same frames made at once, independent of earlier calls."""
    spec = replace(SMALL, rpm=rpm, drift_px_s=(0.5, -0.2), roughening_at_s=0.1, fractional_at_s=0.2)
    whole = np.concatenate(list(Simulator(spec).chunks(size, 48)))
    np.testing.assert_array_equal(Simulator(spec).frames(start, 8), whole[start : start + 8])


def test_the_seed_sets_the_noise() -> None:
    """The same seed gives the same frames, another seed different noise."""
    frames = Simulator(SMALL).frames(0, 2)
    np.testing.assert_array_equal(frames, Simulator(SMALL).frames(0, 2))
    assert np.mean(frames != Simulator(replace(SMALL, seed=6)).frames(0, 2)) > 0.5


def test_chunks_cover_all_frames() -> None:
    """chunks() yields chunk_size frames each, and the rest at the end."""
    assert [len(chunk) for chunk in Simulator(SMALL).chunks(4, 10)] == [4, 4, 2]


@pytest.mark.parametrize(
    "out",
    [
        np.empty((2, 60, 80), np.uint8),
        np.empty((3, 60, 80)),
        np.empty((3, 80, 60), np.uint8).transpose(0, 2, 1),
    ],
)
def test_a_wrong_out_is_refused(out: np.ndarray) -> None:
    """A wrong out array raises ConfigError."""
    with pytest.raises(ConfigError, match="C-contiguous uint8 of shape"):
        Simulator(SMALL).frames(0, 3, out)


def test_invalid_ranges_are_refused() -> None:
    """Negative starts and empty chunks raise errors with the values."""
    with pytest.raises(ConfigError, match="start -1"):
        Simulator(SMALL).frames(-1, 3)
    with pytest.raises(ConfigError, match="chunk_size is 0"):
        next(Simulator(SMALL).chunks(0, 3))


def test_the_specular_spot_follows_the_truth() -> None:
    """The light at the specular spot follows the true intensity."""
    simulator = Simulator(GrowthSpec(height=120, width=160, fps=20.0, rate_ml_s=0.5, hum=0.0))
    truth = simulator.truth(np.arange(160))
    frames = simulator.frames(0, 160).astype(float)
    y, x = round(truth.specular_y_px[0]), round(truth.specular_x_px[0])
    trace = frames[:, y - 8 : y + 9, x - 3 : x + 4].sum(axis=(1, 2))
    assert np.corrcoef(trace, truth.intensity)[0, 1] > 0.99


@pytest.mark.parametrize("name", list(no_signal_specs(SMALL)))
def test_no_signal_cases_hold_no_growth(name: str) -> None:
    """Each no-signal case has no growth and looks like its name."""
    simulator = Simulator(no_signal_specs(GrowthSpec(height=60, width=80, fps=10.0))[name])
    frames, truth = simulator.frames(0, 120), simulator.truth(np.arange(120))
    assert not truth.layers.any()
    assert not truth.rate_ml_s.any()
    means = frames.mean(axis=(1, 2))
    level = {"no beam": (3.5, 4.5), "constant 255": (255, 255), "constant 0": (0, 0)}.get(name, (4, 60))
    assert level[0] <= np.median(means) <= level[1]
    assert (np.ptp(means) > 3.0) == (name in {"shutter", "exposure steps"})
