"""Calibration: converts pixels to reciprocal lengths (beam energy, camera length) and layers to nm. All optional."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atomstream.arguments import check_calibration
from atomstream.protocol import CALIBRATION_LIMITS

TWO_PI = 2.0 * math.pi


def electron_wavelength(energy_kev: float) -> float:
    """Return the relativistic de Broglie wavelength in Å of electrons of ``energy_kev`` (keV, > 0).

    λ = 12.264/sqrt(V (1 + 0.9785e-6 V)), V in volts; e.g. Ichimiya & Cohen, Reflection High-Energy Electron
    Diffraction (2004), eq. 2.2.
    """
    volts = 1000.0 * energy_kev
    return 12.264 / math.sqrt(volts * (1.0 + 0.9785e-6 * volts))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Geometry and growth recipe of a stream. Results that need a missing value are undetermined or in pixels.

    ``beam_energy`` in keV, ``screen_sample_distance`` in mm, ``px_per_mm`` in pixels a mm on the screen,
    ``incidence_deg`` the glancing angle in degrees (0-15), ``layer_thickness_nm`` of one ``layer_unit``
    (monolayer, unit cell, bilayer), ``miller_n`` the n of a = 2πn/G, ``reference_spacing_px`` the streak spacing
    of the substrate, which turns the relative spacing change into strain. Raises ConfigError for values out of
    range.
    """

    beam_energy: float | None = None
    screen_sample_distance: float | None = None
    px_per_mm: float | None = None
    incidence_deg: float = 0.0
    layer_thickness_nm: float | None = None
    layer_unit: str = "monolayer"
    miller_n: float = 1.0
    reference_spacing_px: float | None = None

    def __post_init__(self) -> None:
        check_calibration({name: getattr(self, name) for name in CALIBRATION_LIMITS})

    @property
    def camera_length_px(self) -> float | None:
        """Distance from sample to screen in pixels; None if it is unknown."""
        if self.screen_sample_distance is None or self.px_per_mm is None:
            return None
        return self.screen_sample_distance * self.px_per_mm

    @property
    def k0(self) -> float | None:
        """Wave number of the beam, 2π/λ, in 1/Å; None without a beam energy."""
        return None if self.beam_energy is None else TWO_PI / electron_wavelength(self.beam_energy)

    @property
    def absolute(self) -> bool:
        """True if pixels can be converted to 1/Å."""
        return self.k0 is not None and self.camera_length_px is not None

    def inverse_angstrom(self, spacing_px: float) -> float | None:
        """Return the parallel momentum transfer in 1/Å of a streak ``spacing_px`` from the specular column, or None.

        The rods lie at X = c ky/kx (X from the specular column, c the camera length), so
        G = k0 cos(α) sin(atan(X/c)), which is exact enough at a few degrees of incidence.
        """
        k0, c = self.k0, self.camera_length_px
        if k0 is None or c is None:
            return None
        return k0 * math.cos(math.radians(self.incidence_deg)) * spacing_px / math.hypot(c, spacing_px)

    def lattice_angstrom(self, spacing_px: float) -> float | None:
        """Return the lattice parameter a = 2πn/G in Å for a streak spacing in pixels, or None without a calibration."""
        g = self.inverse_angstrom(spacing_px)
        return None if not g else TWO_PI * self.miller_n / g

    def coherence_nm(self, lorentz_fwhm_px: float) -> float | None:
        """Return the coherence length 2πc/(k0 fL) in nm for a Lorentzian width fL in pixels, or None."""
        k0, c = self.k0, self.camera_length_px
        if k0 is None or c is None or lorentz_fwhm_px <= 0:
            return None
        return TWO_PI * c / (k0 * lorentz_fwhm_px) / 10.0
