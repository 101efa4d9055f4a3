"""One frame as a picture for a screen: 8 bit, at most 640 px wide, read from where it is stored.

Pictures are not tapped from ingest: a stored frame is decoded once more (1-2 ms, out of the page cache) only
while somebody looks, at most ten times a second; so ingest never knows whether it is watched.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from atomstream.records import Frames

MAX_WIDTH = 640
MAX_HEIGHT = 1280
HEADER = struct.Struct("<d6I")
"""time (s, NaN where unknown), frame, width, height, the frame's own width and height, full scale."""
_BITS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A frame made small: ``pixels`` (h, w) uint8, of which 255 stands for the camera's full scale ``level``."""

    frame: int
    time_s: float
    pixels: npt.NDArray[np.uint8]
    full_size: tuple[int, int]
    level: int

    def to_bytes(self) -> bytes:
        """:data:`HEADER`, then the rows."""
        (height, width), (full_height, full_width) = self.pixels.shape, self.full_size
        head = HEADER.pack(self.time_s, self.frame, width, height, full_width, full_height, self.level)
        return head + self.pixels.tobytes()


def make_picture(frame: int, time_s: float, raw: Frames, level: int = 0) -> Picture:
    """The picture of ``raw`` (H, W) uint8 or uint16; ``level`` is the full scale found so far (0: none)."""
    step = max(-(-raw.shape[1] // MAX_WIDTH), -(-raw.shape[0] // MAX_HEIGHT))
    level = max(level, full_scale(raw))
    small = binned(raw, step)
    if level != 255:
        small = np.minimum(small.astype(np.float32) * (255.0 / level), 255.0)
    pixels = np.ascontiguousarray(small, dtype=np.uint8)
    return Picture(frame, time_s, pixels, (raw.shape[0], raw.shape[1]), level)


def binned(raw: Frames, step: int) -> Frames:
    """Means of ``step`` x ``step`` pixels (or of the whole frame); rows and columns left over are dropped."""
    if step == 1:
        return raw
    down, across = min(step, raw.shape[0]), min(step, raw.shape[1])
    height, width = raw.shape[0] // down, raw.shape[1] // across
    total = np.zeros((height, width), dtype=np.uint32)
    for y in range(down):
        for x in range(across):
            total += raw[y::down, x::across][:height, :width]
    mean = (total // (down * across)).astype(raw.dtype)
    return cast("Frames", mean)


def full_scale(raw: Frames) -> int:
    """The full scale of a camera that shows such values: 255, or for uint16 the next of 8 to 16 bits."""
    if raw.dtype == np.uint8:
        return 255
    top = int(raw.max(initial=0))
    return next((1 << bits) - 1 for bits in _BITS if top < 1 << bits)
