"""Kinds of films in which layers grow at a steady rate, seen under difficult conditions."""

from __future__ import annotations

import numpy as np

from benchmarks.truth.camera import Frames, auto_exposure, through_h264
from benchmarks.truth.drawing import (
    Random,
    between,
    camera,
    chosen,
    film,
    flicker,
    log_between,
    ordinary,
    scene,
    spot_light,
    stamps,
    transport,
)
from benchmarks.truth.growth import F64, intensity, steady
from benchmarks.truth.simulator import Film


def plain(r: Random) -> Film:
    """Steady growth, nothing else."""
    g, t = ordinary(r, low=0.15)
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def dies_in_7_layers(r: Random) -> Film:
    """Oscillations decay within about seven layers."""
    g, t = ordinary(r, 24.0, low=0.25, high=0.5)
    return film(r, scene(r, spot_light(r, g, t, damping=between(r, 3.0, 4.5))), t, g)


def off_phase(r: Random) -> Film:
    """Diffraction far from the anti-phase condition: small oscillations, other shape."""
    g, t = ordinary(r)
    return film(r, scene(r, spot_light(r, g, t, depth=0.6, off=between(r, 0.25, 0.5))), t, g)


def faint(r: Random) -> Film:
    """Oscillations of about 1 % amplitude, quiet camera."""
    g, t = ordinary(r, low=0.3)
    light = spot_light(r, g, t, depth=between(r, 0.02, 0.035), damping=200.0, off=0.0)
    return film(r, scene(r, light, camera=camera(r, electrons=20000.0, read_noise=0.002)), t, g)


def _fast(r: Random, fps: float) -> Film:
    g, t = ordinary(r, 12.0 if fps < 100 else 8.0, fps, 2.5, 6.0)
    return film(r, scene(r, spot_light(r, g, t, damping=log_between(r, 30, 150))), t, g, fps)


def fast_30fps(r: Random) -> Film:
    """2.5 to 6 ML/s at 30 frames per second."""
    return _fast(r, 30.0)


def fast_60fps(r: Random) -> Film:
    """2.5 to 6 ML/s at 60 frames per second."""
    return _fast(r, 60.0)


def fast_120fps(r: Random) -> Film:
    """2.5 to 6 ML/s at 120 frames per second."""
    return _fast(r, 120.0)


def slow(r: Random) -> Film:
    """0.005 to 0.02 ML/s at one or two frames per second."""
    rate, fps = log_between(r, 0.005, 0.02), chosen(r, 1.0, 2.0, 3.0)
    g, t = steady(rate), stamps(fps, 6 / rate)
    return film(r, scene(r, spot_light(r, g, t)), t, g, fps, look_s=5.0)


def drifts_away(r: Random) -> Film:
    """The pattern drifts by up to 20 px while layers grow."""
    g, t = ordinary(r)
    move = np.outer(t / t[-1], r.uniform(-14, 14, 2))
    return film(r, scene(r, spot_light(r, g, t), move=move), t, g)


def moves_and_grows(r: Random) -> Film:
    """The pattern moves by 0.6 to 2 px at another frequency while layers grow."""
    g, t = ordinary(r, 36.0)
    hz = log_between(r, 0.05, 1.5)
    hz *= 1.3 if 0.85 < hz / float(g.rate(0.0)) < 1.15 else 1.0
    wave = between(r, 0.6, 2.0) * np.sin(2 * np.pi * hz * t + between(r, 0, 6))
    return film(r, scene(r, spot_light(r, g, t), move=np.outer(wave, (1.0, between(r, -0.6, 0.6)))), t, g)


def gamma(r: Random) -> Film:
    """The camera's grey curve has an exponent of 1.6 to 2.4."""
    g, t = ordinary(r)
    return film(r, scene(r, spot_light(r, g, t), camera=camera(r, gamma=between(r, 1.6, 2.4))), t, g)


def more_bits(r: Random) -> Film:
    """10, 12, 14 or 16 bits per pixel, also dim ones."""
    g, t = ordinary(r)
    seen = camera(r, bits=chosen(r, 10, 12, 14, 16))
    return film(r, scene(r, spot_light(r, g, t), peak=log_between(r, 0.08, 0.8), camera=seen), t, g)


def inverted(r: Random) -> Film:
    """Inverted greys: the spot is dark."""
    g, t = ordinary(r)
    return film(r, scene(r, spot_light(r, g, t), camera=camera(r, inverted=True)), t, g)


