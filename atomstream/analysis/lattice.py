"""Streak spacing by a linear fit to the sub-pixel positions of the streaks: x_m = x0 + m D (a comb)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from atomstream.analysis.calibration import Calibration
from atomstream.results import F64, Int

MIN_SNR = 6.0
"""Least height of a streak, in noise widths of the profile."""

MAX_MISS, MAX_MISS_PX = 0.12, 0.3
"""Largest miss of a streak that agrees with a comb, in widths of the streak and in px; or three sigmas of its position.
Real streaks are not symmetric, and rods of other Laue zones lie beside the comb."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A streak in a column profile: position ``x`` and its ``sigma`` in px, ``height`` above the local background."""

    x: float
    sigma: float
    height: float


@dataclass(frozen=True, slots=True)
class StreakComb:
    """A fitted comb: ``x0`` and ``spacing`` in px, ``sigma`` of the spacing, the ``orders`` m used and their peaks."""

    x0: float
    spacing: float
    sigma: float
    orders: tuple[int, ...]
    peaks: tuple[Peak, ...]


def fit_comb(profile: F64, x0: float, spacing: float, fwhm: float) -> StreakComb | None:
    """Fit the comb of a column profile (W,) near a known centre, spacing and width (px).

    None unless at least three streaks agree: three neighbours with a ±m pair among them, or two ±m pairs. Any two peaks
    have a distance, so a single pair is not evidence of a lattice. The sigma includes the noise of the positions and
    their scatter about the comb.
    """
    noise = profile_noise(profile)
    reach = int(max(x0, len(profile) - 1 - x0) / spacing)
    found: list[tuple[int, Peak]] = []
    for order in range(-min(reach, 8), min(reach, 8) + 1):
        peak = locate_peak(profile, x0 + order * spacing, min(fwhm, 0.5 * spacing), noise)
        if peak and peak.height > MIN_SNR * noise:
            found.append((order, peak))
    while has_lattice({order for order, _ in found}):
        comb = _regress(np.array([o for o, _ in found]), [p for _, p in found])
        misses = [
            abs(p.x - comb.x0 - o * comb.spacing) / max(3.0 * p.sigma, MAX_MISS * fwhm + MAX_MISS_PX)
            for o, p in found
        ]
        worst = int(np.argmax(misses))
        if misses[worst] <= 1.0:
            return comb
        del found[worst]
    return None


def has_lattice(orders: set[int]) -> bool:
    """Return True if streaks of these orders can show a lattice: three neighbours and a ±m pair, or two pairs."""
    pairs = sum(1 for order in orders if order > 0 and -order in orders)
    in_a_row = any({order - 1, order + 1} <= orders for order in orders)
    return pairs >= 2 or (pairs == 1 and in_a_row)


def _regress(orders: Int, peaks: Sequence[Peak]) -> StreakComb:
    x = np.array([p.x for p in peaks])
    weight = 1.0 / np.array([max(p.sigma, 1e-9) for p in peaks]) ** 2
    basis = np.stack([np.ones(len(x)), orders.astype(np.float64)], axis=1)
    normal = np.linalg.inv(basis.T @ (basis * weight[:, None]))
    x0, spacing = normal @ (basis.T @ (weight * x))
    scatter = 1.0
    if len(x) > 2:
        chi2 = float((weight * (x - x0 - spacing * orders) ** 2).sum()) / (len(x) - 2)
        scatter = max(1.0, math.sqrt(chi2))
    sigma = scatter * math.sqrt(float(normal[1, 1]))
    return StreakComb(float(x0), float(spacing), sigma, tuple(int(o) for o in orders), tuple(peaks))


def locate_peak(profile: F64, guess: float, fwhm: float, noise: float) -> Peak | None:
    """Find the centre of a peak: the zero of the profile's correlation with the derivative of a Gaussian.

    ``guess`` (px) must lie within about half a width ``fwhm`` of the peak; ``noise`` is that of one sample. None
    at the edge of the picture or if the search diverges.
    """
    sigma = max(0.8, 0.42 * fwhm)
    reach = math.ceil(3.0 * sigma)
    places = np.arange(2 * reach + 1)
    x = guess
    for _ in range(8):
        first = round(x) - reach
        if first < 0 or round(x) + reach >= len(profile):
            return None
        window = profile[first : first + 2 * reach + 1]
        window = window - ramp(0.5 * (window[0] + window[1]), 0.5 * (window[-2] + window[-1]), places)
        offset = places + (first - x)
        kernel = np.exp((-0.5 / sigma**2) * offset * offset)
        weight = float(kernel @ window)
        if weight <= 0:
            return None
        slope = kernel * offset
        step = 2.0 * float(slope @ window) / weight
        x += min(sigma, max(-sigma, step))
        if abs(x - guess) > max(1.5, 0.6 * fwhm):
            return None
        if abs(step) < 1e-4:
            break
    error = 1e-3 + 2.0 * noise * math.sqrt(float(slope @ slope)) / weight
    return Peak(x, error, weight / float(kernel @ kernel))


def ramp(first: float, last: float, places: Int) -> F64:
    """Return the same values as ``np.linspace`` at the ``places`` 0, 1, 2 ..., bit for bit, without its checks, which
    took half the time of a search.
    """
    values: F64 = places * ((last - first) / (len(places) - 1)) + first
    values[-1] = last
    return values


def profile_noise(profile: F64) -> float:
    """Return the noise of one sample of a profile, from the median of its second differences; streaks hardly matter."""
    if len(profile) < 8:
        return 1e-9
    second = profile[2:] - 2 * profile[1:-1] + profile[:-2]
    return 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6.0) + 1e-9


def reciprocal_spacing(comb: StreakComb, calibration: Calibration) -> tuple[float, float] | None:
    """Return the spacing of the rods in 1/Å and its sigma, from the angle of each streak; None without a calibration.

    Positions on the screen are tangents, momenta are sines of the angle: over six orders the difference is 0.4 %.
    """
    per_px = calibration.inverse_angstrom(1.0)
    if per_px is None:
        return None
    g = [
        (calibration.inverse_angstrom(abs(p.x - comb.x0)) or 0.0) * math.copysign(1.0, p.x - comb.x0)
        for p in comb.peaks
    ]
    rods = [
        Peak(value, max(p.sigma, 1e-3) * per_px, p.height) for value, p in zip(g, comb.peaks, strict=True)
    ]
    fitted = _regress(np.array(comb.orders), _with_common_variance(np.array(comb.orders), rods))
    return fitted.spacing, fitted.sigma


def _with_common_variance(orders: Int, peaks: list[Peak]) -> list[Peak]:
    """Add a common variance to the peaks, so that their scatter about the comb agrees with their sigmas.

    Real streaks are not symmetric: their positions have errors beyond the noise, the brightest as much as the others,
    and these must not outweigh the far orders (R. C. Paule & J. Mandel, J. Res. NBS 87, 377 (1982)).
    """
    extra, degrees = 0.0, len(peaks) - 2
    widened = peaks
    for _ in range(20 if degrees > 0 else 0):
        comb = _regress(orders, widened)
        miss = np.array([p.x for p in peaks]) - comb.x0 - comb.spacing * orders
        variance = np.array([p.sigma**2 for p in widened])
        excess = float((miss**2 / variance).sum()) - degrees
        if excess <= 0.02 * degrees:
            break
        extra += excess / float((miss**2 / variance**2).sum())
        widened = [replace(p, sigma=math.hypot(p.sigma, math.sqrt(extra))) for p in peaks]
    return widened
