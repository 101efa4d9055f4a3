"""Results of several growths on a common axis: averages, layers as the axis, what counts as normal, and what leaves it.

``atomstream.compare`` and the server's page "Compare" use it. numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from atomstream.results import F64

MOST_STEPS: Final = 2000
"""Steps of an axis whose steps the caller does not choose."""
LEAST_GROWTHS: Final = 3
"""Fewest growths that show what is normal: two would show one difference."""
COVERED: Final = 0.95
"""Share of normal growths that a band contains at each step."""
SMOOTHED: Final = 0.02
"""Share of the axis over which the spread of a band is averaged."""
STAYS: Final = 0.02
"""A growth has left the band if it stays outside over this share of the axis, and for at least three steps."""


@dataclass(frozen=True, slots=True)
class Axis:
    """``count`` steps of width ``step`` from ``low`` on."""

    low: float
    step: float
    count: int

    @property
    def centres(self) -> F64:
        """The middle of each step, (count,)."""
        return self.low + self.step * (np.arange(self.count) + 0.5)

    @classmethod
    def over(
        cls, positions: Sequence[F64], step: float | None = None, most: int = MOST_STEPS, least: float = 0.0
    ) -> Axis:
        """The axis from the smallest to the largest of all ascending ``positions``.

        ``step`` None: 1/``most`` of the axis, and at least ``least``.

        Raises:
            ValueError: no position, or a step that is not finite and above 0.
        """
        known = [one for one in positions if len(one)]
        if not known:
            raise ValueError("There is no position.")
        low, high = min(float(one[0]) for one in known), max(float(one[-1]) for one in known)
        width = step or max((high - low) / most, least)
        if not (np.isfinite(width) and width > 0):
            raise ValueError(f"The step is {width}; it must be finite and above 0.")
        return cls(low, width, int((high - low) / width) + 1)


def averaged(position: F64, values: F64, axis: Axis) -> F64:
    """The mean of the finite ``values`` (N,) at ``position`` (N,) in each step of the axis, (count,); NaN for none."""
    known = np.isfinite(values)
    places = np.clip(((position[known] - axis.low) / axis.step).astype(np.int64), 0, axis.count - 1)
    totals = np.bincount(places, weights=values[known], minlength=axis.count)
    numbers = np.bincount(places, minlength=axis.count)
    return np.where(numbers > 0, totals / np.maximum(numbers, 1), np.nan)


def bridged(values: F64, most: int = 5) -> F64:
    """``values`` (N,) with gaps of at most ``most`` NaN between two numbers filled in on a straight line."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) < 2:
        return values
    places = np.arange(len(values))
    filled = np.interp(places, known, values[known], left=np.nan, right=np.nan)
    after = np.minimum(np.searchsorted(known, places), len(known) - 1)
    gap = known[after] - known[np.maximum(after - 1, 0)] - 1
    return np.where(np.isfinite(values) | (gap <= most), filled, np.nan)


def first_mark(marks: Iterable[tuple[float, str, str]], align: str) -> float | None:
    """The time of the first of ``marks`` (s, kind, text) of the kind or text ``align``; None if there is none."""
    times = [float(time_s) for time_s, kind, label in marks if align in (kind, label)]
    return min((time_s for time_s in times if np.isfinite(time_s)), default=None)


def layers_from(counts: F64) -> F64:
    """The running sum of a count that begins again at each segment, (N,) from 0 on; NaN where it is not known.

    A fall by more than half an oscillation is a new beginning, a smaller one an error of the count.
    """
    known = np.flatnonzero(np.isfinite(counts))
    found = np.full(len(counts), np.nan)
    if not len(known):
        return found
    values = counts[known]
    steps = np.diff(values)
    added = np.where(steps < -0.5, values[1:], np.maximum(steps, 0.0))
    found[known] = values[0] + np.concatenate([[0.0], np.cumsum(added)])
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """Where a normal growth lies at each step: ``low`` to ``high``, each (count,), NaN where too few are known."""

    low: F64
    high: F64


def normal_band(values: F64) -> Band:
    """Where one more growth like ``values`` (n growths, count steps) lies at each step, with a chance of ``COVERED``.

    This is the prediction interval of the normal distribution, mean +- t * s * sqrt(1 + 1/n) with Student's t of n - 1
    degrees of freedom (Hahn and Meeker, Statistical Intervals, 1991, section 4.7). The variance is averaged over
    neighbouring steps. Steps that fewer than ``LEAST_GROWTHS`` growths have are NaN.
    """
    number = np.isfinite(values).sum(axis=0)
    enough = number >= LEAST_GROWTHS
    filled = np.where(np.isfinite(values), values, 0.0)
    mean = filled.sum(axis=0) / np.maximum(number, 1)
    squares = (np.where(np.isfinite(values), values - mean, 0.0) ** 2).sum(axis=0)
    variance = _smoothed(np.where(enough, squares / np.maximum(number - 1, 1), np.nan))
    t = np.array([student_t(freedom) for freedom in range(int(number.max(initial=0)) + 1)])[
        np.maximum(number - 1, 0)
    ]
    half = t * np.sqrt(variance * (1.0 + 1.0 / np.maximum(number, 1)))
    return Band(np.where(enough, mean - half, np.nan), np.where(enough, mean + half, np.nan))


_STUDENT: Final = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t that 95 % of the values lie within, for 1 to 10 degrees of freedom."""


def student_t(freedom: int) -> float:
    """Student's t that ``COVERED`` of the values lie within; within 0.1 %.

    Not from scipy, which would take 40 MB of the server. Above the table: the expansion around the normal distribution
    (Abramowitz and Stegun, 26.7.5).
    """
    if freedom < 1:
        return float("nan")
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def _smoothed(variance: F64) -> F64:
    reach = 2 * int(0.5 * SMOOTHED * len(variance)) + 1
    ones = np.ones(reach)
    known = np.isfinite(variance)
    total = np.convolve(np.where(known, variance, 0.0), ones, "same")
    number = np.convolve(known.astype(np.float64), ones, "same")
    return np.where(known, total / np.maximum(number, 1.0), np.nan)


def leaves_at(values: F64, band: Band) -> int | None:
    """The step from which ``values`` (count,) stay outside of the band; None if they do not leave it.

    They stay outside over ``STAYS`` of the axis and at least three steps, all on one side. Steps without a value or a
    band are passed over.
    """
    needed = max(3, round(STAYS * len(values)))
    known = np.flatnonzero(np.isfinite(values) & np.isfinite(band.low))
    sides = np.where(values[known] > band.high[known], 1, np.where(values[known] < band.low[known], -1, 0))
    run = 0
    for k in range(len(known)):
        run = run + 1 if sides[k] and (k == 0 or run == 0 or sides[k] == sides[k - 1]) else int(sides[k] != 0)
        if run >= needed:
            return int(known[k - run + 1])
    return None


def plain(values: Any, digits: int = 7) -> list[float | None]:
    """Values for JSON: rounded to ``digits`` significant digits, None for NaN."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in np.asarray(values)]
