"""Simulator of RHEED films whose true growth is known. It shares no code with :mod:`atomstream.sources`.

A film is a screen with a specular spot between streaks, whose light follows a growth, seen by a camera. Frames are made
when they are asked for; the same frame is always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.truth.camera import F32, Camera, Codec, Frames
from benchmarks.truth.growth import F64, Growth


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true at one time.

    ``rate`` (ML/s) is 0 where nothing grows and NaN where no number is right or wrong. ``readings`` are rates that may
    be reported if the note names the true rate as well. ``layers`` are the counts that are right: since the film began,
    since growth began, or since its last sudden change. Rates above ``ceiling`` (ML/s) are false even where others are
    not judged.
    """

    rate: float
    readings: tuple[float, ...] = ()
    layers: tuple[float, ...] = ()
    since_s: float = 0.0
    ceiling: float = np.inf


@dataclass(slots=True)
class Film:
    """Frames with times, and what is true. ``fps`` and ``rpm`` are the values given to the analysis.

    ``times`` (N,) are the stamps in s, ``marks`` the user's marks as (time in s, label, kind), ``make`` returns the
    frames from a to b. ``doubts`` are intervals (s) in which no number is right or wrong, ``readings`` are factors of
    the rate that may be reported with a note. ``offsets`` are numbers of layers by which a
    count may fall short, where the oscillations themselves do. ``slack`` is the relative uncertainty of the true
    rate.
    """

    kind: str
    seed: int
    fps: float
    times: F64
    growth: Growth
    make: Callable[[int, int], Frames]
    rpm: float = 0.0
    marks: tuple[tuple[float, str, str], ...] = ()
    doubts: tuple[tuple[float, float], ...] = ()
    readings: tuple[float, ...] = ()
    offsets: tuple[float, ...] = ()
    slack: float = 0.0
    pulse_hz: float = 0.0
    look_s: float = 0.5

    def __len__(self) -> int:
        return len(self.times)

    def frames(self, start: int, stop: int) -> Frames:
        """Return frames ``start`` to ``stop`` (N, H, W)."""
        return self.make(start, min(stop, len(self)))

    def truth(self, t: float) -> Truth:
        """Return what is true at time ``t`` (s)."""
        rate, total = float(self.growth.rate(t)), float(self.growth.layers(t))
        jumps = [at for at, _, after in self.growth.jumps() if at <= t and after > 0]
        marks = [at for at, _, kind in self.marks if kind != "note" and at <= t]
        starts = [marks[-1]] if marks else [0.0, *jumps]
        layers = tuple(
            total - float(self.growth.layers(at)) - offset for at in starts for offset in (0.0, *self.offsets)
        )
        since = max([0.0, *(at for at, _, after in self.growth.jumps() if at <= t and after > 0)])
        if self.growth.in_doubt(t) or any(a <= t < b for a, b in self.doubts):
            highest = max((max(p.first, p.last) for p in self.growth.pieces), default=0.0)
            return Truth(np.nan, (), layers, since, 2.5 * highest * (1 + self.slack))
        return Truth(rate, tuple(rate * f for f in self.readings), layers, since)


@dataclass(slots=True)
class Scene:
    """The screen over time. All arrays have one value for each frame (N,), lengths are in px, light is relative.

    ``specular`` is the spot's intensity (1: at the start), ``move`` (N, 2) the pattern's displacement (y, x), ``light``
    scales everything that the beam makes, ``room`` is light added evenly, ``exposure`` scales the whole picture,
    ``side`` the first-order streaks, ``wing`` the share of the spot's missing light that appears as diffuse streak.
    ``static`` is a reflection that never changes: (y, x, brightness, radius).
    """

    specular: F64
    shape: tuple[int, int] = (96, 128)
    peak: float = 0.7
    spot: tuple[float, float] = (40.0, 64.0)
    size: tuple[float, float] = (4.2, 1.9)
    spacing: float = 27.0
    move: F64 | None = None
    light: F64 | None = None
    room: F64 | None = None
    exposure: F64 | None = None
    side: F64 | None = None
    stretch: F64 | None = None
    wing: float = 0.08
    background: float = 0.05
    static: tuple[tuple[float, float, float, float], ...] = ()
    camera: Camera = field(default_factory=Camera)

    def light_of(self, i: int) -> F32:
        """Return the light (H, W) of frame ``i`` before noise, 1 is full scale."""
        h, w = self.shape
        y, x = np.arange(h, dtype=np.float32), np.arange(w, dtype=np.float32)
        dy, dx = (0.0, 0.0) if self.move is None else self.move[i]
        cy, cx = self.spot[0] + dy, self.spot[1] + dx
        spacing = self.spacing * (1.0 if self.stretch is None else self.stretch[i])
        s, side = float(self.specular[i]), 0.35 if self.side is None else float(self.side[i])
        tall = np.exp(-(((y - cy - 3.0) / (3.4 * self.size[0])) ** 2))
        streaks = np.zeros(w)
        for order, part in ((-2, 0.4), (-1, 1.0), (1, 0.9), (2, 0.35)):
            streaks += part * side / (1 + ((x - cx - order * spacing) / (1.3 * self.size[1])) ** 2) ** 1.5
        streaks += self.wing * max(0.0, 1.3 - s) / (1 + ((x - cx) / (2.2 * self.size[1])) ** 2) ** 1.5
        core = np.outer(
            np.exp(-0.5 * ((y - cy) / self.size[0]) ** 2), s / (1 + ((x - cx) / self.size[1]) ** 2) ** 2
        )
        screen = self.peak * (core + np.outer(tall, streaks))
        glow = np.exp(-(((y - 0.55 * h) / (0.5 * h)) ** 2)) / (1 + np.exp(-(y - 10.0)))
        screen += self.background * glow[:, None]
        screen *= 1.0 if self.light is None else self.light[i]
        for sy, sx, bright, radius in self.static:
            screen += (
                bright * np.exp(-(((y - sy) / radius) ** 2))[:, None] * np.exp(-(((x - sx) / radius) ** 2))
            )
        screen += 0.0 if self.room is None else self.room[i]
        screen *= 1.0 if self.exposure is None else self.exposure[i]
        return screen.astype(np.float32)

    def maker(self, seed: int) -> Callable[[int, int], Frames]:
        """Return the function that makes the frames from a to b, with noise of ``seed``."""

        def raw(i: int) -> Frames:
            return self.camera.digitise(self.light_of(i), np.random.default_rng((seed, i)))

        def plain(start: int, stop: int) -> Frames:
            return np.stack([raw(i) for i in range(start, stop)])

        if not self.camera.codec:
            return plain
        decoded: list[Frames] = []
        codec = Codec(self.camera.codec)

        def coded(start: int, stop: int) -> Frames:
            while len(decoded) < stop:
                decoded.append(codec.pass_through(raw(len(decoded))))
            return np.stack(decoded[start:stop])

        return coded
