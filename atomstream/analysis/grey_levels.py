"""Grey levels of the camera: the level at which the sensor clips, and pictures with inverted greys."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.records import Frames

NEAR_SHARE = 0.02
"""Width of the band below the largest value, as a share of it, with which the pixels at that value are compared."""

MIN_CLIPPED = 6
"""Fewest pixels at the largest value of a clipped spot. The peak of a sharp spot has up to four."""

MIN_RATIO = 2.0
"""Least ratio, in a clipped spot, of the number of pixels at the largest value to that in the band below it."""

MIN_FRAMES = 2
"""Fewest frames that are clipped at the same level. Blocks are joined until they have as many frames."""

MIN_VALUES = 12
"""Fewest different grey levels of a camera's picture: drawings with a few flat areas are not clipped."""


@dataclass(slots=True)
class ClipDetector:
    """Recognises at which grey level the sensor clips, from the pixels of the spot, at any time.

    A clipped spot has many pixels at exactly the largest value, and few just below it. Sensors of 10 to 16 bits in
    uint16, and those whose full well lies below the converter's range, clip at any value. ``level`` is the smallest
    grey level that counts as clipped: ``maximum``, that of the data type, until a lower one is recognised, and again
    when a pixel exceeds that. ``highest`` is the largest value of the last ``frames`` frames, those since the last
    decision, and ``clipped`` how many of them are clipped, by level.
    """

    maximum: int = 255
    level: int = 255
    highest: int = 0
    frames: int = 0
    clipped: dict[int, int] = field(default_factory=dict)

    @classmethod
    def for_frames(cls, frames: Frames) -> ClipDetector:
        """Make a detector for the data type of ``frames``."""
        maximum = int(np.iinfo(frames.dtype).max)
        return cls(maximum, maximum)

    def add(self, crops: Frames) -> None:
        """Add the pixels (N, h, w) of the next frames."""
        if crops.size == 0:
            return
        self.frames += len(crops)
        pixels = crops.reshape(len(crops), -1)
        tops = pixels.max(axis=1)
        self.highest = max(self.highest, int(tops.max()))
        at_top = (pixels == tops[:, None]).sum(axis=1)
        for i in np.flatnonzero(at_top >= MIN_CLIPPED):
            top = int(tops[i])
            near = np.count_nonzero(pixels[i] >= top - max(1.0, NEAR_SHARE * top)) - int(at_top[i])
            if at_top[i] > MIN_RATIO * near and len(np.unique(pixels[i])) >= MIN_VALUES:
                self.clipped[top] = self.clipped.get(top, 0) + 1

    def end_block(self) -> int:
        """Decide at the end of a block and return ``level``; a single frame is decided together with the next one."""
        if self.frames < MIN_FRAMES:
            return self.level
        if self.highest > self.level:
            self.level = self.maximum
        if self.clipped.get(self.highest, 0) >= MIN_FRAMES:
            self.level = self.highest
        self.highest, self.frames, self.clipped = 0, 0, {}
        return self.level


def white_level(frames: Frames) -> int:
    """Return the largest value of the camera of frames (N, H, W): 255, or 2^bits - 1 of the bits in use."""
    if frames.dtype == np.uint8:
        return 255
    return int((1 << max(8, int(frames.max(initial=0)).bit_length())) - 1)


def inverted(frames: Frames, white: int) -> Frames:
    """Return frames (N, H, W) with inverted greys; values above ``white`` become 0."""
    top = frames.dtype.type(white)
    turned: Frames = top - np.minimum(frames, top)
    return turned
