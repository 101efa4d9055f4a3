"""Changes of the illumination (exposure, gain, beam shutter): detected as events and removed from the trace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.varpro import MAX_POINTS, cut_window, rotation_harmonics, rotation_points
from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Int

SAMPLE_PIXELS = 5000
"""Largest number of pixels per sampled picture, about."""

DELAY_FRAMES = 4
"""Delay in frames: a step is detected from two frames on each side of it, so that mains hum cancels."""

MIN_STEP = 0.04
"""Smallest relative step of the light that is detected."""

DARK = 0.05
"""Below this factor the light is off."""

DIM_FRACTION = 0.4
"""Share of the picture's pixels, the dimmest, that are taken as background."""


def sample_picture(frames: Frames) -> F32:
    """Return every k-th pixel of frames (N, H, W) as (N, P) float32, at most about 5000 per frame."""
    stride = max(1, math.ceil(math.sqrt(frames.shape[1] * frames.shape[2] / SAMPLE_PIXELS)))
    sampled = frames[:, stride // 2 :: stride, stride // 2 :: stride]
    return sampled.reshape(len(frames), -1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class CorrectedTrace:
    """Samples with the steps of the light divided out, each (N,): times in s, intensity, background.

    ``motion`` is the relative change of the intensity that the spot's displacement alone would cause in a box at
    rest (see :mod:`~atomstream.analysis.motion`); NaN where it is unknown.
    """

    t: F64
    y: F64
    background: F64
    motion: F64


@dataclass(slots=True)
class IlluminationTracker:
    """Divides steps of the light out of a trace; samples without light become NaN. Online, with a delay of 4 frames.

    A step is a change of the whole picture between two frames that is larger than its usual changes (hum, rotation,
    growth). Its factor is the slope of a regression of the new picture on the old one, so the camera's offset does
    not matter. ``gain`` is the product of all factors, ``dark`` is True while the light is off.
    """

    saturation: float
    gain: float = 1.0
    dark: bool = False
    delayed_t: F64 = field(default_factory=lambda: np.empty(0))
    delayed_y: F64 = field(default_factory=lambda: np.empty(0))
    delayed_motion: F64 = field(default_factory=lambda: np.empty(0))
    pictures: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    before_dark: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    recent_changes: F64 = field(default_factory=lambda: np.empty(0))
    dim_pixels: Int = field(default_factory=lambda: np.empty(0, np.int64))

    def feed(self, t: F64, y: F64, motion: F64, pictures: F32) -> tuple[CorrectedTrace, list[Event]]:
        """Add samples t (s), y and motion (N,) with their sampled pictures (N, P).

        Returns the corrected samples that are now complete, and new events.
        """
        if self.pictures.shape[1:] != pictures.shape[1:]:
            self.pictures = pictures[:0]
            self.dim_pixels = np.argsort(pictures.mean(axis=0))[
                : max(1, round(DIM_FRACTION * pictures.shape[1]))
            ]
        self.delayed_t, self.delayed_y = (
            np.concatenate([self.delayed_t, t]),
            np.concatenate([self.delayed_y, y]),
        )
        self.delayed_motion = np.concatenate([self.delayed_motion, motion])
        self.pictures = np.concatenate([self.pictures, pictures])
        ready = len(self.delayed_t) - DELAY_FRAMES
        if ready <= 0:
            return CorrectedTrace(np.empty(0), np.empty(0), np.empty(0), np.empty(0)), []
        events: list[Event] = []
        background = self.pictures[:, self.dim_pixels].mean(axis=1, dtype=np.float64)
        traces = np.stack([self.delayed_y, background[len(background) - len(self.delayed_y) :]])
        start = 0
        for at in self._find_steps(ready):
            self._correct(traces[:, start:at])
            events += self._apply_step(at)
            start = at
        self._correct(traces[:, start:ready])
        times, moved = self.delayed_t[:ready].copy(), self.delayed_motion[:ready].copy()
        self._drop(ready)
        return CorrectedTrace(times, traces[0, :ready], traces[1, :ready], moved), events

    def _correct(self, part: F64) -> None:
        part /= math.nan if self.dark else self.gain

    def _find_steps(self, ready: int) -> list[int]:
        """Return the indices (below ``ready``) of the delayed frames at which the light steps."""
        b = np.log(self.pictures.mean(axis=1, dtype=np.float64) + 1e-3)
        n = len(b)
        if n < DELAY_FRAMES + 1:
            return []
        at = np.arange(2, n - 1)
        change = 0.5 * (b[at] + b[at + 1] - b[at - 1] - b[at - 2])
        usual = np.concatenate([self.recent_changes, np.abs(change)])
        limit = MIN_STEP + 6.0 * float(np.median(usual)) / 0.6745
        self.recent_changes = usual[-240:]
        jump = np.abs(b[at] - b[at - 1])
        found = [
            int(at[i])
            for i in np.flatnonzero(np.abs(change) > limit)
            if jump[i] >= 0.7 * jump[max(0, i - 2) : i + 3].max()
        ]
        return [k for j, k in enumerate(found) if k < ready and (j == 0 or k > found[j - 1] + 1)]

    def _apply_step(self, at: int) -> list[Event]:
        old = self.before_dark if self.dark else self.pictures[max(0, at - 8) : at].mean(axis=0)
        new = self.pictures[at : at + DELAY_FRAMES].mean(axis=0)
        factor = _light_factor(old, new, self.saturation)
        if factor is None:
            return []
        time = float(self.delayed_t[at])
        if factor < DARK:
            if self.dark:
                return []
            self.dark, self.before_dark = True, old
            return [Event(time, "dark", "the light went out", factor)]
        was_dark, self.dark = self.dark, False
        if abs(math.log(factor)) > 0.5 * MIN_STEP:
            self.gain *= factor
        elif not was_dark:
            return []
        if was_dark:
            return [Event(time, "light", "the light came back", factor)]
        return [Event(time, "exposure", f"the light changed by a factor of {factor:.3g}", factor)]

    def _drop(self, ready: int) -> None:
        self.delayed_t, self.delayed_y = self.delayed_t[ready:], self.delayed_y[ready:]
        self.delayed_motion, self.pictures = self.delayed_motion[ready:], self.pictures[ready:]


def _light_factor(old: F32, new: F32, saturation: float) -> float | None:
    """Return the factor between two pictures by robust regression of unclipped pixels; None without contrast."""
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
        # Hot pixels do not follow the light, and they are the brightest.
        miss = np.abs(y - y.mean() - slope * spread)
        keep = miss <= max(6.0 * float(np.median(miss)), 1e-6)
        x, y = x[keep], y[keep]
    return max(0.0, slope) if slope is not None else None


# An oscillation of the light instead of the film: mains hum and a shutter change the whole picture by one factor, and a
# camera slower than twice the mains frequency aliases the hum to any slow frequency. Growth changes the spot, but
# hardly the background between the streaks, and mostly in antiphase.

MAX_LIGHT_SHARE = 0.35
"""Relative amplitude of the background in phase with the spot, over that of the spot: about 0.7 for hum (less than 1
because of the camera's dark level), near 0 for growth."""

LIGHT_OSCILLATES = (
    "the whole picture brightens and dims with the spot: beam, mains hum or a shutter, not the film"
)


def light_share(t: F64, y: F64, background: F64, fit: varpro.Fit, rotation_hz: float) -> float:
    """Return how much of the oscillation ``fit`` of a trace t (s), y (N,) is in its background too, about 0 to 1.

    Both are fitted with the frequency and decay of ``fit``. The result is the ratio of the relative amplitudes, for
    the part that is in phase.
    """
    span = fit.cycles / fit.frequency
    points = rotation_points(fit.frequency, span) if rotation_hz else MAX_POINTS
    columns = []
    for trace in (y, background):
        window = cut_window(t, trace / max(float(np.abs(trace).mean()), 1e-12), span, rotation_hz, points)
        basis = varpro.design(window.t, fit.frequency, fit.decay, varpro.Model(1, False))
        turning = rotation_harmonics(window.t, rotation_hz)
        basis = basis if turning is None else np.concatenate([basis, turning], axis=1)
        a, b = np.linalg.lstsq(basis, window.y, rcond=1e-6)[0][2:4]
        columns.append(complex(a, -b))
    spot, light = columns
    share = (light * spot.conjugate()).real / max(abs(spot) ** 2, 1e-300)
    return share if math.isfinite(share) else 0.0
