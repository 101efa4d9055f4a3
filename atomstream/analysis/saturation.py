"""Saturated pixels of the specular spot, of the user's boxes and of the whole picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.grey_levels import MIN_CLIPPED, MIN_FRAMES, MIN_RATIO, MIN_VALUES, NEAR_SHARE
from atomstream.records import Frames
from atomstream.results import Measurement, measured

KEPT_S = 5.0
"""Decay time of a share in s: only the maxima of an oscillation clip, so the largest of the last seconds counts."""

SPOT, PICTURE = "specular", "picture"

FULL_SCALES = frozenset(((1 << bits) - 1) << shift for bits in range(8, 17) for shift in range(17 - bits))
"""Largest values of sensors of 8 to 16 bits in uint16, with the bits at the lower or at the upper end."""


@dataclass(slots=True)
class FullScale:
    """Recognises the full scale of a sensor in uint16 from whole pictures, wherever pixels reach it.

    ``level`` is the recognised grey level, ``maximum`` (of the data type) until there is one, and again when a pixel
    exceeds it. ``count`` is the number of pictures so far that are clipped at ``found``.
    """

    maximum: int = 255
    level: int = 255
    found: int = 0
    count: int = 0

    @classmethod
    def for_frames(cls, frames: Frames) -> FullScale:
        """Make a detector for the data type of ``frames``."""
        maximum = int(np.iinfo(frames.dtype).max)
        return cls(maximum, maximum)

    def add(self, picture: Frames) -> None:
        """Add a picture (H, W)."""
        top = int(picture.max(initial=0))
        if top > self.level:
            self.level = self.maximum
        if top >= self.maximum or top not in FULL_SCALES or top == self.level:
            return
        at_top = int(np.count_nonzero(picture == top))
        near = int(np.count_nonzero(picture >= top - max(1.0, NEAR_SHARE * top))) - at_top
        values = len(np.unique(picture[:: max(1, len(picture) // 64)]))
        if at_top < MIN_CLIPPED or at_top <= MIN_RATIO * near or values < MIN_VALUES:
            return
        self.count = self.count + 1 if top == self.found else 1
        self.found = top
        if self.count >= MIN_FRAMES:
            self.level = top


@dataclass(slots=True)
class Saturation:
    """Largest recent share of saturated pixels by region (``specular``, ``picture``, the user's boxes), 0 to 1.

    ``scale`` finds the full scale in whole pictures, ``dtype`` is that of the frames.
    """

    scale: FullScale = field(default_factory=FullScale)
    shares: dict[str, float] = field(default_factory=dict)
    dtype: str = "uint8"

    @classmethod
    def for_frames(cls, frames: Frames) -> Saturation:
        """Make a tracker for the data type of ``frames``."""
        return cls(FullScale.for_frames(frames), {}, frames.dtype.name)

    @property
    def spot(self) -> float:
        """Share of the specular region."""
        return self.shares.get(SPOT, 0.0)

    def add_picture(self, picture: Frames, level: int, elapsed_s: float) -> None:
        """Count the saturated pixels of a whole picture (H, W), ``elapsed_s`` after the one before."""
        self.scale.add(picture)
        share = float(np.count_nonzero(picture >= min(level, self.scale.level)) / max(1, picture.size))
        self.update({PICTURE: share}, elapsed_s)

    def update(self, shares: dict[str, float], elapsed_s: float) -> None:
        """Update the shares of regions, measured over ``elapsed_s``."""
        kept = math.exp(-elapsed_s / KEPT_S)
        for name, share in shares.items():
            self.shares[name] = max(share, kept * self.shares.get(name, 0.0))

    def keep_only(self, boxes: set[str]) -> None:
        """Remove the shares of boxes that do not exist any more."""
        self.shares = {name: share for name, share in self.shares.items() if name in boxes | {SPOT, PICTURE}}

    def values(self, level: int) -> dict[str, Measurement]:
        """Return the shares, and the grey level from which a pixel counts as saturated."""
        seen = level < self.scale.maximum
        note = "seen in the pictures" if seen else f"the largest value of {self.dtype}"
        values = {"saturated_fraction": measured(self.spot, None, "1")}
        values["saturated_picture"] = measured(self.shares.get(PICTURE, 0.0), None, "1")
        for name, share in self.shares.items():
            if name not in (SPOT, PICTURE):
                values[f"saturated:{name}"] = measured(share, None, "1")
        values["clip_level"] = measured(float(level), None, "counts", note)
        return values
