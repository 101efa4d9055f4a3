"""Settings of the simulator: one frozen record for growth, diffraction and camera."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

from atomstream.checks import checked_items, checked_number
from atomstream.errors import ConfigError

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GrowthSpec:
    """A simulated growth and its RHEED camera; every field has a default.

    Lengths on the screen are given for 480x640 frames and scale with the frame size (see :attr:`scale`), so that
    24x32 and 1024x1024 frames show the same pattern. Times are seconds from the first frame.

    Growth
        ``rate_ml_s`` layers per second; ``tau_ml`` layers until the oscillation is damped by 1/e;
        ``phase_rad`` the diffraction phase between terraces one step apart (pi: the deepest oscillation);
        ``side_oscillation`` how much of the specular rod's oscillation the others show; ``pauses`` are
        (from, to) intervals without growth, in which the intensity recovers with ``recovery_s``;
        ``pulse_hz`` > 0 simulates the laser pulses of PLD, each of which dims the spot by ``pulse_dip`` for
        about ``pulse_relax_s``; ``strain`` is reached within about ``strain_layers`` layers: the streak spacing
        becomes D0 / (1 + strain).
    Diffraction
        ``peaks`` are the heights in ADU (gain 1) of the specular rod, the first and the second order.
        ``fractional_order`` 2 adds half-order rods (3: third order, ...) of ``fractional_strength`` times the
        height of the first order, by a logistic function of time centred at ``fractional_at_s``;
        ``roughening_at_s`` turns streaks into transmission spots, up to the weight ``spottiness``;
        ``azimuth_modulation`` are the amplitudes a_k of exp(sum a_k (cos k phi - 1)), a factor of all rods
        while the substrate turns.
    Camera
        ``gain`` multiplies the signal; ``offset_adu`` and ``read_noise_adu`` are the dark level;
        ``hum`` is the relative amplitude of the mains ripple; ``hot_pixels`` is
        their number on 480x640; ``exposure_steps`` are (from second, factor);
        ``shutter_period_s`` > 0 closes the beam shutter in every second half period; ``drift_px_s`` moves the
        whole picture (x, y).

    Raises :class:`ConfigError` for values out of range.
    """

    height: int = 480
    width: int = 640
    fps: float = 120.0
    seed: int = 0

    energy_kev: float = 20.0
    screen_distance_mm: float = 300.0
    px_per_mm: float = 7.0
    lattice_a: float = 3.905
    lattice_c: float = 3.905
    incidence_deg: float = 2.0

    rate_ml_s: float = 0.4
    tau_ml: float = 12.0
    phase_rad: float = 2.0 * math.pi / 3.0
    side_oscillation: float = 0.5
    growth_start_s: float = 0.0
    growth_stop_s: float | None = None
    pauses: tuple[Interval, ...] = ()
    recovery_s: float = 4.0
    pulse_hz: float = 0.0
    pulse_dip: float = 0.1
    pulse_relax_s: float = 0.15
    strain: float = 0.0
    strain_layers: float = 5.0

    peaks: tuple[float, float, float] = (150.0, 90.0, 30.0)
    background: float = 18.0
    diffuse: float = 0.15
    fwhm_x_px: float = 6.0
    lorentz_fraction: float = 0.5
    fwhm_y_px: float = 52.0
    spot_fwhm_px: float = 9.0
    fractional_order: int = 2
    fractional_strength: float = 0.4
    fractional_at_s: float | None = None
    fractional_rise_s: float = 1.0
    roughening_at_s: float | None = None
    roughening_rise_s: float = 2.0
    spottiness: float = 0.9

    rpm: float = 0.0
    angle_deg: float = 0.0
    azimuth_modulation: tuple[float, ...] = (0.05, 0.10, 0.0, 0.25)

    gain: float = 1.0
    offset_adu: float = 4.0
    read_noise_adu: float = 1.2
    hot_pixels: int = 12
    hum: float = 0.01
    hum_hz: float = 60.0
    hum_phase_rad: float = 0.0
    exposure_steps: tuple[tuple[float, float], ...] = ()
    shutter_period_s: float = 0.0
    drift_px_s: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        _require_positive(self, "height", "width", "fps", "energy_kev", "screen_distance_mm", "px_per_mm")
        _require_positive(self, "lattice_a", "lattice_c", "tau_ml", "recovery_s", "pulse_relax_s")
        _require_positive(self, "strain_layers", "fwhm_x_px", "fwhm_y_px", "spot_fwhm_px")
        _require_positive(self, "fractional_rise_s", "roughening_rise_s")
        _require_not_negative(self, "rate_ml_s", "background", "diffuse", "gain", "read_noise_adu")
        _require_not_negative(self, "hot_pixels", "pulse_hz", "shutter_period_s", "hum", "seed")
        self._check_ranges()

    def _check_ranges(self) -> None:
        if not 0.0 < checked_number("incidence_deg", self.incidence_deg) < 10.0:
            raise ConfigError(f"incidence_deg is {self.incidence_deg}; allowed is 0 to 10 degrees, exclusive")
        if checked_number("fractional_order", self.fractional_order) < 2:
            raise ConfigError(
                f"fractional_order is {self.fractional_order}; 2 means half order, 3 third order"
            )
        if not -0.5 < checked_number("strain", self.strain) < 0.5:
            raise ConfigError(f"strain is {self.strain}; allowed is -0.5 to 0.5, exclusive")
        if not isinstance(self.pauses, tuple | list):
            raise TypeError(f"pauses must be pairs (from, to), not {self.pauses!r}.")
        for pause in self.pauses:
            checked_items("a pause", pause, 2, "a pair (from, to)")
        if any(end <= begin for begin, end in self.pauses):
            raise ConfigError(f"pauses are (from, to) with from < to, in seconds; got {self.pauses}")
        if list(self.pauses) != sorted(self.pauses) or any(
            later[0] < earlier[1] for earlier, later in zip(self.pauses, self.pauses[1:], strict=False)
        ):
            raise ConfigError(f"pauses must follow one another without overlap; got {self.pauses}")

    @property
    def scale(self) -> float:
        """Scale of lengths relative to a 480x640 frame, for which the defaults are given."""
        return min(self.width / 640.0, self.height / 480.0)

    @property
    def camera_length_px(self) -> float:
        """Distance from the sample to the screen, in px of this frame."""
        return self.screen_distance_mm * self.px_per_mm * self.scale

    @property
    def center_x_px(self) -> float:
        """Column of the specular rod at t = 0 (pixel centres are whole numbers)."""
        return 0.5 * self.width

    @property
    def horizon_y_px(self) -> float:
        """Row of the shadow edge at t = 0; the rods lie below it, at larger y."""
        return 0.2 * self.height


def no_signal_specs(base: GrowthSpec) -> dict[str, GrowthSpec]:
    """Return variants of ``base`` without a growth rate, by name; an analysis must call each undetermined."""
    still = replace(base, rate_ml_s=0.0, fractional_at_s=None, roughening_at_s=None, strain=0.0)
    dark = replace(still, peaks=(0.0, 0.0, 0.0), background=0.0)
    return {
        "no beam": dark,
        "no growth": still,
        "constant 255": replace(dark, offset_adu=1000.0),
        "constant 0": replace(dark, offset_adu=-1000.0, hot_pixels=0),
        "noise only": replace(still, peaks=(0.0, 0.0, 0.0)),
        "shutter": replace(still, shutter_period_s=2.0),
        "exposure steps": replace(still, exposure_steps=((3.0, 0.6), (7.0, 1.3), (11.0, 0.9))),
    }


def _require_positive(spec: GrowthSpec, *names: str) -> None:
    for name in names:
        value = checked_number(name, getattr(spec, name))
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {getattr(spec, name)}; it must be finite and above 0")


def _require_not_negative(spec: GrowthSpec, *names: str) -> None:
    for name in names:
        value = checked_number(name, getattr(spec, name))
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {getattr(spec, name)}; it must be finite and not negative")
