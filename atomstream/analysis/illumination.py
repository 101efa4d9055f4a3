"""Steps of the light (exposure, gain, a shutter in the beam): events, told from signal and taken out of traces."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.varpro import MAX_POINTS, cut_window, harmonics, rotation_points
from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Int

SAMPLE_PIXELS = 5000

TAIL = 4
"""Frames held back: a step is told from two frames on each side of it, so that mains hum cancels."""

MIN_STEP = 0.04

DARK = 0.05

DIM_SHARE = 0.4
"""Part of the picture, its dimmest, that shows what the light does rather than the film."""


def sample_picture(frames: Frames) -> F32:
    """Take every k-th pixel of frames (N, H, W): at most about 5000 a frame, (N, P) float32."""
    stride = max(1, math.ceil(math.sqrt(frames.shape[1] * frames.shape[2] / SAMPLE_PIXELS)))
    sampled = frames[:, stride // 2 :: stride, stride // 2 :: stride]
    return sampled.reshape(len(frames), -1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedTrace:
    """Samples with the light's steps divided out, each (N,): times in s, the trace, the picture's dim part."""

    t: F64
    y: F64
    background: F64


@dataclass(slots=True)
class IlluminationTracker:
    """Streams a trace through, dividing out steps of the light; dark stretches become NaN.

    A step is a change of the whole picture between two frames, by more than the picture changes by itself (hum,
    rotation, growth). Its factor is the slope of the new picture against the old one, so a camera's offset does not
    enter.
    """

    saturation: float
    gain: float = 1.0
    dark: bool = False
    tail_t: F64 = field(default_factory=lambda: np.empty(0))
    tail_y: F64 = field(default_factory=lambda: np.empty(0))
    pictures: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    before: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    recent: F64 = field(default_factory=lambda: np.empty(0))
    dim: Int = field(default_factory=lambda: np.empty(0, np.int64))

    def feed(self, t: F64, y: F64, pictures: F32) -> tuple[CorrectedTrace, list[Event]]:
        """Add a trace's samples with their sampled pictures (N, P); return corrected samples and events."""
        if self.pictures.shape[1:] != pictures.shape[1:]:
            self.pictures = pictures[:0]
            self.dim = np.argsort(pictures.mean(axis=0))[: max(1, round(DIM_SHARE * pictures.shape[1]))]
        self.tail_t, self.tail_y = np.concatenate([self.tail_t, t]), np.concatenate([self.tail_y, y])
        self.pictures = np.concatenate([self.pictures, pictures])
        ready = len(self.tail_t) - TAIL
        if ready <= 0:
            return CorrectedTrace(np.empty(0), np.empty(0), np.empty(0)), []
        events: list[Event] = []
        background = self.pictures[:, self.dim].mean(axis=1, dtype=np.float64)
        both = np.stack([self.tail_y, background[len(background) - len(self.tail_y) :]])
        done = 0
        for at in self._steps(ready):
            self._correct(both[:, done:at])
            events += self._take_step(at)
            done = at
        self._correct(both[:, done:ready])
        times = self.tail_t[:ready].copy()
        self._keep(ready)
        return CorrectedTrace(times, both[0, :ready], both[1, :ready]), events

    def _correct(self, part: F64) -> None:
        part /= math.nan if self.dark else self.gain

    def _steps(self, ready: int) -> list[int]:
        """Frames (of the tail, below ``ready``) at which the light steps."""
        b = np.log(self.pictures.mean(axis=1, dtype=np.float64) + 1e-3)
        n = len(b)
        if n < TAIL + 1:
            return []
        at = np.arange(2, n - 1)
        change = 0.5 * (b[at] + b[at + 1] - b[at - 1] - b[at - 2])
        usual = np.concatenate([self.recent, np.abs(change)])
        limit = MIN_STEP + 6.0 * float(np.median(usual)) / 0.6745
        self.recent = usual[-240:]
        jump = np.abs(b[at] - b[at - 1])
        found = [
            int(at[i])
            for i in np.flatnonzero(np.abs(change) > limit)
            if jump[i] >= 0.7 * jump[max(0, i - 2) : i + 3].max()
        ]
        return [k for j, k in enumerate(found) if k < ready and (j == 0 or k > found[j - 1] + 1)]

    def _take_step(self, at: int) -> list[Event]:
        old = self.before if self.dark else self.pictures[max(0, at - 8) : at].mean(axis=0)
        new = self.pictures[at : at + TAIL].mean(axis=0)
        factor = _slope(old, new, self.saturation)
        if factor is None:
            return []
        time = float(self.tail_t[at])
        if factor < DARK:
            if self.dark:
                return []
            self.dark, self.before = True, old
            return [Event(time, "dark", "the light went out", factor)]
        was_dark, self.dark = self.dark, False
        if abs(math.log(factor)) > 0.5 * MIN_STEP:
            self.gain *= factor
        elif not was_dark:
            return []
        if was_dark:
            return [Event(time, "light", "the light came back", factor)]
        return [Event(time, "exposure", f"the light changed by a factor of {factor:.3g}", factor)]

    def _keep(self, ready: int) -> None:
        # eight frames before the tail stay, for the picture before a step
        self.tail_t, self.tail_y = self.tail_t[ready:], self.tail_y[ready:]
        self.pictures = self.pictures[ready:]


