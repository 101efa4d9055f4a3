"""Features of single frames, computed for a few frames at once: about 0.3 ms for a 480x640 frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atomstream.analysis.arrays import F32, F64
from atomstream.analysis.finding import Pattern
from atomstream.analysis.hot import heal_profiles
from atomstream.analysis.light import sample_picture
from atomstream.analysis.regions import Box, BoxTrace, measure_box
from atomstream.records import Frames


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N consecutive frames.

    ``times`` (N,) s; ``pictures`` (N, P) sampled pixels; ``profiles`` (N, W) mean over the streak band; ``boxes``
    the traces of all boxes by name (the specular's is ``specular``).
    """

    times: F64
    pictures: F32
    profiles: F32
    boxes: dict[str, BoxTrace]

    def __len__(self) -> int:
        return len(self.times)


def compute(frames: Frames, times: F64, pattern: Pattern, boxes: list[Box], saturation: int) -> Features:
    """Compute the features of frames (N, H, W)."""
    top, end = pattern.band
    sums = frames[:, top:end].sum(axis=1, dtype=np.uint32)
    profiles: F32 = (sums / np.float32(end - top)).astype(np.float32)
    heal_profiles(profiles, frames, pattern.band, pattern.hot)
    traces = {box.name: measure_box(frames, box, saturation) for box in boxes}
    return Features(times, sample_picture(frames), profiles, traces)


def binned(frame: Frames, factor: int) -> F32:
    """Mean over factor x factor pixels of frames (N, H, W), by adding slices: ten times faster than reshape-sum."""
    n, height, width = frame.shape
    height, width = height // factor * factor, width // factor * factor
    rows = frame[:, 0:height:factor, :width].astype(np.uint32)
    for k in range(1, factor):
        rows += frame[:, k:height:factor, :width]
    total = rows[:, :, 0::factor].copy()
    for k in range(1, factor):
        total += rows[:, :, k::factor]
    mean: F32 = total.astype(np.float32) / np.float32(factor * factor)
    return mean.reshape(n, height // factor, width // factor)


def bin_factor(height: int, width: int, target: int = 5000) -> int:
    """Binning that leaves at most about ``target`` pixels (4 to 8 on usual cameras, 1 on tiny frames)."""
    factor = 1
    while height * width / factor**2 > target and factor < 64:
        factor += 1
    return factor
