"""Repetition of the pictures of a rotating pattern: after a turn, and after 1/n of a turn on an n-fold surface.

The rotation speed was stated, perhaps wrongly. The pictures repeat after a time p and its multiples, and a turn lasts
p, 2 p, 3 p, 4 p or 6 p: a crystal has no other rotation symmetry. The search for the nearest repetition alone does not
see that: 5/6 of a turn of a six-fold surface may be nearer to the stated turn than the turn itself.
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.results import F32, F64, Bool, Int

SEARCH_RANGE = 0.12
"""Relative deviation from the nominal period within which the true period is searched."""

FOLDS = (1, 2, 3, 4, 6)
"""Rotation symmetries of a crystal's surface."""

CLEARLY_NEARER = 1.8
"""Least ratio of deviations from the stated turn, of the second best symmetry to the best: below it, the turn is not
decided."""

DOMAIN_FOLDS, DOMAIN_RANGE = (8, 12), 0.03
"""Symmetries of surfaces with two domains at 45 or 30 degrees, and the range within which the turn must be nominal."""

RETURNED = 0.5
"""Least similarity of pictures that returned, as a share of that of the most similar ones."""

OTHER = 0.3
"""Largest similarity of pictures at other azimuths, as the same share."""

MIN_FIRST, FINE_FIRST = 2, 4
"""Fewest pictures until the pattern is another one: for any search, since the camera may miss the returns of a faster
one, and for a return between two pictures to be as similar as one at a picture."""

MIN_BETTER = 0.015
"""Least excess of the similarity after a whole turn over that after 1/n of it, relative: the sample is tilted."""

MIN_SIMILARITY = 0.1
"""Least similarity of the most similar pictures: below, they show only noise."""

LAG_ERROR = 0.6
LAG_ERROR_SHARE = 0.02
"""Largest deviation of a repetition from a multiple of p: in pictures, and as a share of its lag."""


def repeat_lag(ring: F32, nominal: float) -> tuple[float, float]:
    """Return the lag near ``nominal`` at which a series of unit pictures (N, P) repeats, and its sigma.

    Both are in pictures; the lag has sub-sample resolution (parabola through the autocorrelation's maximum). NaN
    where the series does not repeat.
    """
    low, high = math.floor(nominal * (1 - SEARCH_RANGE)), math.ceil(nominal * (1 + SEARCH_RANGE))
    high = min(high, len(ring) - 8)
    if high - low < 3:
        return math.nan, math.nan
    gram = ring @ (ring - ring.mean(axis=0)).T
    lags = np.arange(low, high + 1)
    score = np.array([float(np.diagonal(gram, int(k)).mean()) for k in lags])
    # At the border the autocorrelation may rise towards the period of an n-fold surface: only maxima count.
    inner = _maxima(score)
    spread = float(np.median(np.abs(np.diff(score)))) + 1e-12
    if len(inner) == 0 or score[inner].max() - np.median(score) < 2.0 * spread:
        return math.nan, math.nan
    best = int(inner[np.argmax(score[inner])])
    reach = slice(max(0, best - 2), best + 3)
    a, b, _ = np.polyfit(lags[reach] - lags[best], score[reach], 2)
    if a >= 0:
        return math.nan, math.nan
    return float(lags[best] - b / (2 * a)), 0.15


