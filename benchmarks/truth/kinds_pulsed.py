"""Kinds of films of pulsed laser deposition: each pulse lets the light fall suddenly, then it relaxes."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.truth.drawing import (
    Random,
    between,
    camera,
    chosen,
    film,
    log_between,
    scene,
    stamps,
    transport,
)
from benchmarks.truth.growth import F64, Growth, intensity, steady
from benchmarks.truth.simulator import Film


def pulse_train(t: F64, hz: float, lag_s: float, start: float = 0.0) -> F64:
    """Return the sum (N,) of exponentials that begin with 1 at each pulse and decay with ``lag_s`` (s)."""
    number = np.floor((t - start) * hz + 1e-9)
    since = t - start - number / hz
    keep = math.exp(-1 / (hz * lag_s))
    return np.where(t < start, 0.0, np.exp(-since / lag_s) * (1 - keep ** (number + 1)) / (1 - keep))


def _pulsed(
    r: Random, hz: float, shots: float, layers: float, fps: float, *, bits: int = 8, late: float = 0.0
) -> Film:
    """Return a film with ``shots`` pulses for each layer at ``hz`` pulses per second, after ``late`` s."""
    rate = hz / shots
    g, t = steady(rate, late), stamps(fps, late + layers / rate)
    deposited = np.where(t < late, 0.0, (np.floor((t - late) * hz + 1e-9) + 1) / shots)
    light = 0.45 + 0.55 * intensity(deposited, transport(r), 0.0, log_between(r, 8, 40))
    lag = between(r, 0.1, 0.7) / hz
    light = light - chosen(r, 1, 1, 1, -1) * log_between(r, 0.02, 0.25) * 0.5 * pulse_train(t, hz, lag, late)
    seen = camera(r, bits=bits, electrons=log_between(r, 4000, 20000), read_noise=0.003)
    return film(r, scene(r, light, camera=seen), t, g, fps, pulse_hz=hz, look_s=0.5 if rate > 0.05 else 1.0)


def laser_many_shots(r: Random) -> Film:
    """20 to 60 pulses of 1 to 10 Hz for each layer."""
    hz = chosen(r, 1.0, 2.0, 3.0, 5.0, 10.0)
    return _pulsed(r, hz, between(r, 20, 60), 3.5 if hz > 1.5 else 2.2, chosen(r, 20.0, 30.0))


def laser_few_shots(r: Random) -> Film:
    """6 to 15 pulses of 1 to 5 Hz for each layer."""
    return _pulsed(r, chosen(r, 1.0, 2.0, 3.0, 5.0), between(r, 6, 15), 6.0, 30.0)


def laser_12_bit(r: Random) -> Film:
    """12-bit camera, 1 or 2 Hz, 25 to 60 pulses for each layer."""
    return _pulsed(r, chosen(r, 1.0, 2.0), between(r, 25, 60), 2.5, 20.0, bits=12)


def laser_begins_late(r: Random) -> Film:
    """The laser begins 5 to 10 s after the camera."""
    return _pulsed(r, chosen(r, 1.0, 2.0, 5.0), between(r, 10, 30), 3.5, 30.0, late=between(r, 5, 10))


def laser_slow_shots(r: Random) -> Film:
    """0.2 to 0.5 Hz, 15 to 30 pulses for each layer."""
    return _pulsed(r, chosen(r, 0.2, 0.25, 0.33, 0.5), between(r, 12, 25), 2.5, 10.0)


def laser_step_flow(r: Random) -> Film:
    """Step flow: each pulse is seen, layers are not, so there is no growth rate to report."""
    hz, t = chosen(r, 1.0, 2.0, 3.0, 5.0, 10.0), stamps(30.0, 40.0)
    size = log_between(r, 0.03, 0.3)
    light = 1 - size * pulse_train(t, hz, between(r, 0.1, 0.7) / hz) - 0.1 * (1 - np.exp(-t / 15))
    return film(r, scene(r, light), t, Growth(), pulse_hz=hz)


KINDS = (
    laser_many_shots, laser_few_shots, laser_12_bit, laser_begins_late, laser_slow_shots, laser_step_flow,
)  # fmt: skip