def codec(r: Random) -> Film:
    """Strong video compression."""
    g, t = ordinary(r)
    return film(r, scene(r, spot_light(r, g, t), camera=camera(r, codec=log_between(r, 6, 25))), t, g)


def h264(r: Random) -> Film:
    """A real H.264 coder at strong compression."""
    g, t = ordinary(r)
    made, quality = film(r, scene(r, spot_light(r, g, t)), t, g), int(r.integers(14, 25))
    coded: list[Frames] = []

    def frames(start: int, stop: int) -> Frames:
        if not coded:
            coded.append(through_h264(raw(0, len(t)), quality))
        return coded[0][start:stop]

    raw, made.make = made.make, frames
    return made


def exposes_itself(r: Random) -> Film:
    """Automatic exposure in steps of 5 %."""
    g, t = ordinary(r)
    light = spot_light(r, g, t)
    gain = auto_exposure(0.05 + 0.25 * light, 30.0, lag_s=between(r, 0.2, 1.0))
    return film(r, scene(r, light, peak=0.45, exposure=gain), t, g)


def drops_frames(r: Random) -> Film:
    """3 to 20 % of the frames are missing; the stamps show it."""
    g, t = ordinary(r)
    t = t[r.random(len(t)) > between(r, 0.03, 0.2)]
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def slower_than_stated(r: Random) -> Film:
    """The stamps show that the camera is 4 to 15 % slower than stated."""
    real = 30.0 * (1 - between(r, 0.04, 0.15))
    g, t = ordinary(r, fps=real)
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def stamped_late(r: Random) -> Film:
    """Stamps of a stalled computer: some frames are stamped late, in bursts."""
    g, t = ordinary(r)
    light, late = spot_light(r, g, t), t.copy()
    for at in r.uniform(1, t[-1], 8):
        until = at + between(r, 0.05, 0.4)
        late[(t >= at) & (t < until)] = until
    return film(r, scene(r, light), np.maximum.accumulate(late + np.abs(r.normal(0, 0.002, len(t)))), g)


def blinks(r: Random) -> Film:
    """The beam drops out for 2 frames to 0.2 s, to 0 to 50 % of its light, several times."""
    g, t = ordinary(r)
    light = np.ones(len(t))
    for at in r.uniform(1.0, t[-1] - 1, int(r.integers(2, 7))):
        light[(t >= at) & (t < at + log_between(r, 0.07, 0.2))] = chosen(r, 0.0, 0.05, 0.2, 0.5)
    return film(r, scene(r, spot_light(r, g, t), light=light), t, g)


def static_reflection(r: Random) -> Film:
    """A reflection or the direct beam, which never changes, is brighter than the spot."""
    g, t = ordinary(r)
    place = (between(r, 64, 86), between(r, 20, 108))
    still = ((*place, between(r, 0.8, 0.95), between(r, 2.5, 5.0)),)
    return film(r, scene(r, spot_light(r, g, t), peak=between(r, 0.35, 0.55), static=still), t, g)


def hum(r: Random) -> Film:
    """Mains hum of 2 to 7 %, at 50 or 60 Hz and its double, as the camera sees it."""
    g, t = ordinary(r, fps=chosen(r, 30.0, 60.0))
    fps = 1 / float(t[1])
    hz = chosen(r, 49.97, 59.3, 59.94, 60.02)
    size = between(r, 0.02, 0.07)
    wave = 1 + size * np.sin(2 * np.pi * hz * t) + 0.3 * size * np.sin(4 * np.pi * hz * t + 1)
    return film(r, scene(r, spot_light(r, g, t), light=wave), t, g, fps)


def flickers(r: Random) -> Film:
    """Coloured noise of 1 to 4 % on the spot while layers grow."""
    g, t = ordinary(r)
    noise = 1 + between(r, 0.01, 0.04) * flicker(r, t, log_between(r, 0.5, 10))
    return film(r, scene(r, spot_light(r, g, t) * noise), t, g)


def saturates(r: Random) -> Film:
    """The crests of the oscillation are saturated."""
    g, t = ordinary(r)
    seen = camera(r, clip=between(r, 0.6, 1.0))
    return film(r, scene(r, spot_light(r, g, t), peak=between(r, 0.9, 1.3), camera=seen), t, g)


