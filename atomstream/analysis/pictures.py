"""Operations on pictures that several trackers use: mask the specular spot, find the dim pixels, compare two pictures.

The specular spot brightens and dims with growth and with the pulses of a laser, so it is masked where the pattern or
its motion is examined.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream.results import Int

HIDDEN_FWHM = 1.5
"""Half size of the rectangle that masks the specular spot, in widths (FWHM) of the spot."""

MAX_HIDDEN = 0.1
"""Largest half width of this rectangle where streaks must be left, as a share of the picture's width: small crops."""

DIM_SHARE = 0.4
"""Share of the picture's pixels, the dimmest, that are taken as background."""


def hidden_part(
    centre: float, fwhm: float, count: int, px_per_bin: float = 1.0, max_half: float = math.inf
) -> slice:
    """Return the bins, of ``count`` along an axis, that the specular spot covers.

    ``centre``, ``fwhm`` and ``max_half``, the largest half width, are in px.
    """
    half = min(HIDDEN_FWHM * fwhm + 1.0, max_half)
    first, end = math.floor((centre - half) / px_per_bin), math.ceil((centre + half) / px_per_bin) + 1
    return slice(min(max(first, 0), count), min(max(end, 0), count))


def bridge(picture: npt.NDArray[Any], rows: slice, columns: slice) -> None:
    """Replace a part of pictures (..., H, W), in each row by a straight line between its neighbours, in place.

    A part that reaches the left or the right edge has no neighbours there and stays.
    """
    if not 0 < columns.start < columns.stop < picture.shape[-1]:
        return
    share = np.linspace(0.0, 1.0, columns.stop - columns.start, dtype=picture.dtype)
    left, right = picture[..., rows, columns.start - 1, None], picture[..., rows, columns.stop, None]
    picture[..., rows, columns] = left + share * (right - left)


def dim_pixels(picture: npt.NDArray[np.floating[Any]]) -> Int:
    """Return the indices of the dimmest pixels of a picture (P,), at least one."""
    count = max(1, round(DIM_SHARE * len(picture)))
    return np.argsort(picture)[:count]


def correlation(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> float:
    """Return the cosine of the angle between two arrays of one shape, -1 to 1; 0 if one of them is 0.

    For arrays with zero mean this is their correlation coefficient.
    """
    one, other = a.ravel(), b.ravel()
    norm = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / norm if norm > 0 else 0.0
