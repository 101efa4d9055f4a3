"""Diffraction orders: intensity of integer streaks and of fractional ones between them (surface reconstruction)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from atomstream.results import F64

FRACTIONS = (2, 3, 4, 7)
"""Denominators of the fractional orders that are searched: 1/2, 1/3, 1/4 and 1/7."""

DETECTION_Z = 5.0
"""Least height of a detected order, in standard errors. It must last for :data:`DETECTION_S`."""

DETECTION_S = 0.5
"""Time in s for which a detected order must have that height; also the time constant of the mean height."""


RISE_S = 1.0
"""Time, in s, before now: a rise is measured against the levels that were recorded before it."""

EARLIER_LEVELS, MIN_EARLIER = 16, 3
"""Largest and least number of earlier levels, of 0.5 s or one block each."""

MIN_RISE = 0.03
"""Least rise of an order that appears, as a share of the height of the first order."""


@dataclass(frozen=True, slots=True)
class Heights:
    """Heights (N,) of an order in N profiles, and the error (N,) from the curvature of the background."""

    height: F64
    background_error: F64


def order_heights(
    profiles: F64, x0: float, spacing: float, orders: Sequence[float], fwhm: float
) -> list[Heights]:
    """Return background-subtracted mean heights at x0 + order * spacing in profiles (N, W), all in px.

    NaN outside the picture, and if the streaks are too wide to separate an order from its neighbours. The
    background is a parabola through two windows on each side: between two streaks it is convex, and a linear
    background would make a missing order negative. A third of this correction is the background error.
    """
    places, halves = np.empty((len(orders), 5)), np.empty((len(orders), 5))
    distances = [_background_distances(order, spacing) for order in orders]
    for k, (order, (near, far)) in enumerate(zip(orders, distances, strict=True)):
        places[k] = x0 + order * spacing + np.array([0.0, -near, near, -far, far])
        halves[k] = max(0.5, min(0.5 * fwhm, 0.5 * near))
    means = window_means(profiles, places.ravel(), halves.ravel()).reshape(len(profiles), -1, 5)
    found = []
    for k, (order, (near, far)) in enumerate(zip(orders, distances, strict=True)):
        if near < 0.85 * fwhm:
            missing = np.full(len(profiles), np.nan)
            found.append(Heights(missing, missing))
            continue
        top, inner_left, inner_right, outer_left, outer_right = means[:, k].T
        inner, outer = 0.5 * (inner_left + inner_right), 0.5 * (outer_left + outer_right)
        is_integer = _denominator(order) == 1
        background = inner if is_integer else (inner * far**2 - outer * near**2) / (far**2 - near**2)
        found.append(Heights(top - background, np.abs(background - inner) / 3.0))
    return found


def _background_distances(order: float, spacing: float) -> tuple[float, float]:
    """Return the distances of the inner and outer windows of the background from an order, in px."""
    denominator = _denominator(order)
    if denominator == 1:
        return 0.22 * spacing, 0.3 * spacing
    return 0.36 * spacing / denominator, 0.56 * spacing / denominator


def window_means(profiles: F64, centres: F64, halves: F64) -> F64:
    """Return the means (N, K) of profiles (N, W) over centres (K,) ± halves (K,), px, with fractional edges.

    NaN outside the picture. Differences of running sums: one call for all windows takes as long as one window.
    """
    count, width = profiles.shape
    edges = centres + np.stack([-halves, halves]) + 0.5  # pixel i covers [i, i + 1) of this axis
    outside = (edges[0] < 0) | (edges[1] > width)
    edges[:, outside] = 0.0
    sums = np.zeros((count, width + 1))
    np.cumsum(profiles, axis=1, dtype=np.float64, out=sums[:, 1:])
    pixels = np.minimum(edges.astype(np.intp), width - 1)
    low, high = np.moveaxis(sums[:, pixels] + (edges - pixels) * profiles[:, pixels], 1, 0)
    means: F64 = (high - low) / (2.0 * halves)
    means[:, outside] = np.nan
    return means


def _denominator(order: float) -> int:
    for denominator in (1, *FRACTIONS):
        if abs(order * denominator - round(order * denominator)) < 1e-6:
            return denominator
    return 1


@dataclass(slots=True)
class FractionalOrderDetector:
    """Detects one fractional order 1/``denominator``: ``present`` is True after z > 5 for 0.5 s.

    ``mean`` is the exponential mean of its height, ``variance`` the variance between blocks. ``levels`` (<= 16, 3) are
    time in s, height and height of the first order, each averaged over 0.5 s; ``open_level`` (4,) holds the sums of
    the next level: number of blocks, both heights, length in s. ``announced`` is True once the order has appeared,
    until it vanishes. An order that is there from the beginning is present, but has not appeared: it appears only by
    a rise above the earlier levels.
    """

    denominator: int
    mean: float = 0.0
    variance: float = 0.0
    last: float = math.nan
    weight: float = 0.0
    above_s: float = 0.0
    risen_s: float = 0.0
    present: bool = False
    announced: bool = False
    time_s: float = 0.0
    levels: F64 = field(default_factory=lambda: np.empty((0, 3)))
    open_level: F64 = field(default_factory=lambda: np.zeros(4))

    def update(
        self, height: float, noise: float, background_error: float, elapsed_s: float, first: float = math.nan
    ) -> bool:
        """Add the mean height of one block of ``elapsed_s``; return True if the order just appeared.

        ``noise`` is the standard error of the height, ``background_error`` the part that does not average out,
        ``first`` the height of the first order: what only grows with it is not new.
        """
        if not math.isfinite(height):
            return False
        share = 1.0 - math.exp(-elapsed_s / DETECTION_S)
        if math.isfinite(self.last):
            self.variance += share * (0.5 * (height - self.last) ** 2 - self.variance)
        self.last = height
        self.weight += share * (1.0 - self.weight)
        self.mean += share / max(self.weight, share) * (height - self.mean)
        error = self.standard_error(noise, background_error, elapsed_s)
        z = self.mean / error
        self.above_s = self.above_s + elapsed_s if z > DETECTION_Z else 0.0
        self.present = self.above_s >= DETECTION_S or (self.present and z > 0.5 * DETECTION_Z)
        has_risen = self.above_s > 0.0 and self._rise(first) > DETECTION_Z * math.hypot(
            error, self._scatter()
        )
        self.risen_s = self.risen_s + elapsed_s if has_risen else 0.0
        self._add_level(height, first, elapsed_s)
        appeared = self.present and not self.announced and self.risen_s >= DETECTION_S
        self.announced = self.present and (self.announced or appeared)
        return appeared

    def restart(self) -> None:
        """Discard the earlier levels: the pattern or the light changed, or frames are missing."""
        self.levels, self.open_level = self.levels[:0], np.zeros(4)
        self.risen_s = 0.0

    def _add_level(self, height: float, first: float, elapsed_s: float) -> None:
        self.time_s += elapsed_s
        self.open_level += np.array([1.0, height, first, elapsed_s])
        count, _, _, length_s = self.open_level
        if length_s >= DETECTION_S * (1.0 - 1e-9):
            level = np.array([self.time_s, *(self.open_level[1:3] / count)])
            self.levels = np.concatenate([self.levels, level[None]])[-EARLIER_LEVELS:]
            self.open_level = np.zeros(4)

    def _earlier(self) -> F64:
        """Return the levels (N, 3) that were over before a rise could begin."""
        return self.levels[self.levels[:, 0] <= self.time_s - RISE_S]

    def _rise(self, first: float) -> float:
        """Return the height above that of the earlier levels, -inf while they are not known."""
        earlier = self._earlier()
        if len(earlier) < MIN_EARLIER:
            return -math.inf
        before, first_before = float(earlier[:, 1].mean()), float(earlier[:, 2].mean())
        grown = first / first_before if first_before > 0 and math.isfinite(first) else 1.0
        rise = self.mean - max(before, before * grown)
        is_new = rise > max(0.5 * self.mean, MIN_RISE * first if math.isfinite(first) else 0.0)
        return rise if is_new else -math.inf

    def _scatter(self) -> float:
        """Return the scatter of the earlier levels, enlarged for their small number."""
        earlier = self._earlier()[:, 1]
        count = len(earlier)
        return float(earlier.std()) * math.sqrt((count + 1.0) / (count - 1.0)) if count > 1 else math.inf

    def standard_error(self, noise: float, background_error: float, elapsed_s: float) -> float:
        """Return the standard error of the mean height."""
        blocks = max(1.0, 2.0 * DETECTION_S / elapsed_s) if elapsed_s else 1.0
        scatter = max(math.sqrt(self.variance), noise, 1e-9) / math.sqrt(min(blocks, 10.0))
        return math.hypot(scatter, background_error)