def _turning(r: Random, rpm: float, t: F64, strength: float) -> tuple[F64, F64, F64, F64]:
    """Return spot factor, side factor, spacing factor (N,) and movement (N, 2) of a rotating sample."""
    angle = 2 * np.pi * rpm / 60 * t + between(r, 0, 6)
    spot = 1 + sum(
        strength * between(r, 0.2, 1) / k * np.cos(k * angle + between(r, 0, 6)) for k in (1, 2, 4, 6)
    )
    bright = np.exp(-((np.sin(2 * angle) / 0.25) ** 2))
    wobble = between(r, 0.2, 1.5) * np.stack([np.cos(angle), 0.5 * np.sin(angle)], axis=1)
    return spot, 0.12 + 0.4 * bright, 1 + 0.2 * np.sin(2 * angle) ** 2, wobble


def _rotating(r: Random, stated: float, grows: bool = True) -> Film:
    rpm = chosen(r, 6.0, 10.0, 15.0, 30.0) * between(r, 0.99, 1.01)
    harmonics = rpm / 60 * np.arange(1, 13)
    while np.min(np.abs(harmonics / (rate := log_between(r, 0.2, 0.9)) - 1)) < 0.06:
        pass
    g, t = (steady(rate), stamps(30.0, 40.0)) if grows else (steady(0.0), stamps(30.0, 40.0))
    light = spot_light(r, g, t) if grows else np.ones(len(t))
    spot, side, stretch, move = _turning(r, rpm, t, between(r, 0.05, 0.2))
    return film(
        r, scene(r, light * spot / 1.3, side=side, stretch=stretch, move=move), t, g, rpm=stated * rpm
    )


def rotates(r: Random) -> Film:
    """The sample rotates with a wobble, and the stated speed is right within 1 %."""
    return _rotating(r, between(r, 0.99, 1.01))


def rotates_undeclared(r: Random) -> Film:
    """The sample rotates, but 0 rpm are stated."""
    return _rotating(r, 0.0)


def rotates_misstated(r: Random) -> Film:
    """The sample rotates 10 to 30 % faster or slower than stated."""
    return _rotating(r, 1 + chosen(r, -1, 1) * between(r, 0.1, 0.3))


def rotates_only(r: Random) -> Film:
    """The sample rotates, nothing grows, 0 rpm are stated."""
    return _rotating(r, 0.0, grows=False)


def second_harmonic(r: Random) -> Film:
    """The second harmonic is 1.2 to 2.5 times as strong as the first."""
    g, t = ordinary(r, 36.0, low=0.2, high=0.6)
    x, ratio = g.layers(t), between(r, 1.2, 2.5)
    wave = np.cos(2 * np.pi * x) + ratio * np.cos(4 * np.pi * x + between(r, 0, 6))
    light = 0.6 + 0.3 * np.exp(-x / log_between(r, 15, 80)) * wave / (1 + ratio)
    return film(r, scene(r, light), t, g, readings=(2.0,))


def bilayer(r: Random) -> Film:
    """Every second oscillation is deeper: the sub-harmonic is 0.2 to 0.9 of the main component."""
    g, t = ordinary(r, 36.0, low=0.25, high=0.8)
    x, ratio = g.layers(t), between(r, 0.2, 0.9)
    wave = np.cos(2 * np.pi * x) + ratio * np.cos(np.pi * x + between(r, 0, 6))
    light = 0.6 + 0.3 * np.exp(-x / log_between(r, 15, 80)) * wave / (1 + ratio)
    return film(r, scene(r, light), t, g, readings=(0.5,))


def long_first_period(r: Random) -> Film:
    """The first oscillation takes 1.25 to 1.6 times as long as the others."""
    g, t = ordinary(r)
    x, factor = g.layers(t), between(r, 1.25, 1.6)
    seen = np.where(x < factor, x / factor, x - factor + 1)
    light = 1 - 0.5 + 0.5 * intensity(seen, transport(r), 0.0, log_between(r, 15, 80))
    # As long as only the first oscillation was seen, its period also counts as right.
    return film(
        r, scene(r, light), t, g, doubts=((0.0, (factor + 0.5) / float(g.rate(0.0))),), offsets=(factor - 1,)
    )


KINDS = (
    plain, dies_in_7_layers, off_phase, faint, fast_30fps, fast_60fps, fast_120fps, slow, drifts_away,
    moves_and_grows, gamma, more_bits, inverted, codec, h264, exposes_itself, drops_frames, slower_than_stated,
    stamped_late, blinks, static_reflection, hum, flickers, saturates, rotates, rotates_undeclared, rotates_misstated,
    rotates_only, second_harmonic, bilayer, long_first_period,
)  # fmt: skip
