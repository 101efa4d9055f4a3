"""Intensity traces with known truth, fed to a growth tracker as they would arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atomstream.analysis.growth import FoundSegment, GrowthTracker
from atomstream.analysis.illumination import CorrectedTrace
from atomstream.analysis.trace import IntensityTrace
from atomstream.results import Measurement

F64 = npt.NDArray[np.float64]
FPS = 30.0


@dataclass(frozen=True)
class Look:
    """Results at one time: rate and count, with the number of layers that grew until then."""

    time_s: float
    rate: Measurement
    counted: Measurement
    grown: float


def layers_of(rate: F64) -> F64:
    """Layers grown at each sample, for rates (N,) in ML/s at ``FPS``."""
    return np.asarray(np.cumsum(rate) / FPS)


def cusps(layers: F64, tau: float = 20.0, depth: float = 0.4) -> F64:
    """Intensity with a maximum at each full layer, damped in ``tau`` layers."""
    part = layers % 1
    return np.asarray(
        1 - 0.1 * (1 - np.exp(-layers / 3)) - depth * np.exp(-layers / tau) * 4 * part * (1 - part)
    )


def watch(
    y: F64, layers: F64, noise: float = 0.01, seed: int = 1
) -> tuple[list[Look], list[FoundSegment], GrowthTracker]:
    """Feed the trace y (N,) to a tracker, half a second at a time.

    Returns the result after each half second, the segments found without marks, and the tracker.
    """
    y = y + np.random.default_rng(seed).normal(0, noise, len(y))
    t = np.arange(len(y)) / FPS
    tracker = GrowthTracker(IntensityTrace.for_frames(FPS, t[:3]))
    tracker.start_segment(0.0)
    looks, found, step = [], [], round(FPS / 2)
    for start in range(0, len(t) - step + 1, step):
        part = slice(start, start + step)
        flat = np.ones(step)
        tracker.feed(CorrectedTrace(t[part], y[part], flat, np.full(step, np.nan)))
        now = float(t[start + step - 1])
        result = tracker.update(now)
        found += tracker.pop_found()
        counted = tracker.oscillations_counted(now)
        looks.append(Look(now, result.rate, counted, float(layers[start + step - 1])))
    return looks, found, tracker
