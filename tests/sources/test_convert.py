from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atomstream.errors import ConfigError
from atomstream.sources import to_uint8


def exact(value: int, low: int, high: int) -> int:
    """The documented rule in rational numbers."""
    grey = Fraction((value - low) * 255, high - low)
    return int(min(max(grey, Fraction(0)), Fraction(255)) + Fraction(1, 2))


@given(
    hnp.arrays(
        st.sampled_from([np.uint16, np.int16, np.int32, np.float64]), 20, elements=st.integers(0, 32767)
    ),
    st.integers(-500, 4000),
    st.integers(1, 40_000),
)
def test_scaling_is_exact(frames: np.ndarray, low: int, span: int) -> None:
    """low..high maps linearly on 0..255, clipped, halves up, equal to rational arithmetic."""
    scaled = to_uint8(frames, low, low + span)
    assert scaled.dtype == np.uint8
    assert scaled.tolist() == [exact(int(value), low, low + span) for value in frames]


def test_halves_go_up() -> None:
    """Grey levels 0.5, 1.5 and 2.5 become 1, 2 and 3 (not rounded to even)."""
    assert to_uint8(np.array([1, 3, 5], np.uint16), 0, 510).tolist() == [1, 2, 3]
    assert to_uint8(np.array([0.5, 1.5, 2.5]), 0, 255).tolist() == [1, 2, 3]


def test_a_twelve_bit_camera() -> None:
    """12 bits in uint16 keep their contrast, with any strides and byte order."""
    frames = np.linspace(0, 4095, 24, dtype=">u2").reshape(2, 3, 4).transpose(0, 2, 1)
    scaled = to_uint8(frames, 0, 4095)
    assert scaled.shape == (2, 4, 3)
    assert (scaled.min(), scaled.max()) == (0, 255)
    np.testing.assert_array_equal(scaled, to_uint8(np.ascontiguousarray(frames.astype(np.float32)), 0, 4095))


def test_uint8_is_scaled_only_with_limits() -> None:
    """uint8 without limits is returned unchanged, with limits it is scaled."""
    frames = np.array([[10, 20, 30]], np.uint8)
    assert to_uint8(frames) is frames
    assert to_uint8(frames, 10, 30).tolist() == [[0, 128, 255]]


def test_bool_becomes_black_and_white() -> None:
    """False is 0 and True 255."""
    assert to_uint8(np.array([False, True])).tolist() == [0, 255]


def test_infinities_are_clipped() -> None:
    """Infinite pixels become black or white, and very large floats do not overflow."""
    big = np.finfo(np.float64).max
    assert to_uint8(np.array([-np.inf, 0.5, np.inf]), 0, 1).tolist() == [0, 128, 255]
    assert to_uint8(np.array([-big, big]), 0, 1).tolist() == [0, 255]
    assert to_uint8(np.array([-big, 0.0, big]), -big, big).tolist() == [0, 128, 255]


def test_more_pixels_than_one_block() -> None:
    """A stack longer than a block of the conversion is converted whole."""
    frames = np.arange(3 * 700 * 700, dtype=np.int32).reshape(3, 700, 700)
    scaled = to_uint8(frames, 0, frames.size - 1)
    assert (scaled[0, 0, 0], scaled[-1, -1, -1]) == (0, 255)
    assert (np.diff(scaled.reshape(-1).astype(int)) >= 0).all()


def test_missing_limits_report_the_range() -> None:
    """Without limits the error contains dtype, range and an example."""
    with pytest.raises(ConfigError, match=r"uint16 frames need both levels.*span 7 to 4000.*0, 4095"):
        to_uint8(np.array([7, 4000], np.uint16))
    with pytest.raises(ConfigError, match="need both"):
        to_uint8(np.zeros((0, 2, 2), np.float32), low=0.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)])
def test_limits_out_of_order_are_refused(low: float, high: float) -> None:
    """low must be below high and both finite."""
    with pytest.raises(ConfigError, match="low must be below high"):
        to_uint8(np.zeros(3), low, high)


def test_nan_is_refused() -> None:
    """NaN raises ConfigError at any position."""
    frames = np.zeros((2, 800, 800), np.float32)
    frames[1, 799, 799] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        to_uint8(frames, 0, 1)


@pytest.mark.parametrize("frames", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_other_dtypes_raise_type_error(frames: np.ndarray) -> None:
    """Complex, text and object arrays raise TypeError."""
    with pytest.raises(TypeError, match="can't be scaled"):
        to_uint8(frames, 0, 1)
