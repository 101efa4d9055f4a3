"""The growth trace's memory: the last minutes at 20 Hz, hours at 2 Hz."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.antialias import SLOW_RATE_HZ, Decimator, decimation_for
from atomstream.analysis.arrays import F64

FINE = 8000
COARSE = 28800
GROUP = 10


@dataclass(slots=True)
class SlowTrace:
    """Anti-aliased history of one trace. ``raw_t``, ``raw_y`` hold the last 30 s as filmed, for pulse combs."""

    fps: float
    decimator: Decimator
    raw_t: F64 = field(default_factory=lambda: np.empty(0))
    raw_y: F64 = field(default_factory=lambda: np.empty(0))
    fine_t: F64 = field(default_factory=lambda: np.empty(0))
    fine_y: F64 = field(default_factory=lambda: np.empty(0))
    coarse_t: F64 = field(default_factory=lambda: np.empty(0))
    coarse_y: F64 = field(default_factory=lambda: np.empty(0))

    @classmethod
    def at(cls, fps: float) -> SlowTrace:
        """Make an empty trace for frames at ``fps``."""
        return cls(fps, Decimator(decimation_for(fps, SLOW_RATE_HZ)))

    def feed(self, t: F64, y: F64) -> None:
        """Add samples at the frame rate; NaN where nothing was measured."""
        keep = max(64, round(30 * self.fps))
        self.raw_t = np.concatenate([self.raw_t, t])[-keep:]
        self.raw_y = np.concatenate([self.raw_y, y])[-keep:]
        slow_t, slow_y = self.decimator.feed(t, y)
        self.fine_t = np.concatenate([self.fine_t, slow_t])
        self.fine_y = np.concatenate([self.fine_y, slow_y])
        if len(self.fine_t) > FINE:
            self._coarsen()

    def _coarsen(self) -> None:
        half = FINE // 2 // GROUP * GROUP
        old_t, old_y = self.fine_t[:half].reshape(-1, GROUP), self.fine_y[:half].reshape(-1, GROUP)
        self.fine_t, self.fine_y = self.fine_t[half:], self.fine_y[half:]
        self.coarse_t = np.concatenate([self.coarse_t, old_t.mean(axis=1)])[-COARSE:]
        self.coarse_y = np.concatenate([self.coarse_y, old_y.mean(axis=1)])[-COARSE:]

    def since(self, time_s: float) -> tuple[F64, F64]:
        """Return the samples after ``time_s`` without gaps' NaN: (t, y)."""
        t = np.concatenate([self.coarse_t, self.fine_t])
        y = np.concatenate([self.coarse_y, self.fine_y])
        keep = (t >= time_s) & np.isfinite(y)
        return t[keep], y[keep]
