"""The growth trace's memory: the last minutes at 20 Hz, hours at 2 Hz."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.antialias import Decimator, decimation_for
from atomstream.analysis.arrays import F64
from atomstream.analysis.cadence import Clock, believed_times

FINE = 8000
COARSE = 28800
GROUP = 10
SETTLE_S = 2.0
"""How much of a trace tells the frame rate well enough to choose the filter by it."""


@dataclass(slots=True)
class SlowTrace:
    """Anti-aliased history of one trace. ``raw_t``, ``raw_y`` hold the last 30 s as filmed, for pulse combs.

    ``fine_t`` are the frames' stamps, ``fine_n`` their numbers: what of the stamps is to be believed shows only
    later, so :meth:`since` says it anew. ``coarse_t`` are believed times. ``fine_b``,
    ``coarse_b`` are the picture's background beside the trace.
    """

    fps: float
    decimator: Decimator
    beside: Decimator
    stated_fps: float
    raw_t: F64 = field(default_factory=lambda: np.empty(0))
    raw_y: F64 = field(default_factory=lambda: np.empty(0))
    fine_t: F64 = field(default_factory=lambda: np.empty(0))
    fine_y: F64 = field(default_factory=lambda: np.empty(0))
    fine_n: F64 = field(default_factory=lambda: np.empty(0))
    coarse_t: F64 = field(default_factory=lambda: np.empty(0))
    coarse_y: F64 = field(default_factory=lambda: np.empty(0))
    fine_b: F64 = field(default_factory=lambda: np.empty(0))
    coarse_b: F64 = field(default_factory=lambda: np.empty(0))
    count: int = 0

    @classmethod
    def at(cls, fps: float, times: F64) -> SlowTrace:
        """Make an empty trace for frames stated to come at ``fps``, of which the first have ``times`` (N,)."""
        seen = seen_rate(times, fps)
        return cls(seen, Decimator(decimation_for(seen)), Decimator(decimation_for(seen)), fps)

    def feed(self, t: F64, y: F64, background: F64) -> None:
        """Add samples at the frame rate, with the background beside the trace; NaN where nothing was measured."""
        self._add(t, y, background, self.count + np.arange(len(t), dtype=np.float64))
        self.count += len(t)
        if len(self.fine_t) > FINE:
            self._coarsen()

    def skip(self, t: F64) -> None:
        """Pass over frames that are missing, at about the times ``t``: they fill the filter and have no number."""
        nothing = np.full(len(t), np.nan)
        self._add(t, nothing, nothing, np.full(len(t), float(self.count)))

    def _add(self, t: F64, y: F64, background: F64, n: F64) -> None:
        keep = max(64, round(30 * self.fps))
        self.raw_t = np.concatenate([self.raw_t, t])[-keep:]
        self.raw_y = np.concatenate([self.raw_y, y])[-keep:]
        slow_t, slow_y, slow_n = self.decimator.feed(t, y, n)
        slow_b = self.beside.feed(t, background, n)[1]
        good = np.isfinite(slow_y)
        self.fine_b = np.concatenate([self.fine_b, slow_b[good]])
        self.fine_t = np.concatenate([self.fine_t, slow_t[good]])
        self.fine_y = np.concatenate([self.fine_y, slow_y[good]])
        self.fine_n = np.concatenate([self.fine_n, slow_n[good]])

    def _coarsen(self) -> None:
        half = FINE // 2 // GROUP * GROUP
        times = self.clock().times
        old_t, old_y = times[:half].reshape(-1, GROUP), self.fine_y[:half].reshape(-1, GROUP)
        old_b, self.fine_b = self.fine_b[:half].reshape(-1, GROUP), self.fine_b[half:]
        self.coarse_b = np.concatenate([self.coarse_b, old_b.mean(axis=1)])[-COARSE:]
        self.fine_t, self.fine_y, self.fine_n = self.fine_t[half:], self.fine_y[half:], self.fine_n[half:]
        self.coarse_t = np.concatenate([self.coarse_t, old_t.mean(axis=1)])[-COARSE:]
        self.coarse_y = np.concatenate([self.coarse_y, old_y.mean(axis=1)])[-COARSE:]

    def retune(self, clock: Clock) -> None:
        """Choose the filter by the frame rate as it shows after some seconds, where the first frames misled."""
        if len(self.fine_t) < 2 or not self.fine_t[-1] - self.fine_t[0] > SETTLE_S or not clock.period_s > 0:
            return
        wanted = decimation_for(1.0 / clock.period_s)
        if not 0.6 < wanted / self.decimator.decimation < 1.7:
            self.fps = 1.0 / clock.period_s
            self.decimator, self.beside = Decimator(wanted), Decimator(wanted)

    def camera_fps(self) -> float:
        """Frames a second by their stamps where these differ from the stated rate by more than 0.2 %, else that."""
        if len(self.fine_t) < 2 or self.fine_t[-1] - self.fine_t[0] < 2.0 * SETTLE_S:
            return self.stated_fps
        fps = 1.0 / self.clock().period_s
        return fps if abs(fps / self.stated_fps - 1.0) > 0.002 else self.stated_fps

    def clock(self) -> Clock:
        """What is to be believed of the stamps of the fine samples."""
        return believed_times(self.fine_t, self.fine_n)

    def since(self, time_s: float) -> tuple[F64, F64]:
        """Return the samples after ``time_s`` without those of unknown time: (t, y)."""
        t, y, _ = self.both_since(time_s)
        return t, y

    def both_since(self, time_s: float) -> tuple[F64, F64, F64]:
        """Return the samples after ``time_s`` and the background beside them: (t, y, background)."""
        t = np.concatenate([self.coarse_t, self.clock().times])
        y, background = (
            np.concatenate(p) for p in ((self.coarse_y, self.fine_y), (self.coarse_b, self.fine_b))
        )
        keep = t >= time_s  # False for NaN
        return t[keep], y[keep], background[keep]


def seen_rate(times: F64, stated_fps: float) -> float:
    """Frame rate of the first few frames where their times are even and it can be meant, else the stated one."""
    steps = np.diff(times)
    if len(steps) < 2 or not steps.min() > 0 or steps.max() > 3.0 * steps.min():
        return stated_fps
    fps = 1.0 / float(np.median(steps))
    # many times faster than stated is a burst after a stall
    return fps if 1.0 / 64.0 < fps / stated_fps < 4.5 else stated_fps
