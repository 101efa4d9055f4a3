"""Changes of the illumination (exposure, gain, beam shutter): detected as events and removed from the trace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.fading import FADED, BrightPictures, FadeDetector
from atomstream.analysis.pictures import dim_pixels
from atomstream.records import Frames
from atomstream.results import F32, F64, Event, Int

SAMPLE_PIXELS = 5000
"""Largest number of pixels per sampled or binned picture, about."""

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
"""Largest relative difference between a new light level and an earlier one that count as the same level."""

RETURN_PARTS = 4
"""Number of parts of 0.25 s: light counts as back at a new level when it rose by less than 3 % over them."""

KNOWN_LEVELS = 8
"""Number of light levels that are stored."""

DARK = 0.05
"""Below this factor the light is off."""


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
    light is off or still comes back: light that comes back slowly makes no step. Light that goes out slowly is found
    by ``fading``; ``bright_factor`` is the light of its bright pictures. ``return_factors`` are the last levels of
    light that comes back, each the mean of 0.25 s, and ``return_sum`` (P,) is the sum of ``return_frames`` pictures of
    the next one.

    A step less than 0.25 s before missing frames is examined with the frames after them. Until then ``open_step_s`` is
    its time in s, else NaN.

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
    open_step_s: float = math.nan
    return_factors: list[float] = field(default_factory=list)
    return_sum: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    return_frames: int = 0
    fading: FadeDetector = field(default_factory=FadeDetector)
    bright_factor: float | None = None

    @property
    def is_steady(self) -> bool:
        """True if the light is on and no step is being examined."""
        return not self.dark and not self.steps

    def flush(self) -> tuple[CorrectedTrace, list[Event]]:
        """Return the samples that are still delayed: frames are missing after them, or the stream ends."""
        none = np.empty(0)
        corrected, events = self.feed(none, none, none, self.pictures[:0], is_last=True)
        if math.isfinite(self.open_step_s):
            self.t, self.y, self.motion, self.pictures = none, none, none, self.pictures[:0]
            self.done, self.searched, self.steps = 0, 2, [0]
        return corrected, events

    def feed(
        self, t: F64, y: F64, motion: F64, pictures: F32, *, is_last: bool = False
    ) -> tuple[CorrectedTrace, list[Event]]:
        """Add samples t (s), y and motion (N,) with their sampled pictures (N, P).

        Returns the corrected samples that are now complete, with ``is_last`` all of them, and new events.
        """
        if self.pictures.shape[1:] != pictures.shape[1:]:
            self.pictures = pictures[:0]
            self.dim_pixels = dim_pixels(pictures.mean(axis=0))
        self.t, self.y = np.concatenate([self.t, t]), np.concatenate([self.y, y])
        self.motion = np.concatenate([self.motion, motion])
        self.pictures = np.concatenate([self.pictures, pictures])
        self._find_steps()
        if is_last:
            self._find_last_step()
        first, usable = self.done, np.full(len(self.t), math.nan)
        events = self._decide(usable, is_last)
        cut = slice(first, self.done)
        scale = usable[cut]
        background = self.pictures[cut][:, self.dim_pixels].mean(axis=1, dtype=np.float64)
        corrected = CorrectedTrace(
            self.t[cut].copy(), self.y[cut] / scale, background / scale, self.motion[cut].copy()
        )
        self._remove_old_frames()
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
        limit = self._limit()
        for i in range(1, len(at) - 1):
            # A step also appears at its neighbours. A change of the opposite sign is another step: the end of a dip.
            same = [j for j in (i - 1, i + 1) if change[i] * change[j] > 0]
            if abs(change[i]) > limit and all(_is_stronger(change, jump, i, j) for j in same):
                self.steps.append(int(at[i]))
        self.searched = last + 1

    def _limit(self) -> float:
        """Return the least change of ln(mean of a picture) that is a step."""
        return MIN_STEP + 6.0 * float(np.median(self.recent_changes)) / 0.6745

    def _find_last_step(self) -> None:
        """Append a step in the last two frames, which are compared with those before because none follow."""
        before = self.searched - 2
        if (
            len(self.t) <= self.searched
            or len(self.recent_changes) == 0
            or max(self.steps, default=0) > before
        ):
            return
        b = np.log(self.pictures[before:].mean(axis=1, dtype=np.float64) + 1e-3)
        differs = np.abs(b[2:] - 0.5 * (b[0] + b[1])) > self._limit()
        if differs.any():
            self.steps.append(self.searched + int(np.argmax(differs)))

    def _decide(self, usable: F64, is_last: bool) -> list[Event]:
        """Advance ``done`` over the frames whose light is known; write the gain of the usable ones to ``usable``."""
        events: list[Event] = []
        known = len(self.t) if is_last else max(self.done, len(self.t) - DELAY_FRAMES)
        while True:
            at = self.steps[0] if self.steps else known
            events += self._accept(at, usable, is_before_step=bool(self.steps))
            if not self.steps:
                return events
            end = self.steps[1] if len(self.steps) > 1 else known
            is_short = end - at < max(DELAY_FRAMES, SETTLED_S * self.fps)
            if is_short and len(self.steps) == 1:
                if is_last:  # the light after the missing frames shows whether it is a step or a drop-out
                    self.open_step_s = (
                        self.open_step_s if math.isfinite(self.open_step_s) else float(self.t[at])
                    )
                    self.done = known
                return events
            self.steps.pop(0)
            events += self._examine(at, end, is_short, usable)

    def _accept(self, end: int, usable: F64, *, is_before_step: bool) -> list[Event]:
        """Mark the frames from ``done`` to ``end`` as usable with the present gain; return a slow return of the light.

        While it is dark they are not usable.
        """
        start, self.done = self.done, max(self.done, end)
        if end <= start:
            return []
        if self.dark:
            return self._watch_return(start, end)
        usable[start:end] = self.gain
        if is_before_step:
            usable[end - 1] = math.nan  # the light may have changed within its exposure
            end -= 1
        if end <= start:
            return []
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
        return self._watch_fading(float(self.t[end - 1]))

    def _watch_fading(self, time_s: float) -> list[Event]:
        """Return an event if the light went out slowly; the pictures before that are the steady ones again."""
        share = self._bright_share(self.steady)
        now = BrightPictures(self.steady, self.reference, self.variance, self.gain)
        is_out = self.fading.feed(now, time_s, share)
        if self.fading.bright is now:
            self.bright_factor = _light_factor(now.reference, now.steady, now.variance, self.saturation)
        if not is_out:
            return []
        self._light_went_off()
        return [Event(time_s, "dark", "the light went out slowly", share)]

    def _bright_share(self, picture: F32) -> float | None:
        """Return the light of a picture relative to the last bright one; None if it is not known."""
        bright = self.fading.bright
        if bright is None:
            return None
        new = _light_factor(bright.reference, picture, bright.variance, self.saturation)
        return new / self.bright_factor if new is not None and self.bright_factor else None

    def _light_went_off(self) -> None:
        """Note that the light is off. If it went out slowly, the last bright pictures are the steady ones again."""
        self.dark = True
        bright, share = self.fading.bright, self._bright_share(self.steady)
        if bright is not None and share is not None and share < FADED:
            self.steady, self.reference, self.variance = bright.steady, bright.reference, bright.variance
            self.gain = bright.gain

    def _watch_return(self, start: int, end: int) -> list[Event]:
        """Add the frames from ``start`` to ``end`` in which the light is off; return an event if it has come back."""
        total = self.pictures[start:end].sum(axis=0)
        self.return_sum = self.return_sum + total if self.return_frames else total
        self.return_frames += end - start
        if self.return_frames < SETTLED_S * self.fps:
            return []
        factor = self._factor(self.return_sum / np.float32(self.return_frames)) or 0.0
        self.return_factors, self.return_frames = [*self.return_factors[-RETURN_PARTS:], factor], 0
        parts = 2 if self._is_known(factor) else RETURN_PARTS + 1
        compared = self.return_factors[-parts:]
        if len(compared) < parts or factor < DARK or factor > (1.0 + SAME_LEVEL) * compared[0]:
            return []
        return [self._light_came_back(float(self.t[end - 1]), factor)]

    def _light_came_back(self, time_s: float, factor: float) -> Event:
        """End the darkness with light of a ``factor`` relative to that before it; return the event."""
        self.dark, self.return_factors, self.return_frames = False, [], 0
        before, self.gain = self.gain, self._level(self.gain * factor)
        self.steady = self.steady[:0]
        return Event(time_s, "light", "the light came back", self.gain / before)

    def _has_come_back(self, factor: float, first: int, end: int) -> bool:
        """Return True if the light of the frames from ``first`` to ``end`` has a known level and does not rise.

        Otherwise it may still come back.
        """
        middle = (first + end) // 2
        if not self._is_known(factor) or middle == first:
            return self._is_known(factor)
        early, late = (
            self._factor(self.pictures[a:b].mean(axis=0)) for a, b in ((first, middle), (middle, end))
        )
        return early is None or late is None or late < (1.0 + MIN_STEP) * early

    def _examine(self, at: int, end: int, is_short: bool, usable: F64) -> list[Event]:
        """Find the light level of the frames from a step ``at`` to ``end`` and return the events."""
        first = (
            at + 1 if end - at > 2 else at
        )  # the light may have changed within the exposure of the first frame
        picture = self.pictures[first : min(end, first + CONTEXT_FRAMES)].mean(axis=0)
        factor = self._factor(picture)
        time = self.open_step_s if math.isfinite(self.open_step_s) else float(self.t[at])
        self.open_step_s = math.nan
        least = MIN_STEP if is_short else 0.5 * MIN_STEP
        if factor is None or (abs(math.log(max(factor, 1e-9))) <= least and not self.dark):
            self.done = max(self.done, first)
            return []
        if is_short:
            self.done = max(self.done, end)
            if self.dark:
                return []
            length = float(self.t[min(end, len(self.t) - 1)]) - time
            text = f"the light changed by a factor of {factor:.3g} for {length:.2g} s"
            return [Event(time, "dropout", text, factor)]
        is_out = factor < DARK or (not self.dark and self.fading.is_out(picture, self._bright_share(picture)))
        if is_out or (self.dark and not self._has_come_back(factor, first, end)):
            self.done = max(self.done, at + 1)
            if self.dark:
                return []
            self._light_went_off()
            return [Event(time, "dark", "the light went out", factor)]
        self.done = max(self.done, first)
        if self.dark:
            return [self._light_came_back(time, factor)]
        before, self.gain = self.gain, self._level(self.gain * factor)
        self.steady, factor = self.steady[:0], self.gain / before
        if factor == 1.0:
            return []
        return [Event(time, "exposure", f"the light changed by a factor of {factor:.3g}", factor)]

    def _factor(self, picture: F32) -> float | None:
        """Return the light of a picture relative to the last steady one; None without contrast."""
        if not len(self.steady) or not len(self.reference):
            return None
        new = _light_factor(self.reference, picture, self.variance, self.saturation)
        old = _light_factor(self.reference, self.steady, self.variance, self.saturation)
        return new / old if new is not None and old else None

    def _is_known(self, factor: float) -> bool:
        """Return True if light of a ``factor`` relative to the last steady one has a known level."""
        return factor > 0 and self._nearest_level(self.gain * factor) is not None

    def _nearest_level(self, gain: float) -> float | None:
        """Return the known level that equals a gain within the error, None if there is none."""
        nearest = min(self.levels, key=lambda level: abs(math.log(level / gain)))
        return nearest if abs(math.log(nearest / gain)) < SAME_LEVEL else None

    def _level(self, gain: float) -> float:
        """Return the known level nearest to a gain if both agree within the error; else store the gain as a new
        level."""
        nearest = self._nearest_level(gain)
        found = gain if nearest is None else nearest
        self.levels = [*(level for level in self.levels if level != found), found][-KNOWN_LEVELS:]
        return found

    def _remove_old_frames(self) -> None:
        """Remove the frames that are not needed as context any more."""
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
        if keep.all():
            break
        x, y, weights = x[keep], y[keep], weights[keep]
    return max(0.0, slope) if slope is not None else None
