"""Intensity trace of a growth: anti-aliased, the last minutes at up to 45 Hz and hours at 2 Hz.

Frames are low-pass filtered by a Hann-windowed FIR filter and decimated. A boxcar average would alias mains hum at
59.3 Hz into the growth band; this filter has its stop band where the decimated rate folds (Oppenheim & Schafer,
Discrete-Time Signal Processing, ch. 4 and 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np

from atomstream.analysis.filters import lowpass_taps
from atomstream.analysis.timestamps import FrameClock, corrected_times
from atomstream.results import F64

SLOW_RATE_HZ = 40.0
"""Sample rate of slow traces, about: growth up to 6 layers per second has 5 or more samples per period. Cameras of
less than 60 frames per second are not decimated, so their newest frame is not delayed by the filter."""


def decimation_for(fps: float, rate_hz: float = SLOW_RATE_HZ) -> int:
    """Return the number of frames per slow sample (1 for cameras slower than 1.5 times ``rate_hz``)."""
    return max(1, round(fps / rate_hz))


@lru_cache(maxsize=32)
def taps_for(decimation: int) -> F64:
    """Return the FIR coefficients, of unit gain at 0 Hz, for a decimation factor: 16 taps per factor, none for 1."""
    if decimation == 1:
        return np.ones(1)
    count = 16 * decimation + 1
    return lowpass_taps(count, 0.8 / decimation)


@dataclass(slots=True)
class Decimator:
    """Streaming low-pass filter and decimation of one trace; NaN samples (gaps) are left out with their weights.

    ``times`` (s), ``values`` and frame ``numbers`` are the history that the filter still needs. Slow samples are
    corrected for the group delay: they carry time and number of the middle of the frames they are made of.
    """

    decimation: int
    times: F64 = field(default_factory=lambda: np.empty(0))
    values: F64 = field(default_factory=lambda: np.empty(0))
    numbers: F64 = field(default_factory=lambda: np.empty(0))

    def feed(self, times: F64, values: F64, numbers: F64) -> tuple[F64, F64, F64]:
        """Add samples (N,) of one trace; return the slow samples (time, value, number) that are now complete."""
        taps = taps_for(self.decimation)
        t, y = np.concatenate([self.times, times]), np.concatenate([self.values, values])
        n = np.concatenate([self.numbers, numbers])
        count = (len(t) - len(taps)) // self.decimation + 1
        if count <= 0:
            self.times, self.values, self.numbers = t, y, n
            return np.empty(0), np.empty(0), np.empty(0)
        windows = np.lib.stride_tricks.sliding_window_view(y, len(taps))[:: self.decimation][:count]
        middle = len(taps) // 2 + self.decimation * np.arange(count)
        keep = count * self.decimation
        self.times, self.values, self.numbers = t[keep:], y[keep:], n[keep:]
        return t[middle], _weighted(windows, taps), n[middle]


def _weighted(windows: F64, taps: F64) -> F64:
    """Apply the FIR filter to windows (M, taps), renormalised for missing samples; NaN below half the weight."""
    valid = np.isfinite(windows)
    if valid.all():
        result: F64 = windows @ taps
        return result
    weight = valid @ taps
    total = np.where(valid, windows, 0.0) @ taps
    return np.where(weight > 0.5, total / np.where(weight > 0.5, weight, 1.0), np.nan)


FINE_SAMPLES = 8000
"""Fine samples kept (200 s at 40 Hz)."""

COARSE_SAMPLES = 28800
"""Coarse samples kept (4 hours at 2 Hz)."""

COARSE_GROUP = 20
"""Fine samples averaged into one coarse sample."""

ROTATING_RATE_HZ = 25.0
"""Largest sample rate of a trace that is fitted jointly with a rotation: the harmonics of the rotation need no more."""


def slowed(t: F64, y: F64) -> tuple[F64, F64]:
    """Return a trace t (s), y (N,) filtered and decimated by 2 if it has more than 25 samples per second."""
    if len(t) < 2 * len(taps_for(2)) or (len(t) - 1) / float(t[-1] - t[0]) <= ROTATING_RATE_HZ:
        return t, y
    slow_t, slow_y, _ = Decimator(2).feed(t, y, np.arange(len(t), dtype=np.float64))
    return slow_t, slow_y


MIN_CLOCK_S = 2.0
"""Length of trace, in s, from which the measured frame rate is good enough to choose the filter."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class IntensityTrace:
    """Anti-aliased history of one intensity trace (times in s, intensities in counts).

    ``raw_t``, ``raw_y`` hold the last 30 s at the frame rate, for the detection of laser pulses. ``fine_t`` are
    uncorrected timestamps and ``fine_n`` frame numbers: a late timestamp is recognised only from later ones, so
    :meth:`since` corrects them at each call. ``coarse_t`` are corrected. ``fine_b`` and ``coarse_b`` are the
    background of the picture at the same times, ``fine_m`` and ``coarse_m`` the effect of the spot's motion.
    """

    fps: float
    decimator: Decimator
    background_decimator: Decimator
    motion_decimator: Decimator
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
    fine_m: F64 = field(default_factory=lambda: np.empty(0))
    coarse_m: F64 = field(default_factory=lambda: np.empty(0))
    count: int = 0

    @classmethod
    def for_frames(cls, fps: float, times: F64) -> IntensityTrace:
        """Make an empty trace for a nominal frame rate ``fps`` and the ``times`` (N,) in s of the first frames."""
        seen = rate_from_times(times, fps)
        factor = decimation_for(seen)
        return cls(seen, Decimator(factor), Decimator(factor), Decimator(factor), fps)

    def feed(self, t: F64, y: F64, background: F64, motion: F64) -> None:
        """Add samples (N,) at the frame rate, with background and motion; NaN where nothing was measured."""
        self._append(t, y, background, motion, self.count + np.arange(len(t), dtype=np.float64))
        self.count += len(t)
        if len(self.fine_t) > FINE_SAMPLES:
            self._coarsen()

    def skip_missing(self, t: F64) -> None:
        """Add missing frames at about the times ``t`` (N,): NaN for the filter, and not counted."""
        missing = np.full(len(t), np.nan)
        self._append(t, missing, missing, missing, np.full(len(t), float(self.count)))

    def _append(self, t: F64, y: F64, background: F64, motion: F64, n: F64) -> None:
        keep = max(64, round(30 * self.fps))
        self.raw_t = np.concatenate([self.raw_t, t])[-keep:]
        self.raw_y = np.concatenate([self.raw_y, y])[-keep:]
        slow_t, slow_y, slow_n = self.decimator.feed(t, y, n)
        slow_b = self.background_decimator.feed(t, background, n)[1]
        slow_m = self.motion_decimator.feed(t, motion, n)[1]
        good = np.isfinite(slow_y)
        self.fine_m = np.concatenate([self.fine_m, slow_m[good]])
        self.fine_b = np.concatenate([self.fine_b, slow_b[good]])
        self.fine_t = np.concatenate([self.fine_t, slow_t[good]])
        self.fine_y = np.concatenate([self.fine_y, slow_y[good]])
        self.fine_n = np.concatenate([self.fine_n, slow_n[good]])

    def _coarsen(self) -> None:
        half = FINE_SAMPLES // 2 // COARSE_GROUP * COARSE_GROUP
        times = self.clock().times
        old_t, old_y = times[:half].reshape(-1, COARSE_GROUP), self.fine_y[:half].reshape(-1, COARSE_GROUP)
        old_b, self.fine_b = self.fine_b[:half].reshape(-1, COARSE_GROUP), self.fine_b[half:]
        self.coarse_b = np.concatenate([self.coarse_b, old_b.mean(axis=1)])[-COARSE_SAMPLES:]
        old_m, self.fine_m = self.fine_m[:half].reshape(-1, COARSE_GROUP), self.fine_m[half:]
        self.coarse_m = np.concatenate([self.coarse_m, old_m.mean(axis=1)])[-COARSE_SAMPLES:]
        self.fine_t, self.fine_y, self.fine_n = self.fine_t[half:], self.fine_y[half:], self.fine_n[half:]
        self.coarse_t = np.concatenate([self.coarse_t, old_t.mean(axis=1)])[-COARSE_SAMPLES:]
        self.coarse_y = np.concatenate([self.coarse_y, old_y.mean(axis=1)])[-COARSE_SAMPLES:]

    def retune(self, clock: FrameClock) -> None:
        """Choose the filter again if the measured frame rate differs much from that of the first frames."""
        if not self._seen_s() > MIN_CLOCK_S or math.isnan(clock.period_s):
            return
        wanted = decimation_for(1.0 / clock.period_s)
        if not 0.6 < wanted / self.decimator.decimation < 1.7:
            self.fps = 1.0 / clock.period_s
            self.decimator, self.background_decimator = Decimator(wanted), Decimator(wanted)
            self.motion_decimator = Decimator(wanted)

    def camera_fps(self) -> float:
        """Return the measured frame rate (1/s) if it differs by more than 0.2 % from the nominal one, else that."""
        period_s = self.clock().period_s
        if self._seen_s() < 2.0 * MIN_CLOCK_S or math.isnan(period_s):
            return self.stated_fps
        return 1.0 / period_s if abs(period_s * self.stated_fps - 1.0) > 0.002 else self.stated_fps

    def _seen_s(self) -> float:
        """Return the time in s from the first to the last fine sample."""
        return float(self.fine_t[-1] - self.fine_t[0]) if len(self.fine_t) else 0.0

    def clock(self) -> FrameClock:
        """Return the corrected times of the fine samples."""
        newest = (len(self.fine_t), float(self.fine_t[-1]) if len(self.fine_t) else 0.0)
        known = _CLOCKS.get(self)
        if known is None or known[0] != newest:
            known = _CLOCKS[self] = newest, corrected_times(self.fine_t, self.fine_n)
        return known[1]

    def raw_since(self, time_s: float) -> tuple[F64, F64]:
        """Return the samples at the frame rate from ``time_s`` on, of the last 30 s: (t, y); y may hold NaN."""
        keep = self.raw_t >= time_s
        return self.raw_t[keep], self.raw_y[keep]

    def since(self, time_s: float) -> tuple[F64, F64]:
        """Return the samples from ``time_s`` on, without those of unknown time: (t, y)."""
        t, y, _ = self.with_background_since(time_s)
        return t, y

    def with_background_since(self, time_s: float) -> tuple[F64, F64, F64]:
        """Return the samples from ``time_s`` on with their background: (t, y, background)."""
        t = np.concatenate([self.coarse_t, self.clock().times])
        y, background = (
            np.concatenate(p) for p in ((self.coarse_y, self.fine_y), (self.coarse_b, self.fine_b))
        )
        keep = t >= time_s  # False for NaN
        return t[keep], y[keep], background[keep]

    def with_motion_since(self, time_s: float) -> tuple[F64, F64, F64]:
        """Return the samples from ``time_s`` on with the effect of the spot's motion: (t, y, motion)."""
        t = np.concatenate([self.coarse_t, self.clock().times])
        y, motion = (np.concatenate(p) for p in ((self.coarse_y, self.fine_y), (self.coarse_m, self.fine_m)))
        keep = t >= time_s  # False for NaN
        return t[keep], y[keep], motion[keep]


_CLOCKS: WeakKeyDictionary[IntensityTrace, tuple[tuple[int, float], FrameClock]] = WeakKeyDictionary()
"""Corrected times of each trace with the number and time of its newest sample: one update uses them several times."""


def rate_from_times(times: F64, stated_fps: float) -> float:
    """Return the frame rate of the first frames if their times are even and plausible, else the nominal rate."""
    steps = np.diff(times)
    if len(steps) < 2 or not steps.min() > 0 or steps.max() > 3.0 * steps.min():
        return stated_fps
    fps = 1.0 / float(np.median(steps))
    # A much higher rate than the nominal one is a burst after a stall.
    return fps if 1.0 / 64.0 < fps / stated_fps < 4.5 else stated_fps
