"""Views of a turning sample: the azimuths at which the picture mirrors itself about the specular column.

An azimuth keeps its number as long as the sample turns, found or not in between: what people said of it stays with it.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from atomstream.analysis.arrays import F32, F64, Bool
from atomstream.analysis.batch import View

MOST_VIEWS = 12
WIDEST_GAP_DEG = 8.0
"""Between neighbouring azimuths that were filmed: views are some degrees wide, and in wider gaps whole ones hide."""
LEAST_PER_TURN = 60
"""Frames a turn from which no such gap is left in bins of 2 degrees."""
SAME_DEG = 6.0


def is_whole_turn(seen: Bool) -> bool:
    """Whether ``seen`` (bins,), the azimuths that were filmed, leaves no gap in which a view would be missed."""
    places = np.flatnonzero(seen)
    if len(places) < 3:
        return False
    gaps = np.diff(places, append=places[0] + len(seen))
    return bool(gaps.max() * 360.0 <= WIDEST_GAP_DEG * len(seen))


def view_places(symmetry: F64, seen: Bool) -> list[int]:
    """Bins of the sharpest maxima of the symmetry (bins,), the sharpest first; only ``seen`` bins count.

    What was not filmed is told from its neighbours around the turn, so that a slow camera does as well.
    """
    places = np.flatnonzero(seen)
    whole = np.interp(np.arange(len(seen)), places, symmetry[places], period=len(seen))
    # a view is a sharp maximum: symmetry changes slowly with azimuth otherwise
    sharp = whole - ndimage.median_filter(whole, 15, mode="wrap")
    peak = ndimage.maximum_filter1d(sharp, 9, mode="wrap") == sharp
    noise = 1.4826 * float(np.median(np.abs(sharp[places]))) + 1e-9
    found = [int(i) for i in np.flatnonzero(peak & seen & (sharp > 4.0 * noise))]
    return sorted(found, key=lambda i: -float(sharp[i]))[:MOST_VIEWS]


def known_as(angle_deg: float, known: dict[int, View], taken: set[int]) -> int | None:
    """Number of the nearest of the ``known`` views within ``SAME_DEG`` that is not ``taken``, None for a new one."""
    near = [
        (apart_deg(view.angle_deg, angle_deg), number)
        for number, view in known.items()
        if number not in taken
    ]
    distance, number = min(near, default=(SAME_DEG, -1))
    return number if distance < SAME_DEG else None


def apart_deg(one: float, other: float) -> float:
    """Angle between two azimuths, 0 to 180 degrees."""
    return abs((one - other + 180.0) % 360.0 - 180.0)


def mirror_symmetry(pictures: F32, centre: float) -> F64:
    """Correlation of pictures (N, H, W) with their mirror image about column ``centre``: (N,), -1 to 1."""
    width = pictures.shape[2]
    reach = int(min(centre, width - 1 - centre))
    if reach < 2:
        return np.zeros(len(pictures))
    offsets = np.arange(1, reach + 1)
    right, left = _columns(pictures, centre + offsets), _columns(pictures, centre - offsets)
    right = right - right.mean(axis=(1, 2), keepdims=True)
    left = left - left.mean(axis=(1, 2), keepdims=True)
    norm = np.sqrt((right**2).sum(axis=(1, 2)) * (left**2).sum(axis=(1, 2))) + 1e-9
    result: F64 = ((right * left).sum(axis=(1, 2)) / norm).astype(np.float64)
    return result


def _columns(pictures: F32, at: F64) -> F32:
    low = np.clip(np.floor(at).astype(np.intp), 0, pictures.shape[2] - 2)
    part = (at - low).astype(np.float32)
    mixed: F32 = pictures[:, :, low] * (1 - part) + pictures[:, :, low + 1] * part
    return mixed
