"""Online measurement of the streaks: spacing, widths, fractional orders, and two- or three-dimensional growth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy import ndimage

from atomstream.analysis.calibration import Calibration
from atomstream.analysis.diffraction_orders import FRACTIONS, FractionalOrderDetector, Heights, order_heights
from atomstream.analysis.lattice import StreakComb, fit_comb, profile_noise, reciprocal_spacing
from atomstream.analysis.maxima import find_maxima
from atomstream.analysis.pattern import Pattern
from atomstream.analysis.peak_shape import Width, coherence_length, fit_width
from atomstream.analysis.pictures import correlation
from atomstream.results import F32, F64, Int, Measurement, measured, undetermined

# Two- or three-dimensional growth: a smooth surface gives long, even streaks along y; islands give transmission spots
# at regular distances (A. Ichimiya & P. I. Cohen, Reflection High-Energy Electron Diffraction, 2004). The profile along
# a streak is divided by its envelope; the autocorrelation of the result shows the period of the spots. A plain ratio of
# FFT bands fails, because the edge of the envelope has the same frequencies.


def streak_aspect(column: F64, at: float, fwhm_x: float) -> float:
    """Return the FWHM along y of a streak's profile (H,) at row ``at``, divided by its FWHM along x (px)."""
    row = min(len(column) - 1, max(0, round(at)))
    window = slice(max(0, row - 8), row + 9)
    row = window.start + int(np.argmax(column[window]))
    floor = float(np.percentile(column, 10))
    below = column < 0.5 * (column[row] + floor)
    above, under = np.flatnonzero(below[:row]), np.flatnonzero(below[row:])
    first = int(above[-1]) if len(above) else 0
    last = row + int(under[0]) if len(under) else len(column) - 1
    return max(1, last - first - 1) / max(fwhm_x, 1.0)


def spottiness(column: F64, noise: float) -> Measurement:
    """Return how much a streak's background-subtracted profile (H,) along y consists of repeated spots, 0-1.

    0 is one smooth streak, 1 separate spots at regular distances. ``noise`` is that of one sample.
    """
    peak = float(column.max()) if len(column) else 0.0
    if len(column) < 32 or peak < 8.0 * noise:
        return undetermined("the streaks are too weak or too short for spottiness", "1")
    rows = np.flatnonzero(column > max(0.08 * peak, 4.0 * noise))
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first < 16:
        return undetermined("the streaks are too short for spottiness", "1")
    part = ndimage.gaussian_filter1d(column[first:last], 1.5)
    tops, _ = find_maxima(part, max(4.0 * noise, 0.04 * peak), distance=4)
    if len(tops) < 2:
        return measured(0.0, _error(noise, peak), "1")
    return measured(_repeat_strength(part, tops), _error(noise, float(part[tops].min())), "1")


