"""Widths of streaks: a pseudo-Voigt fit, split into its Lorentzian (coherence) and Gaussian (instrument) parts.

Split: P. Thompson, D. E. Cox & J. B. Hastings, J. Appl. Cryst. 20, 79 (1987). Total width of a Voigt profile,
f = 0.535 fL + sqrt(0.217 fL² + fG²): J. J. Olivero & R. L. Longbothum, JQSRT 17, 233 (1977).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import leastsq

from atomstream.analysis.calibration import Calibration
from atomstream.results import F64, Measurement, measured, undetermined

MAX_STEPS = 40
"""Largest number of steps of a fit; most need ten."""


@dataclass(frozen=True, slots=True)
class Width:
    """Full widths at half maximum in px: ``total`` with ``sigma``, Lorentzian and Gaussian part; height in counts."""

    total: float
    sigma: float
    lorentz: float
    lorentz_sigma: float
    gauss: float
    height: float


@dataclass(frozen=True, slots=True, eq=False)
class PeakFit:
    """A fitted streak: ``centre`` with ``sigma`` in px, its ``width``, and the ``curve`` (n,) from ``first`` on."""

    centre: float
    sigma: float
    width: Width
    first: int
    curve: F64


def fit_width(profile: F64, centre: float, fwhm: float, reach: float | None = None) -> Width | None:
    """The width of :func:`fit_peak`."""
    fit = fit_peak(profile, centre, fwhm, reach)
    return None if fit is None else fit.width


def fit_peak(profile: F64, centre: float, fwhm: float, reach: float | None = None) -> PeakFit | None:
    """Fit one streak of a profile (W,) near ``centre`` (px); None if the fit is implausible.

    ``fwhm`` (px) is a guess; ``reach`` (px) limits the fitted half range, to exclude a neighbouring streak.
    """
    half = max(4, round(min(3.0 * fwhm, reach or 3.0 * fwhm)))
    first, last = max(0, round(centre) - half), min(len(profile), round(centre) + half + 1)
    x, y = np.arange(first, last) - centre, profile[first:last]
    if len(y) < 9 or float(np.ptp(y)) <= 0:
        return None
    scale = float(np.ptp(y))
    start = np.array([0.0, math.log(fwhm), 0.0, 1.0, float(y.min()) / scale, 0.0])

    def residuals(p: F64) -> F64:
        # The last row is a weak prior on the Lorentzian share, which a clipped or square peak does not determine.
        return np.append(_model(p, x) - y / scale, 0.003 * p[2])

    def slopes(p: F64) -> F64:
        return np.append(_slopes(p, x), np.array([[0.0], [0.0], [0.003], [0.0], [0.0], [0.0]]), axis=1)

    found, covariance, info, _, status = leastsq(
        residuals, start, Dfun=slopes, col_deriv=True, full_output=True, maxfev=MAX_STEPS
    )
    if status not in (1, 2, 3, 4) or np.ndim(covariance) != 2:
        return None
    total, share = math.exp(min(found[1], 20.0)), _share(found[2])
    variance = float(info["fvec"] @ info["fvec"]) / max(1, len(y) - 6)
    sigma = total * math.sqrt(max(0.0, covariance[1, 1] * variance))
    share_sigma = share * (1 - share) * math.sqrt(max(0.0, covariance[2, 2] * variance))
    if not (0.3 < total < 2.5 * half and found[3] > 0 and sigma < total):
        return None
    lorentz, gauss = split_widths(total, share)
    slope = (split_widths(total, min(1.0, share + 0.01))[0] - lorentz) / 0.01
    lorentz_sigma = math.hypot(lorentz / total * sigma, slope * share_sigma)
    width = Width(total, sigma, lorentz, lorentz_sigma, gauss, found[3] * scale)
    centre_sigma = math.sqrt(max(0.0, covariance[0, 0] * variance))
    return PeakFit(centre + float(found[0]), centre_sigma, width, first, scale * _model(found, x))


def split_widths(total: float, share: float) -> tuple[float, float]:
    """Return Lorentzian and Gaussian width of a pseudo-Voigt of width ``total`` with Lorentzian ``share`` 0-1."""
    lorentz = total * (0.72928 * share + 0.19289 * share**2 + 0.07783 * share**3)
    inner = 1.0 - 0.74417 * share - 0.24781 * share**2 - 0.00810 * share**3
    return lorentz, total * math.sqrt(max(0.0, inner))


def voigt_width(lorentz: float, gauss: float) -> float:
    """Return the total width of a Voigt profile from its parts (full widths at half maximum, any unit)."""
    return 0.5346 * lorentz + math.sqrt(0.2166 * lorentz**2 + gauss**2)


def coherence_length(width: Width, calibration: Calibration) -> Measurement:
    """Return the coherence length in nm from the Lorentzian part.

    It is a lower bound if the Lorentzian part is below a third of the Gaussian one or not significant.
    """
    length = calibration.coherence_nm(width.lorentz)
    if length is None:
        return undetermined("needs beam energy, screen distance and px per mm (calibration)", "nm")
    if width.lorentz < width.gauss / 3.0 or width.lorentz < 2.0 * width.lorentz_sigma:
        bound = calibration.coherence_nm(max(width.lorentz + 2 * width.lorentz_sigma, width.gauss / 3.0))
        return measured(bound or math.nan, None, "nm", "a lower bound: the instrument's width dominates")
    return measured(length, length * width.lorentz_sigma / width.lorentz, "nm")


def _share(p: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(30.0, max(-30.0, p))))


def _model(p: F64, x: F64) -> F64:
    reduced = 2.0 * (x - p[0]) / math.exp(min(p[1], 20.0))
    share = _share(p[2])
    peak = share / (1.0 + reduced**2) + (1.0 - share) * np.exp(-math.log(2.0) * np.minimum(reduced**2, 700.0))
    result: F64 = p[3] * peak + p[4] + p[5] * x / len(x)
    return result


def _slopes(p: F64, x: F64) -> F64:
    """Return the derivatives (6, N) of :func:`_model` by its parameters."""
    width, share = math.exp(min(p[1], 20.0)), _share(p[2])
    reduced = 2.0 * (x - p[0]) / width
    square = reduced**2
    lorentz = 1.0 / (1.0 + square)
    gauss = np.exp(-math.log(2.0) * np.minimum(square, 700.0))
    bend = (-2.0 * p[3]) * reduced * (share * lorentz**2 + (1.0 - share) * math.log(2.0) * gauss)
    slopes = np.empty((6, len(x)))
    slopes[0] = bend * (-2.0 / width)
    slopes[1] = bend * -reduced
    slopes[2] = (p[3] * share * (1.0 - share)) * (lorentz - gauss)
    slopes[3] = share * lorentz + (1.0 - share) * gauss
    slopes[4] = 1.0
    slopes[5] = x / len(x)
    return slopes
