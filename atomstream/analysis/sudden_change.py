"""Detection of changes within a few frames: successive streak profiles are compared with what they usually differ by.

The pictures of :mod:`~atomstream.analysis.change` are half a second apart; a change that is over by then, or a stream
of a few frames, needs the frames themselves. A change begins when two successive profiles differ much more than those
before. It is reported when the profiles are even again and still differ from those before. Growth and the pulses of a
laser change mostly the specular spot, the light all of the picture: profiles are compared without the spot, normalised
and aligned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.pattern import Pattern
from atomstream.analysis.pictures import MAX_HIDDEN, bridge, hidden_part
from atomstream.results import F32, F64, Event

SAMPLES_HZ = 30.0
"""Largest rate, about, at which profiles are compared; faster cameras: means of several frames."""

MAX_BINS = 320
"""Largest number of bins of a profile, about."""

MAX_SHIFT_SHARE = 0.04
"""Largest shift that is taken out, as a share of the profile's width."""

JUMP = 0.008
"""1 - correlation of successive profiles that begins a change without any earlier profiles to compare with."""

LASTING = 0.012
"""Least 1 - correlation of the profiles before and after a change."""

LASTING_WITH_LIGHT = 0.05
"""Least 1 - correlation of the profiles before and after a change during which the light changed. It is larger, because
clipped pixels do not follow the light."""

MIN_USUAL = 6
"""Fewest differences from which the usual one is known."""

USUAL_SAMPLES = 24
"""Number of last differences that define the usual one."""

BEGIN_RATIO, LASTING_RATIO = 5.0, 4.0
"""A change begins when successive profiles differ by BEGIN_RATIO times the usual difference; it counts only if the
profiles before and after it differ by LASTING_RATIO times the usual difference."""

EVEN_SHARE = 0.25
"""A change ends when :data:`EVEN_SAMPLES` successive profiles differ by less than this share of its largest
difference."""

EVEN_SAMPLES = 4
"""Number of successive profiles whose differences are below :data:`EVEN_SHARE` that ends a change."""

LONGEST = 60
"""Number of profiles after which a change ends in any case."""


@dataclass(slots=True)
class SuddenChangeTracker:
    """Follows the profiles of a stream; lengths are in bins.

    ``recent`` (<= 4, P) are the last profiles, ``usual`` (<= 24,) the last differences outside of changes. While a
    change goes on, ``before`` (P,) is the profile before it, ``peak`` its largest difference and ``peak_s`` the time of
    this, ``samples`` the number of profiles since it began and ``even`` that of the last even ones,
    ``least`` the least difference from the profile before the change that is reported. ``was_even`` is True if
    successive profiles agreed before the change.
    """

    recent: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    usual: F64 = field(default_factory=lambda: np.empty(0))
    last_s: float = 0.0
    before: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    peak_s: float = math.nan
    peak: float = 0.0
    samples: int = 0
    even: int = 0
    least: float = LASTING
    was_even: bool = False

    def feed(self, times: F64, profiles: F32, pattern: Pattern, fps: float) -> list[Event]:
        """Add the profiles (N, W) of a block at ``times`` (N,) in s; return the changes that have ended."""
        group = max(1, round(fps / SAMPLES_HZ))
        events = []
        for first in range(0, len(profiles), group):
            part = slice(first, first + group)
            line = comparable(profiles[part].mean(axis=0, dtype=np.float64), pattern)
            if line is not None:
                events += self._add(float(times[part].mean()), line)
        return events

    @property
    def goes_on(self) -> bool:
        """True while a change goes on."""
        return len(self.before) > 0

    def restart(self) -> None:
        """Discard the profiles: the light changed, or frames are missing."""
        self.recent, self.before = self.recent[:0], self.before[:0]
        self.usual, self.least = self.usual[:0], LASTING

    def light_changed(self, is_dark: bool) -> None:
        """Allow for clipped pixels after a step of the light; discard the profiles if the light went out."""
        if is_dark:
            self.restart()
        elif self.goes_on:
            self.least = LASTING_WITH_LIGHT

    def finish(self) -> list[Event]:
        """Return the change that still goes on at the end of the stream."""
        return self._end() if self.goes_on else []

    def _add(self, now: float, line: F32) -> list[Event]:
        if self.recent.shape[1:] != line.shape:
            self.restart()
            self.recent = line[None][:0]
        if len(self.recent) == 0:
            self.recent, self.last_s = line[None], now
            return []
        difference, middle_s = 1.0 - float(self.recent[-1] @ line), 0.5 * (now + self.last_s)
        begins = self._begins(difference)
        if self.goes_on or begins:
            # The alignment is the costly part, and most profiles agree without it.
            difference = distance(self.recent[-1], line)
            begins = self._begins(difference)
        older, self.last_s = self.recent, now
        self.recent = np.concatenate([self.recent[1 - EVEN_SAMPLES :], line[None]])
        if not self.goes_on:
            if not begins:
                self.usual = np.append(self.usual, difference)[-USUAL_SAMPLES:]
                return []
            self.was_even = len(self.usual) >= MIN_USUAL
            self.before, self.peak, self.samples, self.even = older.mean(axis=0), 0.0, 0, 0
        self.samples += 1
        if difference > self.peak:
            self.peak, self.peak_s = difference, middle_s
        self.even = self.even + 1 if difference < EVEN_SHARE * self.peak else 0
        return self._end() if self.even >= EVEN_SAMPLES or self.samples >= LONGEST else []

    def _begins(self, difference: float) -> bool:
        if len(self.usual) < MIN_USUAL:
            return difference > JUMP
        return difference > BEGIN_RATIO * float(np.median(self.usual))

    def _end(self) -> list[Event]:
        after = self.recent[-max(1, self.even) :].mean(axis=0)
        moved = distance(self.before, after)
        noise = distance(self.recent[-2], self.recent[-1]) if self.even else 0.0
        self.before, self.usual = self.before[:0], self.usual[:0]
        least, self.least = self.least, LASTING
        if self.even < EVEN_SAMPLES and not self.was_even:
            return []  # profiles that always change, as those of a rotating pattern
        if moved < least or moved < LASTING_RATIO * noise:
            return []
        return [Event(self.peak_s, "change", "the pattern changed", moved)]


def comparable(profile: F64, pattern: Pattern) -> F32 | None:
    """Return a profile (W,) without the specular spot, with zero mean and unit norm: (P,). None without contrast."""
    bins = max(1, round(len(profile) / MAX_BINS))
    count = len(profile) // bins
    if count < 16:
        return None
    line = profile[: count * bins].reshape(count, bins).mean(axis=1)
    hidden = hidden_part(pattern.x, pattern.fwhm_x, count, bins, MAX_HIDDEN * len(profile))
    bridge(line[None], slice(None), hidden)
    line -= line.mean()
    length = float(np.linalg.norm(line))
    return (line / length).astype(np.float32) if length > 1e-6 else None


def distance(one: F32, other: F32) -> float:
    """Return 1 - correlation of two profiles (P,) of about unit norm, at the best of small shifts."""
    reach = max(2, round(MAX_SHIFT_SHARE * len(one)))
    edge = np.zeros(reach, np.float32)
    scores = np.correlate(np.concatenate([edge, one, edge]), other, "valid")
    best = min(max(int(np.argmax(scores)), 1), 2 * reach - 1)
    before, top, after = (float(s) for s in scores[best - 1 : best + 2])
    bend = before - 2.0 * top + after
    top -= 0.125 * (before - after) ** 2 / bend if bend < 0.0 else 0.0
    norm = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return max(0.0, 1.0 - top / norm) if norm > 0 else 1.0
