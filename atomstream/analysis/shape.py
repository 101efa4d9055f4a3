"""Shapes of a trace that look periodic to a fit and are no growth: two levels, staircases."""

from __future__ import annotations

import numpy as np

from atomstream.analysis.arrays import F64


def is_two_level(y: F64, oscillation_r2: float) -> bool:
    """Whether two constant levels describe ``y`` (N,) better than the oscillation, which explains ``oscillation_r2``.

    A sinusoid leaves 19 % of its variance to the best two levels, a square wave none.
    """
    return two_level_r2(y) > max(0.9, oscillation_r2)


def two_level_r2(y: F64) -> float:
    """Share of the variance explained by the best split into two levels (Otsu's criterion), 0-1."""
    ordered = np.sort(y)
    n = len(ordered)
    total = float(((ordered - ordered.mean()) ** 2).sum())
    if n < 4 or total <= 0:
        return 0.0
    low = np.arange(1, n)
    sums = np.cumsum(ordered)[:-1]
    between = n / (low * (n - low)) * (sums - low * ordered.mean()) ** 2
    return float(between.max() / total)


def staircase_share(y: F64) -> float:
    """Share of the total variation carried by the few largest sample-to-sample moves, 0-1.

    A smooth oscillation spreads its variation over all samples; steps hold it in a few of them.
    """
    moves = np.abs(np.diff(y))
    if len(moves) < 20:
        return 0.0
    few = max(3, len(moves) // 40)
    noise = float(np.median(moves))
    large = np.sort(moves)[-few:]
    return float(np.clip(large - 2 * noise, 0.0, None).sum() / max(moves.sum(), 1e-300))
