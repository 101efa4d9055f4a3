"""Preview of a camera before a growth: one picture, its histogram, saturated pixels, and the measured frame rate."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from atomstream.cameras.camera import Pixels

BINS: Final = 32
"""Bins of the histogram, from 0 to the largest possible value."""

_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_SHADES: Final = " .:-=+*#%@"


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """How one frame is exposed: ``histogram`` (32,) counts pixels from 0 to ``white``; ``saturated`` is a share."""

    minimum: int
    maximum: int
    mean: float
    white: int
    saturated: float
    histogram: npt.NDArray[np.int64]

    @property
    def bar(self) -> str:
        """The histogram as one line of text, on a logarithmic scale."""
        heights = np.log1p(self.histogram)
        scaled = np.ceil(heights / max(heights.max(), 1e-9) * (len(_BLOCKS) - 1)).astype(int)
        return "".join(_BLOCKS[height] for height in scaled)

    @property
    def advice(self) -> str:
        """What to change, or an empty text: many saturated pixels, or a dark picture."""
        if self.saturated > 1e-4:
            return "pixels are saturated: use a shorter exposure or less gain"
        if self.maximum < self.white // 8:
            return "the picture uses less than an eighth of the range: use a longer exposure or more gain"
        return ""


def exposure_of(frame: Pixels, white: int) -> Exposure:
    """Measure the exposure of one frame (H, W); ``white`` is the value of a saturated pixel."""
    counts, _ = np.histogram(frame, bins=BINS, range=(0, white + 1))
    return Exposure(
        minimum=int(frame.min()),
        maximum=int(frame.max()),
        mean=float(frame.mean()),
        white=white,
        saturated=float(np.count_nonzero(frame >= white) / frame.size),
        histogram=counts.astype(np.int64),
    )


def stretched(frame: Pixels) -> npt.NDArray[np.uint8]:
    """Scale a frame for display: its 0.1th and 99.9th percentile become black and white."""
    low, high = np.percentile(frame, (0.1, 99.9))
    scaled = (frame.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    grey: npt.NDArray[np.uint8] = np.clip(scaled, 0.0, 255.0).astype(np.uint8)
    return grey


def terminal_picture(frame: Pixels, columns: int, *, colours: bool) -> str:
    """Draw a frame with text, ``columns`` wide: half blocks in 24-bit grey if ``colours``, else ASCII shades."""
    height, width = frame.shape
    columns = min(columns, width)
    rows = max(1, round(height / width * columns / (1 if colours else 2)))
    small = _shrunk(stretched(frame), rows + (rows % 2 if colours else 0), columns)
    if not colours:
        shades = small.astype(np.uint16) * len(_SHADES) // 256
        return "\n".join("".join(_SHADES[value] for value in row) for row in shades)
    lines = []
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        cells = [f"\x1b[38;2;{a};{a};{a}m\x1b[48;2;{b};{b};{b}m▀" for a, b in zip(upper, lower, strict=True)]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def _shrunk(frame: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Shrink by means over areas, or repeat pixels where the picture is smaller."""
    height, width = frame.shape
    tops = np.arange(rows) * height // rows
    lefts = np.arange(columns) * width // columns
    sums = np.add.reduceat(np.add.reduceat(frame.astype(np.uint32), tops, axis=0), lefts, axis=1)
    areas = np.maximum(1, np.diff(np.append(tops, height)))[:, None] * np.diff(np.append(lefts, width))
    means: npt.NDArray[np.uint8] = (sums // np.maximum(1, areas)).astype(np.uint8)
    return means


def png(frame: npt.NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit grey picture (H, W) as PNG (ISO/IEC 15948)."""
    height, width = frame.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter type, 0
    lines[:, 1:] = frame
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_part(name, data) for name, data in parts)


def _png_part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
