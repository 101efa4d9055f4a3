"""Kinds of films in which nothing grows, but something moves, flickers or changes: every rate is false."""

from __future__ import annotations

import numpy as np
from scipy import signal

from benchmarks.truth.drawing import (
    Random,
    between,
    camera,
    chosen,
    film,
    flicker,
    log_between,
    recovered,
    scene,
    stamps,
)
from benchmarks.truth.growth import F64, Growth
from benchmarks.truth.simulator import Film, Scene

NOTHING = Growth()


def _still(r: Random, seconds: float = 36.0) -> tuple[F64, F64]:
    """Return the times of the frames and constant light (N,)."""
    t = stamps(30.0, seconds)
    return t, np.full(len(t), 0.9)


def _film(r: Random, picture: Scene, t: F64) -> Film:
    return film(r, picture, t, NOTHING)


def still(r: Random) -> Film:
    """Nothing changes."""
    t, light = _still(r)
    return _film(r, scene(r, light), t)


def moves(r: Random) -> Film:
    """The pattern moves by 0.6 to 2 px at 0.05 to 1.5 Hz."""
    t, light = _still(r, 40.0)
    hz, size = log_between(r, 0.05, 1.5), between(r, 0.6, 2.0)
    path = np.stack([np.sin(2 * np.pi * hz * t), np.cos(2 * np.pi * hz * t + between(r, 0, 3))], axis=1)
    return _film(r, scene(r, light, move=size * path * (between(r, 0.3, 1), between(r, 0.3, 1))), t)


def moves_far(r: Random) -> Film:
    """The pattern moves by 2 to 4 px at 0.1 to 1.5 Hz, as a sine or to and fro."""
    t, light = _still(r)
    hz, angle = log_between(r, 0.1, 1.5), between(r, 0, np.pi)
    wave = np.sin(2 * np.pi * hz * t) if r.random() < 0.6 else signal.sawtooth(2 * np.pi * hz * t, 0.5)
    move = between(r, 2.0, 4.0) * np.outer(wave, (np.sin(angle), np.cos(angle)))
    return _film(r, scene(r, light, move=move), t)


def drifts(r: Random) -> Film:
    """The pattern drifts by 4 to 25 px."""
    t, light = _still(r)
    direction = between(r, 0, 2 * np.pi)
    way = between(r, 4, 18) * t / t[-1]
    return _film(r, scene(r, light, move=np.outer(way, (np.sin(direction), np.cos(direction)))), t)


def vibrates(r: Random) -> Film:
    """The pattern vibrates at 4 to 13 Hz by 0.5 to 2 px."""
    t, light = _still(r)
    wave = between(r, 0.5, 2) * np.sin(2 * np.pi * log_between(r, 4, 13) * t)
    return _film(r, scene(r, light, move=np.outer(wave, (between(r, 0, 1), 1.0))), t)


def shutter_square(r: Random) -> Film:
    """A shutter's square wave of 0.1 to 1 Hz changes the light: of the beam, of the room, or of all."""
    t, light = _still(r)
    wave = signal.square(2 * np.pi * log_between(r, 0.1, 1.0) * t, between(r, 0.3, 0.7))
    size, which = log_between(r, 0.02, 0.3), chosen(r, "light", "room", "exposure")
    return _film(r, scene(r, light, **{which: 0.05 * (1 + wave) if which == "room" else 1 + size * wave}), t)


def light_sawtooth(r: Random) -> Film:
    """The beam's light goes as a sawtooth of 0.1 to 1 Hz."""
    t, light = _still(r)
    wave = signal.sawtooth(2 * np.pi * log_between(r, 0.1, 1.0) * t, chosen(r, 0.0, 0.5, 1.0, 0.8))
    return _film(r, scene(r, light, light=1 + log_between(r, 0.02, 0.25) * wave), t)


def light_sine(r: Random) -> Film:
    """The beam's light goes as a sine of 0.1 to 1.5 Hz: all spots and the background alike."""
    t, light = _still(r)
    wave = np.sin(2 * np.pi * log_between(r, 0.1, 1.5) * t)
    return _film(r, scene(r, light, light=1 + log_between(r, 0.01, 0.25) * wave), t)


def hum_only(r: Random) -> Film:
    """Mains hum that a camera of 30 fps sees as a slow wave."""
    t, light = _still(r)
    wave = np.sin(2 * np.pi * chosen(r, 50.1, 59.3, 59.5, 59.94, 60.3, 119.6) * t)
    which = chosen(r, "light", "exposure")
    return _film(r, scene(r, light, **{which: 1 + log_between(r, 0.01, 0.07) * wave}), t)


def light_steps_only(r: Random) -> Film:
    """The exposure changes in steps at random times."""
    t, light = _still(r)
    for at in r.uniform(0, t[-1], int(r.integers(1, 12))):
        light = np.where(t > at, light * log_between(r, 0.8, 1.2), light)
    return _film(r, scene(r, np.full(len(t), 0.9), peak=0.4, exposure=light), t)


def random_walk(r: Random) -> Film:
    """The spot's light follows coloured noise with a correlation time of 0.3 to 30 s."""
    t, light = _still(r, 60.0)
    noise = log_between(r, 0.005, 0.1) * flicker(r, t, log_between(r, 0.3, 30))
    return _film(r, scene(r, light * np.clip(1 + noise, 0.3, 1.6)), t)


def anneals(r: Random) -> Film:
    """The spot brightens or fades exponentially."""
    t, light = _still(r)
    start = between(r, 2, 12)
    return _film(
        r, scene(r, recovered(light, t, start, log_between(r, 2, 20), 1.0, chosen(r, 0.4, 0.6, 1.3))), t
    )


def blinks_only(r: Random) -> Film:
    """The beam drops out from time to time."""
    t, light = _still(r)
    beam = np.ones(len(t))
    for at in r.uniform(1.0, t[-1], int(r.integers(2, 12))):
        beam[(t >= at) & (t < at + log_between(r, 0.07, 0.6))] = chosen(r, 0.0, 0.1, 0.5)
    return _film(r, scene(r, light, light=beam), t)


def dark(r: Random) -> Film:
    """No beam, only the camera's noise and perhaps light in the room."""
    t, light = _still(r, 20.0)
    glow = between(r, 0, 0.4) * (1 + 0.2 * np.sin(2 * np.pi * log_between(r, 0.1, 1) * t))
    return _film(r, scene(r, light, light=np.zeros(len(t)), room=glow), t)


def saturated(r: Random) -> Film:
    """The picture is far too bright."""
    t, light = _still(r, 20.0)
    wave = 1 + 0.1 * np.sin(2 * np.pi * log_between(r, 0.1, 1) * t)
    seen = camera(r, clip=between(r, 0.5, 1.0))
    return _film(
        r, scene(r, light, peak=between(r, 2, 6), background=between(r, 0.1, 1.5), light=wave, camera=seen), t
    )


KINDS = (
    still, moves, moves_far, drifts, vibrates, shutter_square, light_sawtooth, light_sine, hum_only,
    light_steps_only, random_walk, anneals, blinks_only, dark, saturated,
)  # fmt: skip
