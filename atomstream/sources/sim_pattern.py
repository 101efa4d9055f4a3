"""Light on the screen, as a sum of products of a column profile and a row profile.

Streaks, spots, wings and background are separable in x and y, so a frame is the product of an (H, R) and an (R, W)
matrix, where R is the number of rods plus one. This is exact for any angle and drift.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .sim_geometry import Floats, Hits, Rods, project, rods_of, spot_spacing_px
from .sim_growth import Truth
from .sim_spec import GrowthSpec

Floats32: TypeAlias = npt.NDArray[np.float32]

_WING_WIDTH = 5.0
"""Width of the diffuse wings, relative to the width of their streak."""

_SIGMA_PER_FWHM = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))


def gaussian(distance: Floats, fwhm: float) -> Floats:
    """Return a Gaussian of height 1 at ``distance`` from its centre (unit of ``fwhm``)."""
    return np.exp(-0.5 * (distance / (fwhm * _SIGMA_PER_FWHM)) ** 2)


def pseudo_voigt(distance: Floats, fwhm: float, lorentz_fraction: float) -> Floats:
    """Return a pseudo-Voigt of height 1 with equal ``fwhm`` of Gaussian and Lorentzian part."""
    lorentzian = 1.0 / (1.0 + (2.0 * distance / fwhm) ** 2)
    return lorentz_fraction * lorentzian + (1.0 - lorentz_fraction) * gaussian(distance, fwhm)


class Pattern:
    """Computes the light of a frame from its true values; profiles are cached while the geometry is constant."""

    def __init__(self, spec: GrowthSpec) -> None:
        self._spec = spec
        self._rods: Rods = rods_of(spec)
        self._rows = np.arange(spec.height, dtype=float)
        self._columns = np.arange(spec.width, dtype=float)
        # The intensity of a streak narrower than a pixel would depend on its position between pixels.
        self._fwhm_x = max(spec.fwhm_x_px * spec.scale, 1.0)
        self._fwhm_y = max(spec.fwhm_y_px * spec.scale, 1.0)
        self._fwhm_spot = max(spec.spot_fwhm_px * spec.scale, 1.0)
        self._depth = 1.0 - math.cos(spec.phase_rad)
        self._placed: tuple[float, ...] | None = None

    def light(self, truth: Truth, i: int, out: Floats32) -> None:
        """Write the light of ``truth``'s entry ``i``, in ADU after gain, to ``out`` (H, W)."""
        dx = truth.specular_x_px[i] - self._spec.center_x_px
        dy = self._spec.drift_px_s[1] * truth.t_s[i]
        self._place(truth.angle_deg[i], truth.strain[i], dx, dy)
        columns = np.concatenate([self._along_x(truth, i), np.ones((1, self._columns.size))])
        rows = np.concatenate([self._along_y(truth.spottiness[i]), self._spec.background * self._lit[None]])
        rows *= self._spec.gain * truth.light[i]
        np.matmul(rows.T.astype(np.float32), columns.astype(np.float32), out=out)

    def _place(self, angle_deg: float, strain: float, dx: float, dy: float) -> None:
        """Compute the profiles of all rods on the screen, if the geometry has changed."""
        if self._placed == (angle_deg, strain, dx, dy):
            return
        spec = self._spec
        hits: Hits = project(spec, self._rods, angle_deg, strain)
        self._kind, self._height = self._rods.kind[hits.index], self._rods.height[hits.index] * hits.fade
        x = self._columns - (hits.x + dx)[:, None]
        y = self._rows - (hits.y + dy)[:, None]
        self._streak_x = pseudo_voigt(x, self._fwhm_x, spec.lorentz_fraction)
        self._wing_x = gaussian(x, _WING_WIDTH * self._fwhm_x)
        self._lit = np.clip(self._rows - (spec.horizon_y_px + dy) + 0.5, 0.0, 1.0)
        self._streak_y = gaussian(y, self._fwhm_y) * self._lit
        pitch = spot_spacing_px(spec)
        nearest = y - pitch * np.round(y / pitch)
        # Transmission spots have a wider envelope than the streak they replace.
        self._spots_y = gaussian(nearest, self._fwhm_spot) * gaussian(y, 3.0 * self._fwhm_y) * self._lit
        self._placed = (angle_deg, strain, dx, dy)

    def _along_x(self, truth: Truth, i: int) -> Floats:
        intensity, factor = truth.intensity[i], truth.azimuth_factor[i]
        others = 1.0 + self._spec.side_oscillation * (intensity - 1.0)
        weight = np.select(
            [self._kind == 0, self._kind == 1], [intensity, others], others * truth.fractional[i]
        )
        wing = np.where(self._kind == 2, 0.0, self._diffuse(intensity))
        scaled = (factor * self._height)[:, None]
        profile: Floats = scaled * (weight[:, None] * self._streak_x + wing[:, None] * self._wing_x)
        return profile

    def _diffuse(self, intensity: float) -> float:
        """Return the weight of the diffuse wings, ~ 4 theta (1 - theta), damped and recovering like the intensity."""
        return self._spec.diffuse * 2.0 * (1.0 - intensity) / self._depth if self._depth > 1e-9 else 0.0

    def _along_y(self, spottiness: float) -> Floats:
        if spottiness < 1e-6:
            return self._streak_y.copy()
        profile: Floats = (1.0 - spottiness) * self._streak_y + spottiness * self._spots_y
        return profile