def _repeat_strength(part: F64, tops: Int) -> float:
    """Return the depth of the minima between the maxima, weighted by the autocorrelation at their distance."""
    between = part[tops[0] : tops[-1] + 1]
    even = between / np.interp(np.arange(len(between)), tops - tops[0], part[tops])
    valleys = [float(even[a - tops[0] : b - tops[0]].min()) for a, b in pairwise(tops)]
    depth = 1.0 - float(np.median(valleys))
    lag = round(float(np.median(np.diff(tops))))
    first, last = max(0, tops[0] - lag // 2), min(len(part), tops[-1] + lag // 2 + 1)
    places = np.arange(first, last)
    whole = part[first:last] / np.interp(places, tops, part[tops])
    a, b = whole[:-lag] - whole[:-lag].mean(), whole[lag:] - whole[lag:].mean()
    return float(np.clip(depth, 0.0, 1.0)) * math.sqrt(max(0.0, correlation(a, b)))


def _error(noise: float, height: float) -> float:
    return min(1.0, noise / max(height, 1e-9))


NO_STREAKS = "no regular streaks next to the specular spot; check the picture with a line region across them"

SMOOTH_S = 0.5
"""Time constant, in s, of the smoothed profile and spacing."""

SPOT_RANGE = 2.2
"""Range along y, in streak spacings from the specular spot, in which transmission spots are searched."""

SHAPE_ERROR = 0.01
"""Systematic error of a streak's position, as a share of its width: real streaks are not symmetric."""

GEOMETRY_ERROR = 0.004
"""Relative systematic error of a length in Å: sample position, incidence, and zone of the rods.

Between two real pictures of known surfaces with one calibration (Si(111) 7x7 and r3-Ag, see tests/data), the scale
differs by 0.6 %.
"""

SINCE_BEGIN = "since the first second"

SPACINGS = (
    "lattice_spacing",
    "relative_spacing_change",
    "relative_lattice_change",
    "referenced_strain",
    "lattice_parameter",
)
"""Names of the values that come from the spacing of the streaks."""


@dataclass(slots=True)
class SurfaceTracker:
    """Follows the streaks of a pattern. Lengths are in px.

    ``comb`` is the newest fit, ``smoothed_profile`` (W,) and ``spacing`` are exponential means. ``reference`` is the
    mean spacing of the first second, to which relative changes refer. ``ratios`` are the heights of the fractional
    orders relative to the first order, by denominator. ``row_error`` is how much the spacing depends on the rows.
    """

    pattern: Pattern
    comb: StreakComb | None = None
    smoothed_profile: F64 = field(default_factory=lambda: np.empty(0))
    spacing: float = math.nan
    spacing_sigma: float = math.nan
    reference: float = math.nan
    reference_sum: float = 0.0
    reference_s: float = 0.0
    specular_width: Width | None = None
    first_order_width: Width | None = None
    spottiness_value: Measurement = field(default_factory=lambda: undetermined("no slow block yet", "1"))
    aspect: float = math.nan
    row_error: float = 0.0
    detectors: list[FractionalOrderDetector] = field(
        default_factory=lambda: [FractionalOrderDetector(k) for k in FRACTIONS]
    )
    ratios: dict[int, Measurement] = field(default_factory=dict)

    @property
    def fwhm(self) -> float:
        """Width (FWHM) of the streaks in px: the fitted one, else a guess from the pattern."""
        width = self.first_order_width or self.specular_width
        limit = 0.3 * (self.pattern.spacing or 6.0 * self.pattern.fwhm_x)
        return width.total if width else max(1.5, min(0.7 * self.pattern.fwhm_x, limit))

    def update_block(self, profiles: F32, x0: float, elapsed_s: float) -> list[int]:
        """Add the profiles (N, W) of a block, with specular column ``x0`` (px); return new orders n (of 1/n)."""
        mean = profiles.mean(axis=0, dtype=np.float64)
        share = 1.0 - math.exp(-elapsed_s / SMOOTH_S)
        is_first = self.smoothed_profile.shape != mean.shape
        self.smoothed_profile = (
            mean if is_first else self.smoothed_profile + share * (mean - self.smoothed_profile)
        )
        guess = self.spacing if math.isfinite(self.spacing) else self.pattern.spacing
        self.comb = fit_comb(mean, x0, guess, self.fwhm) if guess else None
        if self.comb is None:
            return []
        self._update_spacing(self.comb, share, elapsed_s)
        return self._update_fractional_orders(profiles, elapsed_s)

    def _update_spacing(self, comb: StreakComb, share: float, elapsed_s: float) -> None:
        first = not math.isfinite(self.spacing) or abs(comb.spacing / self.spacing - 1.0) > 0.1
        self.spacing = comb.spacing if first else self.spacing + share * (comb.spacing - self.spacing)
        blocks = max(1.0, 2.0 * SMOOTH_S / elapsed_s) if elapsed_s > 0 else 1.0
        self.spacing_sigma = comb.sigma / math.sqrt(blocks)
        if self.reference_s < 1.0:
            self.reference_sum += comb.spacing * elapsed_s
            self.reference_s += elapsed_s
            self.reference = self.reference_sum / self.reference_s

    def _update_fractional_orders(self, profiles: F32, elapsed_s: float) -> list[int]:
        (left, right), *fractional = self._heights(
            profiles, (1.0, *(1.0 / d.denominator for d in self.detectors))
        )
        first = 0.5 * float(left.height.mean() + right.height.mean())
        new_orders = []
        for detector, sides in zip(self.detectors, fractional, strict=True):
            both = 0.5 * (sides[0].height + sides[1].height)
            background_error = 0.5 * float(
                sides[0].background_error.mean() + sides[1].background_error.mean()
            )
            noise = _standard_error(both, profiles)
            if detector.update(float(both.mean()), noise, background_error, elapsed_s, first):
                new_orders.append(detector.denominator)
            self.ratios[detector.denominator] = self._ratio(
                detector, first, detector.standard_error(noise, background_error, elapsed_s)
            )
        return new_orders

    def restart_orders(self) -> None:
        """Discard the earlier levels of the fractional orders, after a change of the pattern or the light or a gap."""
        for detector in self.detectors:
            detector.restart()

    def _ratio(self, detector: FractionalOrderDetector, first: float, error: float) -> Measurement:
        if not math.isfinite(detector.last):
            return undetermined(
                f"the streaks are too wide to separate the 1/{detector.denominator} order from its neighbours",
                "1",
            )
        if not first > 0:
            return undetermined("no first-order streaks to compare with", "1")
        note = "" if detector.present else "not detected (z < 5)"
        return measured(detector.mean / first, error / first, "1", note)

    def _heights(self, profiles: F32, orders: Sequence[float]) -> list[tuple[Heights, Heights]]:
        """Return the heights at -order and +order of the newest comb, for each order."""
        assert self.comb is not None
        signed = [sign * order for order in orders for sign in (-1, 1)]
        found = order_heights(profiles, self.comb.x0, self.comb.spacing, signed, self.fwhm)
        return list(zip(found[::2], found[1::2], strict=True))

    def order_pairs(self, profiles: F32, orders: Sequence[float]) -> list[tuple[F64, F64]]:
        """Return per-frame heights at -order and +order, (N,) each, for each order; NaN without a comb."""
        if self.comb is None:
            missing = np.full(len(profiles), np.nan)
            return [(missing, missing)] * len(orders)
        return [(left.height, right.height) for left, right in self._heights(profiles, orders)]

    def update_slow_block(self, picture: F32, y: float) -> None:
        """Fit the streak widths; measure spottiness in a mean picture (H, W) with the specular spot at row ``y``."""
        x0 = self.comb.x0 if self.comb else self.pattern.x
        reach = 0.4 * self.comb.spacing if self.comb else None
        self.specular_width = fit_width(self.smoothed_profile, x0, self.fwhm, reach)
        self.first_order_width, self.spottiness_value = None, undetermined(NO_STREAKS, "1")
        if self.comb is not None:
            sides = [
                fit_width(self.smoothed_profile, p.x, self.fwhm, reach)
                for o, p in zip(self.comb.orders, self.comb.peaks, strict=True)
                if abs(o) == 1
            ]
            good = [w for w in sides if w]
            self.first_order_width = _mean_width(good) if good else None
            self.row_error = self._row_error(picture, self.comb)
        self._update_spottiness(picture, x0, y)

    def _row_error(self, picture: F32, comb: StreakComb) -> float:
        """Return how much the spacing in px depends on the rows: half the difference of both halves of the band.

        The zone circles are curved, so streaks of different zones do not run parallel.
        """
        first, last = self.pattern.band
        middle = (first + last) // 2
        if min(middle - first, last - middle) < 2:
            return 0.0
        halves = [
            fit_comb(picture[rows].mean(axis=0, dtype=np.float64), comb.x0, comb.spacing, self.fwhm)
            for rows in (slice(first, middle), slice(middle, last))
        ]
        upper, lower = halves
        return 0.5 * abs(upper.spacing - lower.spacing) if upper and lower else 0.0

    def _update_spottiness(self, picture: F32, x0: float, y: float) -> None:
        spacing = self.comb.spacing if self.comb else 6.0 * self.fwhm
        places = [x0 + m * spacing for m in (-1, 0, 1)] if self.comb else [x0]
        columns = [c for x in places if (c := _streak_column(picture, x, self.fwhm, spacing)) is not None]
        if not columns:
            return
        self.aspect = streak_aspect(max(columns, key=lambda c: float(c.max())), y, self.fwhm)
        # The range is limited, because the next Laue zone is not a transmission spot of this one.
        near = slice(max(0, round(y - SPOT_RANGE * spacing)), max(1, round(y + SPOT_RANGE * spacing)))
        judged = [(spottiness(c[near], profile_noise(c)), float(c[near].max(initial=0.0))) for c in columns]
        found = [(float(v), v.sigma or 0.0, height) for v, height in judged if v.determined]
        if found:
            value, sigma, height = (np.array(x) for x in zip(*found, strict=True))
            weight = height / height.sum()
            self.spottiness_value = measured(
                float(weight @ value), math.hypot(float(weight @ sigma), 0.5 * float(value.std())), "1"
            )
        else:
            self.spottiness_value = judged[0][0]

    def values(self, calibration: Calibration) -> dict[str, Measurement]:
        """Return the scalar results of the surface by name, each with its uncertainty or a reason."""
        out = {"spottiness": self.spottiness_value, **self._spacings(calibration)}
        out["specular_fwhm_1"] = _width_value(self.specular_width)
        out["first_order_fwhm_1"] = _width_value(self.first_order_width)
        width = self.first_order_width or self.specular_width
        out["coherence_length"] = (
            coherence_length(width, calibration) if width else undetermined(NO_STREAKS, "nm")
        )
        for kind in FRACTIONS:
            name = "half_order_ratio" if kind == 2 else f"order_1_{kind}_ratio"
            out[name] = self.ratios.get(kind, undetermined(NO_STREAKS, "1"))
        return out

    def _spacing_uncertainty(self) -> float:
        """Return the uncertainty of the spacing in px: noise, tails of neighbouring streaks, and pixel size."""
        tails = 0.3 * SHAPE_ERROR * self.fwhm
        return math.hypot(self.spacing_sigma, tails, 0.03 if self.fwhm < 3.0 else 0.0)

    def _spacings(self, calibration: Calibration) -> dict[str, Measurement]:
        if not math.isfinite(self.spacing) or self.comb is None:
            return {name: undetermined(NO_STREAKS) for name in SPACINGS}
        known = bool(calibration.reference_spacing_px)
        reference = calibration.reference_spacing_px or self.reference
        relative = self._spacing_uncertainty() / self.spacing
        sigma = relative * math.sqrt(2.0)
        change = measured(
            self.spacing / reference - 1.0,
            sigma,
            "1",
            "against the substrate's spacing" if known else SINCE_BEGIN,
        )
        # Spacings on the screen are reciprocal: a lattice that expands has streaks closer together.
        lattice = measured(
            reference / self.spacing - 1.0, sigma, "1", "" if known else f"{SINCE_BEGIN}, not strain"
        )
        g = reciprocal_spacing(self.comb, calibration)
        absolute = undetermined("needs beam energy, screen distance and px per mm (calibration)", "Å")
        if g is not None:
            a = calibration.miller_n * 2.0 * math.pi / (g[0] * self.spacing / self.comb.spacing)
            shape = math.hypot(
                *(SHAPE_ERROR * self.fwhm / self.spacing, g[1] / g[0]),
                *(self.row_error / self.spacing, GEOMETRY_ERROR),
            )
            absolute = measured(
                a, a * math.hypot(relative, shape), "Å", "without the uncertainty of the calibration"
            )
        strain = lattice if known else undetermined("needs a substrate reference spacing", "1")
        return {
            "lattice_spacing": measured(self.spacing, self._spacing_uncertainty(), "px"),
            "relative_spacing_change": change,
            "relative_lattice_change": lattice,
            "referenced_strain": strain,
            "lattice_parameter": absolute,
        }


def _standard_error(heights: F64, profiles: F32) -> float:
    """Return the standard error of the mean of heights (N,), from their scatter or, for N = 1, the profile noise."""
    if len(heights) > 1:
        return float(heights.std()) / math.sqrt(len(heights) - 1)
    return profile_noise(profiles[0])


def _mean_width(widths: list[Width]) -> Width:
    n = len(widths)
    return Width(
        sum(w.total for w in widths) / n,
        math.sqrt(sum(w.sigma**2 for w in widths)) / n,
        sum(w.lorentz for w in widths) / n,
        math.sqrt(sum(w.lorentz_sigma**2 for w in widths)) / n,
        sum(w.gauss for w in widths) / n,
        sum(w.height for w in widths) / n,
    )


def _width_value(width: Width | None) -> Measurement:
    if width is None:
        return undetermined("the streak's profile is not a single peak, or is clipped", "px")
    return measured(width.total, width.sigma, "px")


def _streak_column(picture: F32, x: float, fwhm: float, spacing: float) -> F64 | None:
    """Return the profile along y of the streak at column x, minus the mean of both sides; None at the edge."""
    half, aside = max(0, round(0.5 * fwhm)), round(0.25 * spacing)
    centre = round(x)
    if centre - aside - half < 0 or centre + aside + half >= picture.shape[1]:
        return None

    def strip(at: int, h: int) -> F64:
        mean: F64 = picture[:, at - h : at + h + 1].mean(axis=1, dtype=np.float64)
        return mean

    side = min(half, 1)
    return strip(centre, half) - 0.5 * (strip(centre - aside, side) + strip(centre + aside, side))
