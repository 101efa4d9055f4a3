"""Changes of the illumination (exposure, gain, beam shutter): detected as events and removed from the trace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Int

SAMPLE_PIXELS = 5000
"""Largest number of pixels per sampled picture, about."""

DELAY_FRAMES = 4
"""Delay in frames: a step is detected from two frames on each side of it, so that mains hum cancels."""

SETTLED_S = 0.25
"""Shortest time, in s, for which the light must stay at a new level. A shorter change is a drop-out or a flash."""

CONTEXT_FRAMES = 8
"""Number of frames whose mean is the picture before and after a step."""

REFERENCE_S = 3.0
"""Time constant of the reference picture."""

MIN_STEP = 0.04
"""Smallest relative step of the light that is detected."""

SAME_LEVEL = 0.03
"""Largest relative difference to an earlier light level that is taken for a return to it."""

KNOWN_LEVELS = 8
"""Number of light levels that are remembered."""

DARK = 0.05
"""Below this factor the light is off."""

DIM_FRACTION = 0.4
"""Share of the picture's pixels, the dimmest, that are taken as background."""


def sampled_pixels(height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns of the sampled pixels of a picture (H, W)."""
    stride = max(1, math.ceil(math.sqrt(height * width / SAMPLE_PIXELS)))
    return slice(stride // 2, None, stride), slice(stride // 2, None, stride)


def sample_picture(frames: Frames) -> F32:
    """Return every k-th pixel of frames (N, H, W) as (N, P) float32, at most about 5000 per frame."""
    rows, columns = sampled_pixels(*frames.shape[1:])
    sampled = frames[:, rows][:, :, columns]
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
    growth). The frames after it wait until the light has been steady for 0.25 s, or has changed again: a shorter change
    is a drop-out, whose samples become NaN. The factor of a step is the ratio of two regression slopes: of the new
    picture and of the last steady one, both on a slowly averaged ``reference``. So neither the camera's offset nor a
    drop-out between them matters. ``gain`` is the present level relative to the first one. A level that returns within
    3 % of one in ``levels`` is that one, so factors of repeated steps do not add up errors. ``dark`` is True while the
    light is off.

    Frames are delayed in ``t``, ``y``, ``motion`` and ``pictures``; the first ``done`` of them were returned already.
    ``steps`` are the frames at which the light steps, ``searched`` the first frame that was not searched for one.
    ``variance`` (P,) is that of the pixels about the reference, ``steady`` the mean of the last steady pictures.
    """

    saturation: float
    fps: float
    gain: float = 1.0
    dark: bool = False
    levels: list[float] = field(default_factory=lambda: [1.0])
    t: F64 = field(default_factory=lambda: np.empty(0))
    y: F64 = field(default_factory=lambda: np.empty(0))
    motion: F64 = field(default_factory=lambda: np.empty(0))
    pictures: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    done: int = 0
    searched: int = 2
    steps: list[int] = field(default_factory=list)
    reference: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    variance: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    steady: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    recent_changes: F64 = field(default_factory=lambda: np.empty(0))
    dim_pixels: Int = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def is_steady(self) -> bool:
        """True if the light is on and no step is being examined."""
        return not self.dark and not self.steps

    def flush(self) -> tuple[CorrectedTrace, list[Event]]:
        """Return the samples that are still delayed: frames are missing after them, or the stream ends."""
        none = np.empty(0)
        return self.feed(none, none, none, self.pictures[:0], is_last=True)

    def feed(
        self, t: F64, y: F64, motion: F64, pictures: F32, *, is_last: bool = False
    ) -> tuple[CorrectedTrace, list[Event]]:
        """Add samples t (s), y and motion (N,) with their sampled pictures (N, P).

        Returns the corrected samples that are now complete, with ``is_last`` all of them, and new events.
        """
        if self.pictures.shape[1:] != pictures.shape[1:]:
            self.pictures = pictures[:0]
            self.dim_pixels = np.argsort(pictures.mean(axis=0))[
                : max(1, round(DIM_FRACTION * pictures.shape[1]))
            ]
        self.t, self.y = np.concatenate([self.t, t]), np.concatenate([self.y, y])
        self.motion = np.concatenate([self.motion, motion])
        self.pictures = np.concatenate([self.pictures, pictures])
        self._find_steps()
        first, usable = self.done, np.full(len(self.t), math.nan)
        events = self._decide(usable, is_last)
        cut = slice(first, self.done)
        scale = usable[cut]
        background = self.pictures[cut][:, self.dim_pixels].mean(axis=1, dtype=np.float64)
        corrected = CorrectedTrace(
            self.t[cut].copy(), self.y[cut] / scale, background / scale, self.motion[cut].copy()
        )
        self._forget()
        return corrected, events

    def _find_steps(self) -> None:
        """Append the new frames at which the light steps to ``steps``."""
        b = np.log(self.pictures.mean(axis=1, dtype=np.float64) + 1e-3)
        last = len(b) - 3  # the last frame that has two frames on each side of its change and of the next one
        if last < self.searched:
            return
        at = np.arange(self.searched - 1, last + 2)
        before, after = b[at - 1] + b[np.maximum(at - 2, 0)], b[at] + b[np.minimum(at + 1, len(b) - 1)]
        change, jump = 0.5 * (after - before), np.abs(b[at] - b[at - 1])
        self.recent_changes = np.concatenate([self.recent_changes, np.abs(change[1:-1])])[-240:]
        limit = MIN_STEP + 6.0 * float(np.median(self.recent_changes)) / 0.6745
        for i in range(1, len(at) - 1):
            # A step also appears at its neighbours. A change of the opposite sign is another step: the end of a dip.
            same = [j for j in (i - 1, i + 1) if change[i] * change[j] > 0]
            if abs(change[i]) > limit and all(_is_stronger(change, jump, i, j) for j in same):
                self.steps.append(int(at[i]))
        self.searched = last + 1

    def _decide(self, usable: F64, is_last: bool) -> list[Event]:
        """Advance ``done`` over the frames whose light is known; write the gain of the usable ones to ``usable``."""
        events: list[Event] = []
        known = len(self.t) if is_last else max(self.done, len(self.t) - DELAY_FRAMES)
        while True:
            at = self.steps[0] if self.steps else known
            self._accept(at, usable, is_before_step=bool(self.steps))
            if not self.steps:
                return events
            end = self.steps[1] if len(self.steps) > 1 else known
            is_short = end - at < max(DELAY_FRAMES, SETTLED_S * self.fps)
            if is_short and len(self.steps) == 1 and not is_last:
                return events
            self.steps.pop(0)
            events += self._examine(at, end, is_short, usable)

    def _accept(self, end: int, usable: F64, *, is_before_step: bool) -> None:
        """Mark the frames from ``done`` to ``end`` as usable with the present gain."""
        start, self.done = self.done, max(self.done, end)
        if self.dark or end <= start:
            return
        usable[start:end] = self.gain
        if is_before_step:
            usable[end - 1] = math.nan  # the light may have changed within its exposure
            end -= 1
        if end <= start:
            return
        self.steady = _averaged(
            self.steady, self.pictures[start:end].mean(axis=0), (end - start) / CONTEXT_FRAMES
        )
        mean = self.pictures[start:end].mean(axis=0) / np.float32(self.gain)
        share = (end - start) / (REFERENCE_S * self.fps)
        if len(self.reference):
            self.variance = _averaged(self.variance, (mean - self.reference) ** 2, share)
        else:
            self.variance = np.zeros_like(mean)
        self.reference = _averaged(self.reference, mean, share)

    def _examine(self, at: int, end: int, is_short: bool, usable: F64) -> list[Event]:
        """Find the light level of the frames from a step ``at`` to ``end`` and return the events."""
        first = (
            at + 1 if end - at > 2 else at
        )  # the light may have changed within the exposure of the first frame
        factor = self._factor(self.pictures[first : min(end, first + CONTEXT_FRAMES)].mean(axis=0))
        time = float(self.t[at])
        if factor is None or (abs(math.log(max(factor, 1e-9))) <= 0.5 * MIN_STEP and not self.dark):
            self.done = max(self.done, first)
            return []
        if is_short:
            self.done = max(self.done, end)
            if self.dark:
                return []
            length = float(self.t[min(end, len(self.t) - 1)]) - time
            text = f"the light changed by a factor of {factor:.2g} for {length:.2g} s"
            return [Event(time, "dropout", text, factor)]
        if factor < DARK:
            self.done = max(self.done, at + 1)
            if self.dark:
                return []
            self.dark = True
            return [Event(time, "dark", "the light went out", factor)]
        self.done = max(self.done, first)
        was_dark, self.dark = self.dark, False
        before, self.gain = self.gain, self._level(self.gain * factor)
        self.steady, factor = self.steady[:0], self.gain / before
        if not was_dark and factor == 1.0:
            return []
        if was_dark:
            return [Event(time, "light", "the light came back", factor)]
        return [Event(time, "exposure", f"the light changed by a factor of {factor:.3g}", factor)]

    def _factor(self, picture: F32) -> float | None:
        """Return the light of a picture relative to the last steady one; None without contrast."""
        if not len(self.steady) or not len(self.reference):
            return None
        new = _light_factor(self.reference, picture, self.variance, self.saturation)
        old = _light_factor(self.reference, self.steady, self.variance, self.saturation)
        return new / old if new is not None and old else None

    def _level(self, gain: float) -> float:
        """Return the known level next to a gain if they are equal within the error, else remember the gain."""
        nearest = min(self.levels, key=lambda level: abs(math.log(level / gain)))
        found = nearest if abs(math.log(nearest / gain)) < SAME_LEVEL else gain
        self.levels = [*(level for level in self.levels if level != found), found][-KNOWN_LEVELS:]
        return found

    def _forget(self) -> None:
        """Forget the frames that are not needed as context any more."""
        drop = max(0, min(self.done, self.searched - 2))
        self.t, self.y, self.motion = self.t[drop:], self.y[drop:], self.motion[drop:]
        self.pictures = self.pictures[drop:]
        self.done, self.searched = self.done - drop, self.searched - drop
        self.steps = [step - drop for step in self.steps]


def _is_stronger(change: F64, jump: F64, i: int, j: int) -> bool:
    """Return True if a step is at ``i`` rather than at its neighbour ``j``: by the change, if equal by the jump.

    The changes of both are nearly equal where the step lies within the exposure of one frame, and in a dip of one
    frame.
    """
    ratio = abs(change[i]) / max(abs(change[j]), 1e-12)
    return bool(ratio > 1.2 or (ratio > 1.0 / 1.2 and jump[i] >= jump[j]))


def _averaged(mean: F32, new: F32, frames: float) -> F32:
    """Return an exponential mean with the mean of ``frames`` new pictures, in units of the time constant."""
    return mean + np.float32(1.0 - math.exp(-frames)) * (new - mean) if len(mean) else new


def _light_factor(old: F32, new: F32, variance: F32, saturation: float) -> float | None:
    """Return the factor between two pictures (P,) by robust weighted regression; None without contrast.

    Clipped pixels do not count. Pixels whose ``variance`` (P,) is large count little: growth changes the spots.
    """
    good = (old < 0.98 * saturation) & (new < 0.98 * saturation)
    if good.sum() < 16:
        return None
    x, y = old[good].astype(np.float64), new[good].astype(np.float64)
    usual = float(np.median(variance)) + 1e-3
    weights = (usual / (variance[good].astype(np.float64) + usual)) ** 2
    slope = None
    for _ in range(4):
        total = float(weights.sum())
        spread = x - float(weights @ x) / total
        power = float(weights @ spread**2)
        if len(x) < 16 or power < 0.25 * total:
            return slope
        slope = float((weights * spread) @ y) / power
        # Hot pixels do not follow the light, and they are the brightest.
        miss = np.abs(y - float(weights @ y) / total - slope * spread)
        keep = miss <= max(6.0 * float(np.median(miss)), 1e-6)
        x, y, weights = x[keep], y[keep], weights[keep]
    return max(0.0, slope) if slope is not None else None
