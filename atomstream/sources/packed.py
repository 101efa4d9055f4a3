"""Layouts of 10, 12 and 14 bit pixels in bytes, as cameras deliver and recorders store them.

The names are those of the GenICam Pixel Format Naming Convention (PFNC 2.4) without ``Mono``, of GigE Vision 2.0
(``packed``), and of MIPI CSI-2 (``mipi``). Pixels follow each other over the ends of rows; a frame begins at a full
byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint16]
Groups: TypeAlias = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Layout:
    """A group of ``pixels`` pixels, of ``bits`` bits each, in ``size`` bytes.

    ``unpack`` maps the columns of bytes (size, n) to ``pixels`` columns (n,). ``whole_groups``: an incomplete last
    group has all its bytes; otherwise a frame ends with the byte of its last pixel.
    """

    bits: int
    pixels: int
    size: int
    unpack: Callable[[Groups], list[Groups]]
    whole_groups: bool = False

    def frame_bytes(self, n_pixels: int) -> int:
        """Return the size in bytes of a frame with ``n_pixels`` pixels."""
        groups, rest = divmod(n_pixels, self.pixels)
        if self.whole_groups and rest:
            return (groups + 1) * self.size
        return groups * self.size + -(-rest * self.bits // 8)

    def frames(self, block: npt.NDArray[Any], height: int, width: int) -> Words:
        """Return frames (n, H, W), uint16, of their bytes (n, frame_bytes)."""
        n_pixels = height * width
        out = np.empty((len(block), n_pixels), np.uint16)
        for k, row in enumerate(block):  # one at a time: a frame fits into the cache
            out[k] = self._frame(row, n_pixels)
        return out.reshape(-1, height, width)

    def _frame(self, row: npt.NDArray[Any], n_pixels: int) -> Words:
        groups = -(-n_pixels // self.pixels)
        if len(row) != groups * self.size:
            row = np.pad(row, (0, groups * self.size - len(row)))
        columns = row.reshape(groups, self.size).T.astype(np.uint16)
        pixels = np.empty((groups, self.pixels), np.uint16)
        for k, values in enumerate(self.unpack(columns)):
            pixels[:, k] = values
        return pixels.reshape(-1)[:n_pixels]


def _lsb10(b: Groups) -> list[Groups]:
    return [b[k] >> 2 * k | (b[k + 1] & ((4 << 2 * k) - 1)) << 8 - 2 * k for k in range(4)]


def _lsb12(b: Groups) -> list[Groups]:
    return [b[0] | (b[1] & 15) << 8, b[1] >> 4 | b[2] << 4]


def _lsb14(b: Groups) -> list[Groups]:
    return [
        b[0] | (b[1] & 0x3F) << 8,
        b[1] >> 6 | b[2] << 2 | (b[3] & 0x0F) << 10,
        b[3] >> 4 | b[4] << 4 | (b[5] & 0x03) << 12,
        b[5] >> 2 | b[6] << 6,
    ]


def _msb10(b: Groups) -> list[Groups]:
    return [(b[k] & (0xFF >> 2 * k)) << 2 + 2 * k | b[k + 1] >> 6 - 2 * k for k in range(4)]


def _msb12(b: Groups) -> list[Groups]:
    return [b[0] << 4 | b[1] >> 4, (b[1] & 15) << 8 | b[2]]


def _gige10(b: Groups) -> list[Groups]:
    return [b[0] << 2 | b[1] & 3, b[2] << 2 | b[1] >> 4 & 3]


def _gige12(b: Groups) -> list[Groups]:
    return [b[0] << 4 | b[1] & 15, b[2] << 4 | b[1] >> 4]


def _mipi10(b: Groups) -> list[Groups]:
    return [b[k] << 2 | b[4] >> 2 * k & 3 for k in range(4)]


def _mipi12(b: Groups) -> list[Groups]:
    return [b[0] << 4 | b[2] & 15, b[1] << 4 | b[2] >> 4]


LAYOUTS: Final[dict[str, Layout]] = {
    "10p": Layout(10, 4, 5, _lsb10),
    "12p": Layout(12, 2, 3, _lsb12),
    "14p": Layout(14, 4, 7, _lsb14),
    "10packed": Layout(10, 2, 3, _gige10, whole_groups=True),
    "12packed": Layout(12, 2, 3, _gige12, whole_groups=True),
    "10msb": Layout(10, 4, 5, _msb10),
    "12msb": Layout(12, 2, 3, _msb12),
    "10mipi": Layout(10, 4, 5, _mipi10, whole_groups=True),
    "12mipi": Layout(12, 2, 3, _mipi12, whole_groups=True),
}
"""``p``: the lowest bits first (Mono10p, Mono12p, Mono14p). ``packed``: two pixels in three bytes, the high bits in
the first and third (Mono10Packed, Mono12Packed). ``msb``: the highest bits first, as in TIFF. ``mipi``: the high
bytes of a group, then a byte with the low bits of all."""
