"""Local maxima of a profile: by height above the valleys beside them, at least some px apart.

They equal those of ``scipy.signal.find_peaks``, whose import takes a second of processor time and 30 MB in each
analysis process, because it imports ``scipy.stats``.
"""

from __future__ import annotations

import numpy as np

from atomstream.results import F64, Int


def find_maxima(y: F64, least_prominence: float, distance: int = 1) -> tuple[Int, F64]:
    """Return the positions (K,) of the maxima of a profile (N,), ascending, and their prominences (K,).

    A flat top counts at its middle; the ends of the profile are not maxima. Of two maxima less than ``distance`` px
    apart the higher one is kept. The prominence is the height above the higher one of the lowest values on both
    sides, as far as the profile is not higher than the maximum.
    """
    places = _spaced(*_tops(y), distance)
    prominences = np.array([_prominence(y, place) for place in places.tolist()], dtype=np.float64)
    enough = prominences >= least_prominence
    return places[enough], prominences[enough]


def _tops(y: F64) -> tuple[Int, F64]:
    """Return the positions and heights of all local maxima."""
    if len(y) < 3:
        return np.empty(0, dtype=np.intp), y[:0]
    ends = np.append(np.flatnonzero(y[1:] != y[:-1]), len(y) - 1)  # the last sample of each run of equal ones
    starts = np.append(0, ends[:-1] + 1)
    levels = y[starts]
    inner = np.flatnonzero((levels[1:-1] > levels[:-2]) & (levels[1:-1] > levels[2:])) + 1
    return (starts[inner] + ends[inner]) // 2, levels[inner]


def _spaced(places: Int, heights: F64, distance: int) -> Int:
    """Return the positions without those next to a higher one that is kept."""
    if distance <= 1 or len(places) < 2:
        return places
    kept = np.ones(len(places), dtype=bool)
    for index in np.argsort(heights)[::-1].tolist():
        if kept[index]:
            near = slice(*np.searchsorted(places, [places[index] - distance + 1, places[index] + distance]))
            kept[near] = False
            kept[index] = True
    return places[kept]


def _prominence(y: F64, place: int) -> float:
    higher = np.flatnonzero(y > y[place])
    at = int(np.searchsorted(higher, place))
    first = int(higher[at - 1]) + 1 if at > 0 else 0
    last = int(higher[at]) if at < len(higher) else len(y)
    return float(y[place] - max(y[first : place + 1].min(), y[place:last].min()))
