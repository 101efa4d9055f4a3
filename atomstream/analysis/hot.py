"""Hot pixels: single ones that stand alone out of all their neighbours, in each frame alike.

One in a streak moves its centroid: in small pictures by more than a tenth of a pixel, which is some per cent of the
spacing. They are told from spots, which no optics makes as small as one pixel, on the mean of the first frames.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomstream.analysis.arrays import F32, F64
from atomstream.records import Frames

Hot: TypeAlias = tuple[tuple[int, int], ...]
"""(row, column) of each."""

_NOISES: Final = 10.0
_RANGES: Final = 2.0
_MOST: Final = 0.001
"""Of all pixels; where more stand alone they are the picture's texture."""
_NEIGHBOURS: Final = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def find_hot(picture: F64, clean: F64) -> Hot:
    """The hot pixels of a mean frame (H, W); ``clean`` is its 3x3 median.

    One exceeds the brightest of its eight neighbours by ten noise widths and twice their own range: the
    tip of a spot two pixels wide exceeds them by 1.6 ranges.
    """
    highest = ndimage.maximum_filter(picture, footprint=_NEIGHBOURS, mode="mirror")
    lowest = ndimage.minimum_filter(picture, footprint=_NEIGHBOURS, mode="mirror")
    noise = 1.4826 * float(np.median(np.abs(picture - clean))) + 1e-9
    rows, columns = np.nonzero(picture - highest > _NOISES * noise + _RANGES * (highest - lowest))
    if len(rows) > max(3.0, _MOST * picture.size):
        return ()
    return tuple((int(r), int(c)) for r, c in zip(rows, columns, strict=True))


def healed(picture: npt.NDArray[np.floating], hot: Hot) -> npt.NDArray[np.floating]:
    """``picture`` (H, W) with each hot pixel as the mean of the ones above and below it; streaks go that way."""
    if not hot:
        return picture
    mended = picture.copy()
    for row, column in hot:
        above, below = _around(row, len(picture))
        mended[row, column] = 0.5 * (picture[above, column] + picture[below, column])
    return mended


def heal_profiles(profiles: F32, frames: Frames, band: tuple[int, int], hot: Hot) -> None:
    """Take the hot pixels out of ``profiles`` (N, W), the means of ``frames`` (N, H, W) over the rows ``band``."""
    for row, column in hot:
        if band[0] <= row < band[1]:
            above, below = _around(row, frames.shape[1])
            good = 0.5 * (frames[:, above, column].astype(np.float32) + frames[:, below, column])
            profiles[:, column] += (good - frames[:, row, column]) / np.float32(band[1] - band[0])


def _around(row: int, height: int) -> tuple[int, int]:
    return (row - 1 if row else row + 1), (row + 1 if row + 1 < height else row - 1)
