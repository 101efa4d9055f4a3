"""Geometry of a RHEED pattern: where the rods of the reciprocal lattice meet the screen. Pure functions.

Ewald's construction at grazing incidence: kx = k0 cos(alpha) + Gx along the beam, ky = Gy across it and kz
= sqrt(k0^2 - kx^2 - ky^2) off the surface; on the screen X = xc + c ky/kx, Y = y0 + c kz/kx. A rod with
imaginary kz is not visible. Source: A. Ichimiya, P. I. Cohen, Reflection High-Energy Electron Diffraction
(2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .sim_spec import GrowthSpec

Floats: TypeAlias = npt.NDArray[np.float64]

_ORDERS = 8
"""Highest order of rods: higher ones do not reach a 4:3 screen."""

_HORIZON_FADE = 0.5
"""Rods fade below this kz (1/A), as with refraction, and do not vanish between two frames."""


def wavelength_a(energy_kev: float) -> float:
    """Return the relativistic electron wavelength in Angstrom: 12.264 / sqrt(V (1 + 0.9785e-6 V))."""
    volts = energy_kev * 1e3
    return 12.264 / math.sqrt(volts * (1.0 + 0.9785e-6 * volts))


def wave_number(spec: GrowthSpec) -> float:
    """Return the wave number k0 = 2 pi / lambda in 1/A."""
    return 2.0 * math.pi / wavelength_a(spec.energy_kev)


def streak_spacing_px(spec: GrowthSpec, strain: Floats) -> Floats:
    """Return the distance of neighbouring streaks with the beam along a main azimuth, in pixels of the frame."""
    g = 2.0 * math.pi / (spec.lattice_a * (1.0 + strain))
    spacing: Floats = (
        spec.camera_length_px * g / (wave_number(spec) * math.cos(math.radians(spec.incidence_deg)))
    )
    return spacing


def spot_spacing_px(spec: GrowthSpec) -> float:
    """Return the distance in px of transmission spots along a streak of a 3D surface: 2 pi c / (k0 c_perp)."""
    return 2.0 * math.pi * spec.camera_length_px / (wave_number(spec) * spec.lattice_c)


@dataclass(frozen=True, slots=True, eq=False)
class Rods:
    """Rods in units of the surface's reciprocal lattice, with their height in ADU at gain 1.

    ``h``, ``k``, ``height`` have one entry per rod; ``kind`` is 0 for the specular rod, 1 for integer orders
    and 2 for fractional ones.
    """

    h: Floats
    k: Floats
    height: Floats
    kind: npt.NDArray[np.int64]


def rods_of(spec: GrowthSpec) -> Rods:
    """Return all rods that can meet the screen at some azimuth; fractional ones lie along ``k``."""
    whole = np.arange(-_ORDERS, _ORDERS + 1)
    numerators = np.arange(-_ORDERS * spec.fractional_order, _ORDERS * spec.fractional_order + 1)
    if spec.fractional_at_s is None:
        numerators = whole * spec.fractional_order
    h, n = (grid.ravel() for grid in np.meshgrid(whole, numerators, indexing="ij"))
    k = n / spec.fractional_order
    order = np.hypot(h, k)
    kind = np.where(order == 0, 0, np.where(n % spec.fractional_order == 0, 1, 2))
    specular, first, second = spec.peaks
    falling = np.exp(-np.maximum(order - 2.0, 0.0) / 2.0)
    integer = np.select(
        [order == 0, order == 1, order < 2], [specular, first, (first * second) ** 0.5], second * falling
    )
    fractional = spec.fractional_strength * first * np.exp(-np.maximum(order - 1.0, 0.0))
    return Rods(h.astype(float), k, np.where(kind == 2, fractional, integer), kind)


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Where rods meet the screen: ``x``, ``y`` in pixels, ``fade`` 0..1, ``index`` into the :class:`Rods`."""

    x: Floats
    y: Floats
    fade: Floats
    index: npt.NDArray[np.int64]


def project(spec: GrowthSpec, rods: Rods, angle_deg: float, strain: float) -> Hits:
    """Project ``rods``, rotated by ``angle_deg`` about the surface normal, on the screen, without drift.

    Only rods on the frame, or close enough for their width to reach it, are returned.
    """
    k0, alpha, phi = wave_number(spec), math.radians(spec.incidence_deg), math.radians(angle_deg)
    g = 2.0 * math.pi / (spec.lattice_a * (1.0 + strain))
    kx = k0 * math.cos(alpha) + g * (rods.h * math.cos(phi) - rods.k * math.sin(phi))
    ky = g * (rods.h * math.sin(phi) + rods.k * math.cos(phi))
    kz_squared = k0**2 - kx**2 - ky**2
    kz = np.sqrt(np.maximum(kz_squared, 0.0))
    x = spec.center_x_px + spec.camera_length_px * ky / kx
    y = spec.horizon_y_px + spec.camera_length_px * kz / kx
    margin = 60.0 * spec.scale
    seen = (
        (kz_squared > 0) & (np.abs(x - spec.width / 2) < spec.width / 2 + margin) & (y < spec.height + margin)
    )
    seen &= rods.height > 0
    index = np.flatnonzero(seen)
    return Hits(x[index], y[index], np.minimum(1.0, kz[index] / _HORIZON_FADE), index)
