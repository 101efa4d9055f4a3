"""Kinds of films in which the growth itself changes: it stops, begins again, or changes its rate."""

from __future__ import annotations

import numpy as np

from benchmarks.truth.drawing import (
    Random,
    between,
    chosen,
    film,
    log_between,
    ordinary,
    recovered,
    scene,
    spot_light,
    stamps,
    transport,
)
from benchmarks.truth.growth import Growth, Piece, curve, intensity, steady
from benchmarks.truth.simulator import Film


def _stopping(r: Random) -> tuple[Growth, float]:
    """Return growth that ends after 3 to 9 layers, and when it ends (s)."""
    rate = log_between(r, 0.3, 0.9)
    end = between(r, 3.0, 9.0) / rate
    return steady(rate, 0.0, end), end


def stops(r: Random) -> Film:
    """Growth stops, and the intensity keeps its last value."""
    g, end = _stopping(r)
    t = stamps(30.0, end + 8 / float(g.rate(0.0)))
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def stops_recovers(r: Random) -> Film:
    """Growth stops, the spot recovers."""
    g, end = _stopping(r)
    t = stamps(30.0, end + 8 / float(g.rate(0.0)))
    light = recovered(spot_light(r, g, t), t, end, log_between(r, 0.5, 10), between(r, 0.3, 1.0))
    return film(r, scene(r, light), t, g)


def stops_steps(r: Random) -> Film:
    """Growth stops, and the light of the picture steps by up to 40 % (the shutter's reflection, a light)."""
    g, end = _stopping(r)
    t = stamps(30.0, end + 8 / float(g.rate(0.0)))
    step = np.where(t > end, chosen(r, -1, 1) * between(r, 0.1, 0.4) + 1, 1.0)
    return film(r, scene(r, spot_light(r, g, t), light=step), t, g)


def stops_fades(r: Random) -> Film:
    """Growth stops, and the beam fades out."""
    g, end = _stopping(r)
    t = stamps(30.0, end + 8 / float(g.rate(0.0)))
    fade = np.exp(-np.maximum(0.0, t - end) / log_between(r, 1.0, 8.0))
    return film(r, scene(r, spot_light(r, g, t), light=fade), t, g)


def slows_to_a_stop(r: Random) -> Film:
    """The rate falls to zero within one or two layers."""
    rate = log_between(r, 0.3, 0.9)
    end = between(r, 3.0, 9.0) / rate
    last = end + between(r, 2.0, 4.0) / rate
    g = Growth((Piece(0.0, end, rate, rate), Piece(end, last, rate, 0.0)))
    t = stamps(30.0, last + 6 / rate)
    return film(r, scene(r, spot_light(r, g, t)), t, g, doubts=((end, last),))


def stops_marked(r: Random) -> Film:
    """Growth stops and the user marks it."""
    g, end = _stopping(r)
    t = stamps(30.0, end + 8 / float(g.rate(0.0)))
    light = recovered(spot_light(r, g, t), t, end, log_between(r, 0.5, 10), between(r, 0.0, 1.0))
    return film(r, scene(r, light), t, g, marks=((end, "closed", "shutter"),))


def restarts(r: Random) -> Film:
    """Growth stops, rests for 3 to 10 s and begins again at another rate, on a recovered or a rough surface."""
    first, second = log_between(r, 0.3, 0.9), log_between(r, 0.3, 0.9)
    end = between(r, 3.0, 6.0) / first
    again = end + between(r, 3.0, 10.0)
    last = again + between(r, 5.0, 8.0) / second
    one, two = steady(first, 0.0, end), steady(second, again, last)
    g = Growth(one.pieces + two.pieces)
    t = stamps(30.0, last)
    if r.random() < 0.5:  # the surface has recovered
        light = recovered(spot_light(r, one, t, depth=0.5), t, end, 1.0, 1.0)
        light = np.where(t < again, light, spot_light(r, two, t, depth=0.5))
    else:
        light = spot_light(r, g, t)
    return film(r, scene(r, light), t, g)


