"""The geometry of raw pixels as a caller states it: ``WxH[xPIXEL][+HEADER[+EACH]]``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .packed import LAYOUTS, Layout

HELP: Final = (
    "WxH[xPIXEL][+HEADER], such as 640x480x16+640: columns, rows, the pixel (8, 10 to 16 bits in two bytes with the "
    f"low one first, with 'be' the high one first, or packed as {', '.join(LAYOUTS)}), and the bytes before the pixels"
)

_FORM: Final = re.compile(r"(\d+)[x*](\d+)(?:[x*](?:mono|y)?(\w+?))?(?:\+(\d+))?(?:\+(\d+))?", re.IGNORECASE)
_WORDS: Final = re.compile(r"(\d+)(be|le)?")


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the bytes of a raw file become frames."""

    height: int
    width: int
    bits: int
    """Bits of a pixel that are used."""
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    """Type of a stored pixel; uint8 for the bytes of a packed one."""
    packed: Layout | None
    header: int
    """Bytes before the first frame; before each frame in files that hold a header for each."""
    each: int | None
    """Bytes before each frame, if they are given apart from the header."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        pixels = self.height * self.width
        return pixels * self.dtype.itemsize if self.packed is None else self.packed.frame_bytes(pixels)

    @property
    def item(self) -> tuple[int, ...]:
        """Shape of one stored frame: (H, W), or (bytes,) if it is packed."""
        return (self.height, self.width) if self.packed is None else (self.frame_bytes,)

    @property
    def sample(self) -> np.dtype[Any]:
        """Type of the pixels that :meth:`pixels` returns."""
        return self.dtype if self.packed is None else np.dtype(np.uint16)

    def pixels(self, name: str, block: npt.NDArray[Any], first: int) -> npt.NDArray[Any]:
        """Return pixels (n, H, W) of stored frames (n, ...), of which ``first`` is the number of the first one.

        Raises :class:`ConfigError` for values above the largest one of the stated bits.
        """
        if self.packed is not None:
            return self.packed.frames(block, self.height, self.width)
        top = (1 << self.bits) - 1
        if self.bits not in (8, 16) and int(block.max(initial=0)) > top:
            frame = first + int(np.argmax((block > top).any(axis=tuple(range(1, block.ndim)))))
            raise ConfigError(
                f"{name}: frame {frame} has a pixel of {int(block[frame - first].max())}, but "
                f"pixels of {self.bits} bits are at most {top}: state the right pixel by --geometry (16 accepts all)"
            )
        return block


def parse_geometry(text: str) -> Geometry:
    """Return the geometry that ``text`` states. Raises :class:`ConfigError` for other forms and sizes."""
    found = _FORM.fullmatch(text.strip().replace("×", "x"))
    if found is None:
        raise ConfigError(f"geometry (--geometry) is {text!r}; its form is {HELP}")
    width, height, pixel, header, each = found.groups()
    bits, dtype, packed = _pixel(text, (pixel or "8").casefold())
    geometry = Geometry(
        int(height), int(width), bits, dtype, packed, int(header or 0), None if each is None else int(each)
    )
    if not geometry.height or not geometry.width:
        raise ConfigError(f"geometry (--geometry) is {text!r}; a frame has at least one row and one column")
    return geometry


def _pixel(text: str, pixel: str) -> tuple[int, np.dtype[np.uint8] | np.dtype[np.uint16], Layout | None]:
    if pixel in LAYOUTS:
        return LAYOUTS[pixel].bits, np.dtype(np.uint8), LAYOUTS[pixel]
    words = _WORDS.fullmatch(pixel)
    if words is not None:
        bits = int(words[1])
        if bits == 8 and not words[2]:
            return 8, np.dtype(np.uint8), None
        if 9 <= bits <= 16:
            return bits, np.dtype(">u2" if words[2] == "be" else "<u2"), None
    raise ConfigError(f"geometry (--geometry) {text!r} has the pixel {pixel!r}; its form is {HELP}")