def _slope(old: F32, new: F32, saturation: float) -> float | None:
    """Factor between two pictures by robust regression over unclipped pixels; None where there is no contrast."""
    good = (old < 0.98 * saturation) & (new < 0.98 * saturation)
    if good.sum() < 16:
        return None
    x, y = old[good].astype(np.float64), new[good].astype(np.float64)
    slope = None
    for _ in range(4):
        spread = x - x.mean()
        power = float(spread @ spread)
        if len(x) < 16 or power < 0.25 * len(x):
            return slope
        slope = float(spread @ y) / power
        # hot pixels do not follow the light, and they are the brightest
        miss = np.abs(y - y.mean() - slope * spread)
        keep = miss <= max(6.0 * float(np.median(miss)), 1e-6)
        x, y = x[keep], y[keep]
    return max(0.0, slope) if slope is not None else None


# Is it the film that oscillates, or the light: does the background brighten and dim with the spot?
#
# Mains hum and a shutter change the whole picture by one factor, and a camera slower than twice the mains shows the hum
# at any slow frequency. Growth changes the spot; the background between the streaks hardly, and mostly against it.

LIGHT_SHARE = 0.35
"""Background's relative amplitude, in phase with the spot's, over the spot's: a camera's dark level leaves of the 1 of
hum some 0.7; growth has next to none."""

THE_LIGHT = "the whole picture brightens and dims with the spot: beam, mains hum or a shutter, not the film"


def light_share(t: F64, y: F64, background: F64, fit: varpro.Fit, rotation_hz: float) -> float:
    """How much of the oscillation ``fit`` of a spot's trace ``y`` (N,) at ``t`` (s) is in its background too: 0 to 1.

    Both are fitted at the fitted frequency and decay; the ratio of the relative amplitudes that are in phase.
    """
    span = fit.cycles / fit.frequency
    points = rotation_points(fit.frequency, span) if rotation_hz else MAX_POINTS
    columns = []
    for trace in (y, background):
        window = cut_window(t, trace / max(float(np.abs(trace).mean()), 1e-12), span, rotation_hz, points)
        basis = varpro.design(window.t, fit.frequency, fit.decay, varpro.Model(1, False))
        turning = harmonics(window.t, rotation_hz)
        basis = basis if turning is None else np.concatenate([basis, turning], axis=1)
        a, b = np.linalg.lstsq(basis, window.y, rcond=1e-6)[0][2:4]
        columns.append(complex(a, -b))
    spot, light = columns
    share = (light * spot.conjugate()).real / max(abs(spot) ** 2, 1e-300)
    return share if math.isfinite(share) else 0.0