def return_lag(ring: F32, hidden: Bool) -> float | None:
    """Return the shortest lag, in pictures, at which a series of pictures (N, P) repeats as well as at any other.

    On a tilted sample this is a whole turn, although 1/n of it gives similar pictures.

    The ``hidden`` pixels (P,) do not count: those of the specular spot, whose brightness changes with growth. Pictures
    that do not resemble the ones beside them, such as those without light, are left out. None if the pictures do not
    repeat, all agree, differ already from the next one, or repeat at lags that are not multiples of one of them.
    """
    if hidden.mean() > 0.5:
        return None
    seen = ring[:, ~hidden] - ring[:, ~hidden].mean(axis=0)
    seen /= np.linalg.norm(seen, axis=1, keepdims=True) + 1e-6
    gram = seen @ seen.T
    beside = np.diagonal(gram, 1)
    near = np.maximum(np.append(beside, -1.0), np.insert(beside, 0, -1.0))
    good = near > 0.5 * float(np.median(near))
    gram[~good], gram[:, ~good] = math.nan, math.nan
    score = np.array([_mean(np.diagonal(gram, k)) for k in range(len(ring) - 8)])
    top = float(np.nanmax(score[1:], initial=0.0))
    if top < MIN_SIMILARITY or float(np.nanmin(score)) > OTHER * top:
        return None
    first = int(np.argmax(score < OTHER * top))  # before it, successive pictures still agree
    peaks = [_vertex(score, int(k)) for k in _maxima(score) if k > first]
    best = max((height for _, height in peaks), default=0.0)
    if first < MIN_FIRST or best < RETURNED * top:
        return None
    heights: dict[
        int, tuple[float, float]
    ] = {}  # similarity, and distance from the next picture, of each multiple
    period = 0.0
    for lag, height in peaks:
        if height > RETURNED * best:
            period = period or lag
            multiple = round(lag / period)
            if abs(lag - multiple * period) > LAG_ERROR + LAG_ERROR_SHARE * lag:
                return None
            period = lag / multiple
            heights[multiple] = height / best, abs(lag - round(lag))
    return period * _best_multiple(heights, is_fine=first >= FINE_FIRST)


def _best_multiple(heights: dict[int, tuple[float, float]], *, is_fine: bool) -> int:
    """Return the smallest n so that every n-th return is better than the ones beside it; 1 if all are alike.

    ``heights`` are the similarity of each return and its distance from the next picture, in pictures. If the pictures
    are far apart in time, a return close to a picture looks better, so the similarity alone decides nothing.
    """
    for n in FOLDS[1:]:
        triples = [
            (heights[m], heights[m - 1], heights[m + 1])
            for m in range(n, max(heights), n)
            if m - 1 in heights and m in heights and m + 1 in heights
        ]
        if not triples:
            last, before = heights.get(n), heights.get(n - 1)
            triples = [(last, before, before)] if last and before else []
        better = [at[0] - 0.5 * (one[0] + other[0]) for at, one, other in triples]
        nearer = [0.5 * (one[1] + other[1]) - at[1] for at, one, other in triples]
        if better and min(better) > MIN_BETTER and (is_fine or float(np.mean(nearer)) < 0.1):
            return n
    return 1


def turn_of(return_s: float, nominal_s: float) -> float | None:
    """Return the length of a turn in s after whose 1/n the pattern returns (``return_s``), near the nominal one.

    None if no symmetry n gives a turn within 12 % of ``nominal_s``, or if two of them are nearly as near.
    """
    far = {n: abs(math.log(n * return_s / nominal_s)) for n in FOLDS}
    nearest, second = sorted(FOLDS, key=lambda n: far[n])[:2]
    is_clear = far[nearest] < SEARCH_RANGE and far[second] > CLEARLY_NEARER * far[nearest]
    domains = [n for n in DOMAIN_FOLDS if abs(math.log(n * return_s / nominal_s)) < DOMAIN_RANGE]
    fold = domains[0] if domains else nearest if is_clear else None
    return None if fold is None else fold * return_s


def _mean(values: F32) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) >= 4 else math.nan


def _maxima(score: F64) -> Int:
    """Return the positions of the local maxima, without the ends."""
    return np.flatnonzero((score[1:-1] >= score[:-2]) & (score[1:-1] > score[2:])) + 1


def _vertex(score: F64, at: int) -> tuple[float, float]:
    """Return the position and the height of a maximum of the score: the vertex of the parabola through three points."""
    before, top, after = (float(value) for value in score[at - 1 : at + 2])
    bend = before - 2.0 * top + after
    if not bend < 0:
        return float(at), top
    return at + 0.5 * (before - after) / bend, top - 0.125 * (before - after) ** 2 / bend
