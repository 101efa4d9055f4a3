"""Diffraction orders: intensity of integer streaks and of fractional ones between them (surface reconstruction)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from atomstream.results import F64

FRACTIONS = (2, 3, 4, 7)
"""Denominators of the fractional orders that are searched: 1/2, 1/3, 1/4 and 1/7."""

DETECTION_Z = 5.0
"""An order is detected if its height exceeds this many standard errors ..."""

DETECTION_S = 0.5
"""... for this time in s, which is also the time constant of the mean."""


@dataclass(frozen=True, slots=True)
class Heights:
    """Heights (N,) of an order in N profiles, and the error (N,) from the curvature of the background."""

    height: F64
    background_error: F64


def order_heights(profiles: F64, x0: float, spacing: float, order: float, fwhm: float) -> Heights:
    """Return background-subtracted mean heights at x0 + order * spacing in profiles (N, W), all in px.

    NaN outside the picture, and if the streaks are too wide to separate this order from its neighbours. The
    background is a parabola through two windows on each side: between two streaks it is convex, and a linear
    background would make a missing order negative. A third of this correction is the background error.
    """
    denominator = _denominator(order)
    centre = x0 + order * spacing
    near, far = (
        (0.22 * spacing, 0.3 * spacing)
        if denominator == 1
        else (0.36 * spacing / denominator, 0.56 * spacing / denominator)
    )
    half = max(0.5, min(0.5 * fwhm, 0.5 * near))
    if near < 0.85 * fwhm:
        missing = np.full(len(profiles), np.nan)
        return Heights(missing, missing)
    inner, outer = (
        0.5 * (window_mean(profiles, centre - d, half) + window_mean(profiles, centre + d, half))
        for d in (near, far)
    )
    background = inner if denominator == 1 else (inner * far**2 - outer * near**2) / (far**2 - near**2)
    return Heights(window_mean(profiles, centre, half) - background, np.abs(background - inner) / 3.0)


def window_mean(profiles: F64, centre: float, half: float) -> F64:
    """Return the mean of profiles (N, W) over centre ± half (px) with fractional edges; NaN outside the picture."""
    low, high = centre - half + 0.5, centre + half + 0.5  # pixel i covers [i, i + 1) of this axis
    width = profiles.shape[1]
    if low < 0 or high > width:
        return np.full(len(profiles), np.nan)
    first, last = int(low), min(width - 1, int(high))
    weight = np.ones(last - first + 1)
    weight[0] -= low - first
    weight[-1] -= last + 1 - high
    mean: F64 = profiles[:, first : last + 1] @ weight / weight.sum()
    return mean


def _denominator(order: float) -> int:
    for denominator in (1, *FRACTIONS):
        if abs(order * denominator - round(order * denominator)) < 1e-6:
            return denominator
    return 1


@dataclass(slots=True)
class FractionalOrderDetector:
    """Detects one fractional order 1/``denominator``: ``present`` is True after z > 5 for 0.5 s.

    ``mean`` is the exponential mean of its height, ``variance`` the variance between blocks.
    """

    denominator: int
    mean: float = 0.0
    variance: float = 0.0
    last: float = math.nan
    weight: float = 0.0
    above_s: float = 0.0
    present: bool = False

    def update(self, height: float, noise: float, background_error: float, elapsed_s: float) -> bool:
        """Add the mean height of one block of ``elapsed_s``; return True if the order just appeared.

        ``noise`` is the standard error of the height, ``background_error`` the part that does not average out.
        """
        if not math.isfinite(height):
            return False
        share = 1.0 - math.exp(-elapsed_s / DETECTION_S)
        if math.isfinite(self.last):
            self.variance += share * (0.5 * (height - self.last) ** 2 - self.variance)
        self.last = height
        self.weight += share * (1.0 - self.weight)
        self.mean += share / max(self.weight, share) * (height - self.mean)
        self.above_s = (
            self.above_s + elapsed_s
            if self.z_score(noise, background_error, elapsed_s) > DETECTION_Z
            else 0.0
        )
        appeared = not self.present and self.above_s >= DETECTION_S
        self.present = self.above_s >= DETECTION_S or (
            self.present and self.z_score(noise, background_error, elapsed_s) > 0.5 * DETECTION_Z
        )
        return appeared

    def z_score(self, noise: float, background_error: float, elapsed_s: float) -> float:
        """Return the mean height divided by its standard error."""
        return self.mean / self.standard_error(noise, background_error, elapsed_s)

    def standard_error(self, noise: float, background_error: float, elapsed_s: float) -> float:
        """Return the standard error of the mean height."""
        blocks = max(1.0, 2.0 * DETECTION_S / elapsed_s) if elapsed_s else 1.0
        scatter = max(math.sqrt(self.variance), noise, 1e-9) / math.sqrt(min(blocks, 10.0))
        return math.hypot(scatter, background_error)
