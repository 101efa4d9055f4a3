"""Composites: real frames whose specular spot is scaled by real intensity traces, with the traces' own stamps.

The spot was measured in one growth and the picture in another, so no such film was ever recorded; but shapes, noise,
laser pulses, hum and stamps are real. The truth comes from the extrema of the traces (crest to crest, trough to
trough) and from the laser's first and last pulse, seen by eye and stated in :data:`TRACES` with its uncertainty.
Where a trace holds less than two extrema of a kind, the rate follows from the pulses for each layer of the others.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.truth.camera import Frames
from benchmarks.truth.drawing import between, chosen, log_between
from benchmarks.truth.growth import F64, Growth, Piece
from benchmarks.truth.simulator import Film

DATA = Path(__file__).resolve().parents[2] / "tests" / "data"


@dataclass(frozen=True, slots=True)
class Trace:
    """A real trace from ``start`` to ``end`` (s), with its growth (begin, end, ML/s) known within ``slack``."""

    name: str
    start: float
    end: float
    growth: tuple[tuple[float, float, float], ...]
    slack: float
    pulse_hz: float


LONG = "treated_213nm_500hz"
TRACES = {
    # Crests at 12 and 75 s, troughs at 43 and 107 s; pulses from 5.5 to 140.5 s.
    "real_620C": Trace("STO_620C_1Hz_50ms_1", 0.0, 200.0, ((5.4, 140.6, 0.0160),), 0.03, 1.0),
    # Crests at 12 (clipped) and 76.5 s, troughs at 45.8 and 106.9 s; pulses from 4.5 to 136 s.
    "real_680C": Trace("STO_680C_1Hz_50ms_1", 0.0, 200.0, ((4.4, 136.5, 0.0163),), 0.03, 1.0),
    # One trough at 136 s: about four times as long as at 1 Hz.
    "real_650C_slow": Trace("STO_650C_250mHz_33ms_1", 0.0, 300.0, ((4.4, 300.0, 0.0040),), 0.15, 0.25),
    # Half periods of 13 to 18 s at 1 pulse per second; 34 to 36 pulses a layer as at 3 Hz.
    "real_500Hz_a": Trace(LONG, 0.2, 25.3, ((0.2, 40.0, 0.031),), 0.25, 1.0),
    "real_500Hz_b": Trace(LONG, 26.0, 50.9, ((26.2, 60.0, 0.029),), 0.2, 1.0),
    "real_500Hz_c": Trace(LONG, 51.6, 73.2, ((51.6, 80.0, 0.029),), 0.2, 1.0),
    # Crests at 83.0 and 94.6 s, troughs at 77.2 and 88.6 s.
    "real_500Hz_d": Trace(LONG, 74.2, 98.9, ((74.2, 110.0, 0.0870),), 0.03, 3.0),
    # Crests at 108.4 and 120.4 s, troughs at 102.9 and 114.4 s.
    "real_500Hz_e": Trace(LONG, 100.2, 124.4, ((100.2, 130.0, 0.0850),), 0.04, 3.0),
    # All five growths one after the other; the light was changed between them.
    "real_500Hz_all": Trace(
        LONG, 0.2, 124.4,
        ((0.2, 25.4, 0.031), (26.2, 50.9, 0.029), (51.6, 73.3, 0.029), (74.2, 98.9, 0.0870), (100.2, 130.0, 0.0850)),
        0.2, 1.0,
    ),
}  # fmt: skip


@lru_cache(maxsize=1)
def real_frames() -> tuple[tuple[str, F64], ...]:
    """Return the real frames with their names, each about 125x170, 1 is full scale."""
    sto, si = np.load(DATA / "ksa_pld_19x123x164.npz"), np.load(DATA / "si111_4x259x347.npz")
    antimony = np.load(DATA / "sb_deposition_26x259x347.npz")["frames"][[0, 12, 25]]
    found = [(str(n), f / 4095) for n, f in zip(sto["names"], sto["frames"], strict=True)]
    found += [(str(n), _halved(f / 65535)) for n, f in zip(si["names"], si["frames"], strict=True)]
    found += [(f"Sb_{i}", _halved(f / 255)) for i, f in enumerate(antimony)]
    # Dim pictures are brightened, as by the camera's exposure.
    return tuple((name, f * max(1.0, 0.6 / float(f.max()))) for name, f in found)


def _halved(picture: F64) -> F64:
    h, w = (n // 2 * 2 for n in picture.shape)
    return np.asarray(picture[:h, :w].reshape(h // 2, 2, w // 2, 2).mean((1, 3)))


@lru_cache(maxsize=2)
def real_trace(name: str) -> tuple[F64, F64]:
    """Return times (s) and intensities (counts) of a real trace; the 500 Hz trace is sampled at 50 Hz."""
    short, long = np.load(DATA / "sto_pld_traces_20hz.npz"), np.load(DATA / "sto_pld_traces_long.npz")
    if name == LONG:
        y = 2.0 * long[f"{LONG}_y"][::10]
        return float(long[f"{LONG}_start"]) + 0.02 * np.arange(len(y)), y
    file = short if f"{name}_t" in short else long
    t = file[f"{name}_t"].astype(float)
    return t - t[0], file[f"{name}_y"].astype(float)


def frame_number(kind: str, seed: int) -> int:
    """Return which frame a composite uses (modulo 26): 26 films of either half use all, in different order."""
    return 5 * (seed // 2) + 13 * (seed % 2) + list(TRACES).index(kind)


def film(kind: str, seed: int) -> Film:
    """Return the composite of the trace ``kind``; the seed chooses the frame (one after the other), bits and noise."""
    made = TRACES[kind]
    r = np.random.default_rng((seed, zlib.crc32(kind.encode())))
    t, y = real_trace(made.name)
    cut = (t >= made.start) & (t <= made.end)
    t, y = t[cut] - made.start, y[cut]
    frames = real_frames()
    _, picture = frames[frame_number(kind, seed) % len(frames)]
    bits, noise = chosen(r, 8, 12), log_between(r, 0.05, 0.3)
    light = y / np.percentile(y, 99)
    fps = round(1 / float(np.median(np.diff(t))), 1)
    growth = Growth(
        tuple(Piece(max(0.0, a - made.start), b - made.start, rate, rate) for a, b, rate in made.growth)
    )
    maker = CompositeMaker(picture, light, int(r.integers(2**31)), bits, noise, between(r, 0.0, 0.02))
    return Film(
        kind, seed, fps, t, growth, maker.frames, slack=made.slack, pulse_hz=made.pulse_hz,
        look_s=1.0 if made.end - made.start > 100 else 0.5,
    )  # fmt: skip


def specular_spot(picture: F64) -> tuple[int, int]:
    """Return the row and column of the brightest spot of a picture, smoothed by 2 px."""
    y, x = np.unravel_index(int(np.argmax(ndimage.gaussian_filter(picture, 2))), picture.shape)
    return int(y), int(x)


class CompositeMaker:
    """Makes the frames of a composite: the spot's surroundings times the trace ``light`` (N,), and shot noise."""

    def __init__(self, picture: F64, light: F64, seed: int, bits: int, noise: float, black: float) -> None:
        self.light = light
        self._picture, self._seed = picture, seed
        self._full, self._noise, self._black = 2**bits - 1, noise, black
        y0, x0 = specular_spot(picture)
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
        self._mask = np.clip(1.6 * np.exp(-0.5 * (((x - x0) / 5.0) ** 2 + ((y - y0) / 7.0) ** 2)), 0, 1)

    def frames(self, start: int, stop: int) -> Frames:
        """Return frames ``start`` to ``stop`` (N, H, W)."""
        return np.stack([self._frame(i) for i in range(start, stop)])

    def _frame(self, i: int) -> Frames:
        rng = np.random.default_rng((self._seed, i))
        light = 0.85 * self._picture * (1 - self._mask + self._mask * self.light[i])
        grain = rng.standard_normal(light.shape, dtype=np.float32)
        light = light + self._noise * np.sqrt(np.maximum(light, 0.004) / 255) * grain + self._black
        level = np.rint(np.clip(light, 0, 1) * self._full)
        return level.astype(np.uint8 if self._full <= 255 else np.uint16)
