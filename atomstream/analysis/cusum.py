"""Two-sided CUSUM over several standardised series, with a threshold for a stated run length to a false alarm."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import brentq

from atomstream.analysis.arrays import F64

SLACK = 1.0
"""k of the CUSUM: tuned to shifts of two standard deviations."""

CLIP = 6.0


@dataclass(slots=True)
class Cusum:
    """Sums of upward and downward deviations, one each per series."""

    up: F64 = field(default_factory=lambda: np.empty(0))
    down: F64 = field(default_factory=lambda: np.empty(0))

    def feed(self, deviates: F64, run_length: float) -> bool:
        """Add one standard normal deviate a series; True where any sum passes the threshold.

        ``run_length`` is the mean number of calls between false alarms of all series together.
        """
        if self.up.shape != deviates.shape:
            self.up, self.down = np.zeros_like(deviates), np.zeros_like(deviates)
        z = np.clip(deviates, -CLIP, CLIP)
        self.up = np.maximum(0.0, self.up + z - SLACK)
        self.down = np.maximum(0.0, self.down - z - SLACK)
        limit = threshold(run_length * 2 * len(deviates))
        return bool(max(self.up.max(), self.down.max()) > limit)

    def reset(self) -> None:
        """Forget all deviations: a change was reported."""
        self.up, self.down = self.up[:0], self.down[:0]


def threshold(run_length: float, slack: float = SLACK) -> float:
    """Threshold of a one-sided CUSUM for a mean run length to a false alarm (Siegmund 1985, eq. 2.57)."""

    def excess(h: float) -> float:
        b = 2.0 * slack * (h + 1.166)
        return (math.exp(b) - b - 1.0) / (2.0 * slack**2) - max(run_length, 10.0)

    return float(brentq(excess, 0.0, 40.0)) if excess(0.0) < 0 else 0.5
