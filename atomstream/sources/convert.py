"""Scales pixels of more than 8 bits to the 8 bits that every server accepts; only on request."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

Bytes: TypeAlias = npt.NDArray[np.uint8]

_BLOCK = 1 << 20
"""Pixels converted at a time, so that a long stack needs 8 MB of extra memory, not eight times its size."""


def to_uint8(frames: npt.ArrayLike, low: float | None = None, high: float | None = None) -> Bytes:
    """Map ``low`` .. ``high`` linearly to 0 .. 255, clip values outside, round halves up.

    ``frames`` may have any shape and any integer, bool or real floating dtype; the result is a new uint8
    array of the same shape (uint8 frames without limits are returned unchanged). ``low`` is the
    camera's black level and ``high`` its white level: (0, 1023) for 10 bits, (0, 4095) for 12, (0, 65535)
    for 16, (0, 1) for floats that are scaled so. There is no default: the
    range of uint16 would make 12-bit frames black, and the range of each picture would change the brightness from
    chunk to chunk.

    Infinities are clipped. Raises :class:`TypeError` for other dtypes, and :class:`ConfigError` (a ``ValueError``)
    if limits are missing, not finite or not in order, and for NaN.
    """
    array = np.asarray(frames)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"frames of dtype {array.dtype} can't be scaled to uint8; integers, bool and floats can"
        )
    if low is None and high is None and array.dtype == np.uint8:
        return array
    if low is None and high is None and array.dtype == np.bool_:
        low, high = 0.0, 1.0
    bottom, top = _limits(array, low, high)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        every_value = np.arange(np.iinfo(array.dtype).max + 1)
        return np.asarray(_scale(every_value, bottom, top)[array], dtype=np.uint8)
    return _scale_in_blocks(array, bottom, top)


def _limits(array: npt.NDArray[Any], low: float | None, high: float | None) -> tuple[float, float]:
    if low is None or high is None:
        raise ConfigError(
            f"{array.dtype} frames need both levels, black and white, to become uint8{_seen(array)}: "
            "give low and high, such as to_uint8(frames, 0, 4095) for a 12-bit camera"
        )
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"low must be below high and both finite; got low {low}, high {high}")
    return float(low), float(high)


def _seen(array: npt.NDArray[Any]) -> str:
    """Describe the range of these frames, which helps to choose the limits."""
    if array.size == 0 or array.dtype == np.bool_:
        return ""
    return f" (these span {array.min()} to {array.max()})"


def _scale(values: npt.NDArray[Any], low: float, high: float) -> Bytes:
    # Division by 512 is exact, and prevents an overflow for very large floats.
    span = high / 512 - low / 512
    grey = (np.clip(values.astype(np.float64), low, high) / 512 - low / 512) * 255.0 / span
    return np.floor(grey + 0.5).astype(np.uint8)


def _scale_in_blocks(array: npt.NDArray[Any], low: float, high: float) -> Bytes:
    out = np.empty(array.shape, dtype=np.uint8)
    source, target = array.reshape(-1), out.reshape(-1)
    for begin in range(0, source.size, _BLOCK):
        block = source[begin : begin + _BLOCK]
        if array.dtype.kind == "f" and np.isnan(block).any():
            raise ConfigError(
                "frames contain NaN, which has no grey level: replace it first, for example with numpy.nan_to_num"
            )
        target[begin : begin + _BLOCK] = _scale(block, low, high)
    return out