def begins_late(r: Random) -> Film:
    """Nothing grows for 4 to 15 s, then growth begins without a mark."""
    rate, start = log_between(r, 0.3, 0.9), between(r, 4.0, 15.0)
    g = steady(rate, start)
    t = stamps(30.0, start + 9 / rate)
    light = spot_light(r, g, t) * (1 + between(r, 0, 0.03) * np.minimum(1.0, t / start))
    return film(r, scene(r, light), t, g)


def begins_after_desorption(r: Random) -> Film:
    """The light rises slowly (an oxide desorbs), then growth begins without a mark."""
    rate, start = log_between(r, 0.3, 0.9), between(r, 8.0, 16.0)
    g = steady(rate, start)
    t = stamps(30.0, start + 9 / rate)
    rise = 1 - between(r, 0.3, 0.7) / (1 + np.exp((t - 0.5 * start) / (0.08 * start)))
    return film(r, scene(r, spot_light(r, g, t) * rise), t, g)


def rate_drifts(r: Random) -> Film:
    """The rate drifts by 2 to 20 % towards another value."""
    rate, change = log_between(r, 0.3, 0.9), chosen(r, -1, 1) * log_between(r, 0.02, 0.2)
    t = stamps(30.0, 14 / rate)
    knots = np.linspace(0, t[-1] + 1, 200)
    g = curve(knots, rate * (1 + change * (1 - np.exp(-knots / (t[-1] * between(r, 0.2, 0.8))))))
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def rate_ramps(r: Random) -> Film:
    """The rate goes linearly by 10 to 30 %."""
    rate, change = log_between(r, 0.3, 0.9), chosen(r, -1, 1) * between(r, 0.1, 0.3)
    t = stamps(30.0, 14 / rate)
    g = Growth((Piece(0.0, float(t[-1]) + 1, rate, rate * (1 + change)),))
    return film(r, scene(r, spot_light(r, g, t)), t, g)


def rate_steps(r: Random) -> Film:
    """The rate changes suddenly, without a pause."""
    rate, factor = log_between(r, 0.3, 0.8), chosen(r, 0.5, 0.7, 0.85, 0.93, 1.08, 1.2, 1.5, 2.0)
    at = between(r, 5.0, 8.0) / rate
    g = Growth(steady(rate, 0.0, at).pieces + steady(factor * rate, at).pieces)
    t = stamps(30.0, at + 8 / (factor * rate))
    return film(r, scene(r, spot_light(r, g, t, damping=60.0)), t, g)


def phase_jumps(r: Random) -> Film:
    """The oscillation's phase jumps by 0.25 to 0.75 periods (a burst of the source); the rate stays."""
    rate, jump = log_between(r, 0.3, 0.9), between(r, 0.25, 0.75)
    at = between(r, 4.0, 7.0) / rate
    g, t = steady(rate), stamps(30.0, at + 8 / rate)
    x = g.layers(t) + np.where(t > at, jump, 0.0)
    light = 0.5 + 0.5 * intensity(x, transport(r), 0.0, log_between(r, 20, 80))
    doubts = ((at, at + 1.5 / rate),)
    return film(r, scene(r, light), t, g, doubts=doubts, offsets=(-jump, 1 - jump))


def light_steps(r: Random) -> Film:
    """The exposure or the beam changes by a factor of 0.5 to 2 in the middle; growth goes on."""
    g, t = ordinary(r)
    factor = log_between(r, 0.5, 1.6)
    step = np.where(t > between(r, 0.3, 0.7) * t[-1], factor, 1.0)
    return film(r, scene(r, spot_light(r, g, t), peak=0.45, light=step), t, g)


KINDS = (
    stops, stops_recovers, stops_steps, stops_fades, slows_to_a_stop, stops_marked, restarts, begins_late,
    begins_after_desorption, rate_drifts, rate_ramps, rate_steps, phase_jumps, light_steps,
)  # fmt: skip
