"""Did the pattern change? Drift-corrected, normalised pictures; clusters with lasting ids; a CUSUM on what is new.

Incremental principal components of the recent pictures take growth oscillation and trend out. While the substrate
rotates, a picture is the mean of a whole turn, which depends on no azimuth. The threshold follows from a stated
false-alarm interval by Siegmund's approximation of the average run length (Sequential Analysis, 1985).
The idea of clustering RHEED pictures: Vasudevan et al., ACS Nano 8, 10899 (2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from atomstream.analysis.arrays import F32, F64
from atomstream.analysis.clusters import Clusters
from atomstream.analysis.components import Components
from atomstream.analysis.cusum import Cusum
from atomstream.analysis.events import Event
from atomstream.analysis.fast import bin_factor

PIXELS = 5000
HISTORY = 40
SETTLE = 6
"""Pictures of which one knows what they brought anew, before a change can be told from the usual."""

DELAY = 5
"""Pictures that wait before they are learned: components that followed a change at once would hide it."""

USUAL = 16
"""Pictures whose novelty is the usual: the first ones, when all was new, are soon out of it."""

LEAST_LOG = 0.25
"""Least spread of the log of what is new: 28 % more of it is no change, however quiet the camera."""

JUMP = 0.012
"""1 - correlation of successive pictures from which a lasting difference is a change even without a baseline."""

SETTLED = 6
"""Quiet pictures after a jump: more than there are in a period whose pictures differ that much."""


@dataclass(slots=True)
class ChangeTracker:
    """Follows the picture. ``score`` is 1 - correlation with the recent past (0: the same, 1: nothing in common)."""

    false_alarm_s: float = 3600.0
    times: F64 = field(default_factory=lambda: np.empty(0))
    recent: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    waiting: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    components: Components = field(default_factory=lambda: Components(HISTORY))
    outside: F64 = field(default_factory=lambda: np.empty(0))
    score: float = math.nan
    clusters: Clusters = field(default_factory=Clusters)
    cusum: Cusum = field(default_factory=Cusum)
    cluster: int = -1
    distance: float = math.nan
    quiet_until: float = -math.inf
    before_jump: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    jumped_at: float = math.nan
    peak: float = 0.0
    calm: int = 0

    def feed(self, now: float, picture: F32, moved: tuple[float, float]) -> list[Event]:
        """Take in a mean picture (H, W) whose pattern has ``moved`` (y, x) px since the start; return changes."""
        vector = normalised(picture, moved)
        if vector is None:
            return []
        if self.recent.shape[1:] != vector.shape:
            self._begin_with(vector[None][:0])
        self.cluster, self.distance = self.clusters.assign(vector)
        if len(self.times) == 0:
            self._remember(now, vector)
            return []
        usual = self.recent.mean(axis=0)
        self.score = 1.0 - _correlation(vector, usual)
        jump = self._jump(now, vector, usual)
        found = jump | self._drifted(vector)
        self._remember(now, vector)
        if not found or now < self.quiet_until:
            return []
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1.0
        self.quiet_until = now + 4.0 * step
        self.cusum.reset()
        self.before_jump = self.before_jump[:0]
        self._begin_with(self.recent)
        return [Event(self.jumped_at if jump else now, "change", "the pattern changed", self.score)]

    def restart(self) -> None:
        """Forget the baseline: the light changed, and with it the noise of the pictures."""
        self.cusum.reset()
        self._begin_with(self.recent[:0])
        self.before_jump = self.before_jump[:0]

    def _begin_with(self, pictures: F32) -> None:
        """Make the last pictures (N, P) the whole baseline."""
        self.times, self.recent = self.times[len(self.times) - len(pictures) :], pictures
        self.waiting = pictures[:0]
        self.components, self.outside = Components(HISTORY), self.outside[:0]
        for vector in pictures:
            self.components.learn(vector)

    def _remember(self, now: float, vector: F32) -> None:
        self.times = np.append(self.times, now)[-HISTORY:]
        self.recent = np.concatenate([self.recent, vector[None]])[-2:]
        self.waiting = np.concatenate([self.waiting, vector[None]])
        if len(self.waiting) > DELAY or self.components.weight < 2:
            self.components.learn(self.waiting[0])
            self.waiting = self.waiting[1:]

    def _jump(self, now: float, vector: F32, usual: F32) -> bool:
        """Whether the picture jumped, has settled since, and is not what it was before.

        This needs no baseline, and growth does not do it: an oscillation as large does not settle.
        """
        if len(self.before_jump) == 0:
            if self.score > JUMP:
                self.before_jump, self.peak, self.jumped_at, self.calm = usual.copy(), self.score, now, 0
            return False
        if self.score > self.peak:
            self.peak, self.jumped_at = self.score, now
        self.calm = self.calm + 1 if self.score < 0.25 * self.peak else 0
        if self.calm < SETTLED:
            return False
        stays = 1.0 - _correlation(vector, self.before_jump) > JUMP
        self.before_jump = vector[:0]
        return stays

    def _drifted(self, vector: F32) -> bool:
        """Whether pictures leave what the recent ones span: a new direction, or further than ever along an old one.

        Growth oscillates within few components; it is no change of the pattern.
        """
        if self.components.weight < 1.5:
            return False
        here, distance = self.components.split(vector)
        usual, away = self.outside, math.log(distance + 1e-12)
        self.outside = np.append(usual, away)[-USUAL:]
        if len(usual) < SETTLE:
            return False
        middle = float(np.median(usual))
        spread = max(1.4826 * float(np.median(np.abs(usual - middle))), LEAST_LOG)
        # less that is new, as the components learn, is no change
        tests = [max((away - middle) / spread, -1.0)]
        low, high = self.components.past.min(axis=0), self.components.past.max(axis=0)
        # noise leaves the range now and then; the trend of a slow growth does at each picture, a little
        beyond = np.maximum(here - high, 0.0) - np.maximum(low - here, 0.0)
        tests += [float(e) for e in beyond[:2] / (0.25 * (high - low)[:2] + 1e-9)]
        step = float(np.median(np.diff(self.times)))
        return self.cusum.feed(np.array(tests), self.false_alarm_s / max(step, 1e-6))


def normalised(picture: F32, moved: tuple[float, float]) -> F32 | None:
    """Binned to about 5000 px, shifted back, zero mean and unit length: (P,); None for an even picture."""
    factor = bin_factor(picture.shape[0], picture.shape[1], PIXELS)
    height, width = (n // factor * factor for n in picture.shape)
    small = (
        picture[:height, :width].reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))
    )
    if max(abs(m) for m in moved) > 0.02 * factor:
        small = ndimage.shift(small, (-moved[0] / factor, -moved[1] / factor), order=1, mode="nearest")
    vector = small.ravel() - small.mean()
    length = float(np.linalg.norm(vector))
    return None if length < 1e-6 else (vector / length).astype(np.float32)


def _correlation(a: F32, b: F32) -> float:
    norm = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0
