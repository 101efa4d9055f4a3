"""The newest values of one column over time, for the chart of the live widget."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.results import F64

POINTS: Final = 600
"""Most points of the chart. More frames are averaged, about as many each."""


class Trace:
    """Times (s) and values of the frames in the last ``window_s`` seconds. Each frame is taken once, in order."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._next_frame = 0
        self._times: F64 = np.empty(0)
        self._values: F64 = np.empty(0)

    def add(self, frames: npt.NDArray[np.integer[Any]], times: F64, values: F64) -> None:
        """Add frames by their numbers, (n,), with their times in s and values; what was added before is left out."""
        new = np.flatnonzero((frames >= self._next_frame) & np.isfinite(times))
        if not len(new):
            return
        self._next_frame = int(frames[new[-1]]) + 1
        times = np.concatenate([self._times, times[new]])
        kept = times >= times[-1] - self._window_s
        self._times = times[kept]
        self._values = np.concatenate([self._values, values[new]])[kept]

    def packed(self) -> bytes:
        """The chart's points as little-endian float32: all times, then all values; NaN where nothing was measured."""
        size = -(-len(self._times) // POINTS) or 1
        points = np.stack([means(self._times, size), means(self._values, size)])
        return points.astype("<f4").tobytes()


def means(values: F64, size: int) -> F64:
    """Means of consecutive blocks of ``size`` values, without NaN; NaN where a block has nothing else."""
    padded = np.full(-(-len(values) // size) * size, np.nan)
    padded[: len(values)] = values
    blocks = padded.reshape(-1, size)
    count = np.isfinite(blocks).sum(axis=1)
    sums = np.where(np.isfinite(blocks), blocks, 0.0).sum(axis=1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)
