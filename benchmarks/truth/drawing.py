"""Random choices that the kinds of films share: screens, cameras, and the light of the spot for a growth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.truth.camera import Camera
from benchmarks.truth.growth import F64, Growth, intensity, steady
from benchmarks.truth.simulator import Film, Scene

Random = np.random.Generator


def between(r: Random, low: float, high: float) -> float:
    """Return a random number, evenly distributed."""
    return float(r.uniform(low, high))


def log_between(r: Random, low: float, high: float) -> float:
    """Return a random number, evenly distributed on a logarithmic scale."""
    return float(math.exp(r.uniform(math.log(low), math.log(high))))


def chosen(r: Random, *items: Any) -> Any:
    """Return one of the items."""
    return items[int(r.integers(len(items)))]


def transport(r: Random) -> float:
    """Return k tau of the birth-death model: one of a few values, because the model is integrated once for each."""
    return float(chosen(r, 15.0, 20.0, 30.0, 40.0, 60.0, 90.0))


def stamps(fps: float, seconds: float) -> F64:
    """Return the times (N,) in s of a regular camera."""
    return np.arange(round(seconds * fps)) / fps


def spot_light(
    r: Random,
    growth: Growth,
    t: F64,
    depth: float = math.nan,
    damping: float = math.nan,
    off: float = math.nan,
) -> F64:
    """Return the intensity (N,) of the specular spot during ``growth``, 1 on the smooth surface at the start.

    ``depth`` is the share of the light that oscillates, drawn from 0.25 to 0.7 if it is NaN; ``damping`` in layers and
    ``off`` in units of pi are drawn as well.
    """
    depth = between(r, 0.25, 0.7) if math.isnan(depth) else depth
    damping = log_between(r, 15, 80) if math.isnan(damping) else damping
    off = between(r, -0.12, 0.12) if math.isnan(off) else off
    return 1 - depth + depth * intensity(growth.layers(t), transport(r), off, damping)


def camera(r: Random, **settings: Any) -> Camera:
    """Return a random ordinary camera, changed by ``settings`` (fields of Camera)."""
    drawn = {"electrons": log_between(r, 1500, 10000), "read_noise": between(r, 0.002, 0.006)}
    return Camera(**{**drawn, **settings})


def scene(r: Random, specular: F64, **settings: Any) -> Scene:
    """Return a random ordinary screen with a spot of intensity ``specular`` (N,), changed by ``settings``."""
    drawn: dict[str, Any] = {
        "peak": between(r, 0.4, 0.75),
        "spot": (between(r, 32, 48), between(r, 56, 72)),
        "size": (between(r, 3.2, 6.0), between(r, 1.5, 2.6)),
        "spacing": between(r, 22, 31),
        "background": between(r, 0.03, 0.08),
        "wing": between(r, 0.0, 0.12),
    }
    drawn["camera"] = settings.pop("camera", None) or camera(r)
    return Scene(specular, **{**drawn, **settings})


def film(r: Random, picture: Scene, t: F64, growth: Growth, fps: float = 30.0, **settings: Any) -> Film:
    """Return the film of a screen; kind and seed are filled in by the catalogue."""
    return Film("", 0, fps, t, growth, picture.maker(int(r.integers(2**31))), **settings)


def ordinary(
    r: Random, seconds: float = 30.0, fps: float = 30.0, low: float = 0.25, high: float = 1.0
) -> tuple[Growth, F64]:
    """Return steady growth at a random rate from ``low`` to ``high`` (ML/s), and the times of the frames."""
    return steady(log_between(r, low, high)), stamps(fps, seconds)


def recovered(light: F64, t: F64, start: float, lag_s: float, share: float = 0.8, level: float = 1.0) -> F64:
    """Return ``light`` (N,), which from ``start`` (s) on goes exponentially towards ``level`` (annealing)."""
    since = np.maximum(0.0, t - start)
    at = float(np.interp(start, t, light))
    return np.where(t < start, light, light + (level - at) * share * (1 - np.exp(-since / lag_s)))


def flicker(r: Random, t: F64, lag_s: float) -> F64:
    """Return coloured noise (N,) of variance 1 with the correlation time ``lag_s`` (first-order Gauss-Markov)."""
    keep = math.exp(-float(np.median(np.diff(t))) / lag_s)
    steps = r.standard_normal(len(t)) * math.sqrt(1 - keep**2)
    out = np.empty(len(t))
    value = float(r.standard_normal())
    for i, step in enumerate(steps):
        value = keep * value + step
        out[i] = value
    return out
