"""True values of a simulated growth at any time: layers, intensity, strain, azimuth, and light.

Layers grow one after the other, so the coverage of the top layer is theta = n mod 1 and the specular
intensity 1 - 2 theta (1 - theta)(1 - cos phase): P. I. Cohen et al., Surf. Sci. 216, 222 (1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .sim_geometry import streak_spacing_px
from .sim_spec import GrowthSpec, Interval

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """True values of frames, one entry per frame.

    ``t_s`` seconds from the first frame; ``layers`` grown so far; ``theta`` coverage of the top
    layer; ``rate_ml_s`` 0 if nothing grows; ``intensity`` factor of the specular rod (1: a smooth
    surface), without the camera; ``spacing_px`` of the streaks along a main azimuth; ``strain``;
    ``angle_deg`` in [0, 360); ``rpm``; ``azimuth_factor`` of all rods; ``fractional`` and ``spottiness``
    weights 0..1; ``light`` the factor of hum, exposure and shutter; ``specular_x_px``,
    ``specular_y_px`` with the drift.
    """

    t_s: Floats
    layers: Floats
    theta: Floats
    rate_ml_s: Floats
    intensity: Floats
    spacing_px: Floats
    strain: Floats
    angle_deg: Floats
    rpm: Floats
    azimuth_factor: Floats
    fractional: Floats
    spottiness: Floats
    light: Floats
    specular_x_px: Floats
    specular_y_px: Floats


def truth_at(spec: GrowthSpec, t: Floats) -> Truth:
    """Return the true values at the times ``t`` (s from the first frame, in any order)."""
    layers, theta, rate, intensity = _growth(spec, t)
    strain = spec.strain * -np.expm1(-layers / spec.strain_layers)
    angle = np.mod(spec.angle_deg + 6.0 * spec.rpm * t, 360.0)
    x0, y0 = spec.center_x_px, spec.horizon_y_px
    return Truth(
        t_s=t,
        layers=layers,
        theta=theta,
        rate_ml_s=rate,
        intensity=intensity * _pulse_comb(spec, t, rate > 0),
        spacing_px=streak_spacing_px(spec, strain),
        strain=strain,
        angle_deg=angle,
        rpm=np.full_like(t, spec.rpm),
        azimuth_factor=_azimuth_factor(spec, angle),
        fractional=_logistic(t, spec.fractional_at_s, spec.fractional_rise_s),
        spottiness=spec.spottiness * _logistic(t, spec.roughening_at_s, spec.roughening_rise_s),
        light=_light(spec, t),
        specular_x_px=x0 + spec.drift_px_s[0] * t,
        specular_y_px=y0
        + spec.camera_length_px * math.tan(math.radians(spec.incidence_deg))
        + spec.drift_px_s[1] * t,
    )


def growth_intervals(spec: GrowthSpec) -> list[Interval]:
    """Return the intervals of growth in s: from ``growth_start_s`` to ``growth_stop_s``, without the pauses."""
    begin, end = spec.growth_start_s, math.inf if spec.growth_stop_s is None else spec.growth_stop_s
    intervals: list[Interval] = []
    for pause_begin, pause_end in spec.pauses:
        intervals.append((begin, min(pause_begin, end)))
        begin = max(begin, pause_end)
    intervals.append((begin, end))
    return [(a, b) for a, b in intervals if b > a]


def _growth(spec: GrowthSpec, t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    layers, theta, rate = np.zeros_like(t), np.zeros_like(t), np.zeros_like(t)
    intensity = np.ones_like(t)
    grown, deficit, stopped_at = 0.0, 0.0, 0.0
    for begin, end in growth_intervals(spec):
        # The recovery continues into the next growth, so that the intensity has no jump.
        deficit *= math.exp(-(begin - stopped_at) / spec.recovery_s)
        on, after = (t >= begin) & (t < end), t >= end
        n = spec.rate_ml_s * (t[on] - begin)
        layers[on], theta[on], rate[on] = grown + n, n % 1.0, spec.rate_ml_s
        intensity[on] = _recovering(spec, n, deficit, t[on] - begin)
        if math.isinf(end):
            break
        last = np.array([spec.rate_ml_s * (end - begin)])
        deficit = float(_recovering(spec, last, deficit, np.array([end - begin]))[0]) - 1.0
        grown, stopped_at = grown + float(last[0]), end
        layers[after], theta[after] = grown, last[0] % 1.0
        intensity[after] = 1.0 + deficit * np.exp(-(t[after] - end) / spec.recovery_s)
    return layers, theta, rate, intensity


def _recovering(spec: GrowthSpec, n: Floats, deficit: float, since: Floats) -> Floats:
    healed: Floats = _oscillation(spec, n) + deficit * np.exp(-since / spec.recovery_s)
    return healed


def _oscillation(spec: GrowthSpec, n: Floats) -> Floats:
    """Return the intensity after ``n`` layers on a smooth surface, damped to its mean by e^(-n/tau)."""
    depth = 1.0 - math.cos(spec.phase_rad)
    theta = n % 1.0
    mean = 1.0 - depth / 3.0
    swing: Floats = 1.0 - 2.0 * theta * (1.0 - theta) * depth - mean
    return mean + swing * np.exp(-n / spec.tau_ml)


def _pulse_comb(spec: GrowthSpec, t: Floats, growing: npt.NDArray[np.bool_]) -> Floats:
    if not spec.pulse_hz:
        return np.ones_like(t)
    since_pulse = np.mod(t - spec.growth_start_s, 1.0 / spec.pulse_hz)
    return np.where(growing, 1.0 - spec.pulse_dip * np.exp(-since_pulse / spec.pulse_relax_s), 1.0)


def _azimuth_factor(spec: GrowthSpec, angle_deg: Floats) -> Floats:
    phi = np.radians(angle_deg)
    terms = [a * (np.cos(k * phi) - 1.0) for k, a in enumerate(spec.azimuth_modulation, start=1)]
    return np.exp(np.sum(terms, axis=0)) if terms else np.ones_like(phi)


def _logistic(t: Floats, centre_s: float | None, rise_s: float) -> Floats:
    if centre_s is None:
        return np.zeros_like(t)
    # Clipped, because exp overflows an hour before the transition.
    return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (t - centre_s) / rise_s, -60.0, 60.0)))


def _light(spec: GrowthSpec, t: Floats) -> Floats:
    """Return the factor of the light at the times ``t``: mains hum, exposure, and beam shutter."""
    exposure = np.ones_like(t)
    for since, factor in sorted(spec.exposure_steps):
        exposure[t >= since] = factor
    if spec.shutter_period_s:
        exposure[np.mod(t, spec.shutter_period_s) >= 0.5 * spec.shutter_period_s] = 0.0
    hum = 1.0 + spec.hum * np.sin(2.0 * math.pi * spec.hum_hz * t + spec.hum_phase_rad)
    return np.maximum(hum * exposure, 0.0)
