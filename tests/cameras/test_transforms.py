"""Changes of frames before the upload, against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atomstream.cameras import Region, Transforms
from atomstream.cameras.transforms import bin_pixels, crop, flip, rotate, subtract_dark
from atomstream.errors import ConfigError
from atomstream.sources import to_uint8

SHAPES = [(7, 9), (8, 12), (3, 7, 9), (2, 8, 12)]


def frames_of(shape: tuple[int, ...], dtype: str) -> Any:
    return np.random.default_rng(3).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def squares(frames: Any, factor: int) -> Any:
    """(..., H/f, W/f, f, f): the pixels of each square, in float64."""
    height, width = (n // factor for n in frames.shape[-2:])
    cut = frames[..., : height * factor, : width * factor].astype(np.float64)
    return cut.reshape(*frames.shape[:-2], height, factor, width, factor).swapaxes(-3, -2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_binning(shape: tuple[int, ...], dtype: str, factor: int) -> None:
    """The mean keeps the dtype and rounds halves up; the sum is uint16, cut at 65535."""
    frames = frames_of(shape, dtype)
    mean = bin_pixels(frames, factor)
    assert mean.dtype == frames.dtype
    assert np.array_equal(mean, np.floor(squares(frames, factor).mean(axis=(-2, -1)) + 0.5))
    total = bin_pixels(frames, factor, "sum")
    assert total.dtype == np.uint16
    assert np.array_equal(total, np.minimum(squares(frames, factor).sum(axis=(-2, -1)), 65535))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("dark_dtype", ["uint8", "uint16"])
def test_dark_frame(dtype: str, dark_dtype: str) -> None:
    """The difference is never negative, and never wraps, also with a dark frame of another depth."""
    frames, dark = frames_of((3, 5, 6), dtype), frames_of((5, 6), dark_dtype)
    expected = np.maximum(frames.astype(np.int64) - np.minimum(dark.astype(np.int64), np.iinfo(dtype).max), 0)
    changed = subtract_dark(frames, dark)
    assert changed.dtype == frames.dtype
    assert np.array_equal(changed, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_crop_rotate_flip(shape: tuple[int, ...]) -> None:
    """A region is x, y, width, height; a rotation is clockwise."""
    frames = frames_of(shape, "uint16")
    assert np.array_equal(crop(frames, Region(2, 1, 4, 3)), frames[..., 1:4, 2:6])
    clockwise = frames.swapaxes(-2, -1)[..., ::-1]
    assert np.array_equal(rotate(frames, 90), clockwise)
    assert np.array_equal(rotate(frames, 270), frames.swapaxes(-2, -1)[..., ::-1, :])
    assert np.array_equal(rotate(frames, 180), frames[..., ::-1, ::-1])
    assert rotate(frames, 0) is frames or np.array_equal(rotate(frames, 0), frames)
    assert np.array_equal(flip(frames, "horizontal"), frames[..., ::-1])
    assert np.array_equal(flip(frames, "vertical"), frames[..., ::-1, :])


def test_all_together_in_their_order() -> None:
    """Dark frame, crop, bin, rotation, mirror, levels; the attributes list what was done."""
    frames = frames_of((2, 8, 10), "uint16")
    dark = frames_of((8, 10), "uint8")
    region = Region(1, 2, 8, 6)
    changes = Transforms(dark, region, 2, "mean", 90, "vertical", (100, 60000), "dark.tif")
    expected = bin_pixels(crop(subtract_dark(frames, dark), region), 2)
    expected = to_uint8(flip(rotate(expected, 90), "vertical"), 100, 60000)
    assert np.array_equal(changes.apply(frames), expected)
    assert np.array_equal(changes.apply(frames[0]), expected[0])
    assert changes.attributes() == {
        "dark_frame": "dark.tif",
        "crop_x_y_width_height": [1, 2, 8, 6],
        "bin_factor": 2,
        "bin_mode": "mean",
        "rotated_clockwise_deg": 90,
        "flipped": "vertical",
        "levels": [100, 60000],
    }


def test_nothing_to_do_changes_nothing() -> None:
    frames = frames_of((2, 3, 4), "uint8")
    assert Transforms().apply(frames) is frames
    assert Transforms().attributes() == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(region=Region(0, 0, 11, 2)), "not inside"),
        (dict(region=Region(-1, 0, 2, 2)), "not inside"),
        (dict(region=Region(0, 0, 0, 2)), "not inside"),
        (dict(bin_factor=9), "bin factor"),
        (dict(bin_factor=0), "bin factor"),
        (dict(degrees=45), "rotation"),
        (dict(dark=np.zeros((3, 3), np.uint8)), "dark frame"),
        (dict(levels=(5.0, 5.0)), "levels"),
        (dict(levels=(float("nan"), 5.0)), "levels"),
    ],
)
def test_changes_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transforms(**changes).apply(frames_of((8, 10), "uint8"))
