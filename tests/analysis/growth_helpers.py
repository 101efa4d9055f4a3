"""Traces and simulated growths for the analysis tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from atomstream.analysis import Analysis, Calibration, analyze
from atomstream.sources.sim_spec import GrowthSpec
from atomstream.sources.simulator import Simulator

FPS, RATE = 20.0, 2.0
"""Frame rate and growth rate of :func:`growth_at_rest`."""


def layer_trace(
    rate: float, seconds: float, *, tau: float = 12.0, noise: float = 0.01, hz: float = 20.0, seed: int = 1
):
    """Intensity of layer-by-layer growth with cusps: (t, y)."""
    t = np.arange(0, seconds, 1 / hz)
    n = rate * t
    theta, depth = n % 1, 1.8
    mean = 1 - depth / 3
    y = mean + (1 - 2 * theta * (1 - theta) * depth - mean) * np.exp(-n / tau)
    return t, y + np.random.default_rng(seed).normal(0, noise, len(t))


class Film:
    """A simulated growth with a length and slices, so that a test does not hold all its frames."""

    def __init__(self, seconds: float, **spec: Any) -> None:
        self.spec = GrowthSpec(**{"height": 120, "width": 160, "seed": 7, **spec})
        self.simulator = Simulator(self.spec)
        self.count = round(seconds * self.spec.fps)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, cut: slice) -> np.ndarray:
        return self.simulator.frames(cut.start, min(cut.stop, self.count) - cut.start)

    def analysed(self, **options: Any) -> Analysis:
        """Analyse all frames with the frame rate and rotation of the film."""
        options = {"rpm": self.spec.rpm, "calibration": self.calibration, **options}
        return analyze(self, self.spec.fps, **options)

    @property
    def calibration(self) -> Calibration:
        """The true calibration of the simulated geometry."""
        return Calibration(
            self.spec.energy_kev, self.spec.screen_distance_mm, self.spec.px_per_mm * self.spec.scale, 2.0
        )


@cache
def growth_at_rest() -> np.ndarray:
    """Eight seconds of growth at rest, at ``FPS`` and ``RATE``."""
    return Film(8.0, fps=FPS, rate_ml_s=RATE, tau_ml=60.0)[0:160]
