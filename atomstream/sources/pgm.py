"""PGM images (Netpbm P2 and P5). Their numbers are counts: the maximum in the header never scales them.

FFmpeg and others scale each file by its own maximum, so that the brightness would change from frame to frame.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import numpy as np

from atomstream.errors import ConfigError

from .av_pixels import Picture
from .damage import FrameDamage
from .pixels import PixelFormat

_GAP: Final = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER: Final = re.compile(
    rb"P([25])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)(?:#[^\n\r]*)?\s"
)

_LONGEST_HEADER: Final = 4096
"""Bytes at the beginning of the file that are searched for the header; comments count."""


def maximum(path: Path) -> int:
    """Return the maximum in the header of a PGM image: above 255, its pixels have 16 bits."""
    with path.open("rb") as file:
        return int(_header(path, file.read(_LONGEST_HEADER))[4])


def read_pgm(path: Path, *, deep: bool = False) -> Picture:
    """Read one PGM image, as uint16 if its maximum is above 255 or if ``deep``.

    Programs that write each file with its own maximum use 8 bits for the dark frames of a 12-bit camera; ``deep``
    gives all frames one type. Raises :class:`FrameDamage` for a damaged file, :class:`ConfigError` for several images
    in one.
    """
    data = path.read_bytes()
    match = _header(path, data)
    width, height, top = (int(match[number]) for number in (2, 3, 4))
    dtype = np.dtype(np.uint8 if top < 256 else ">u2")
    if match[1] == b"5":
        size = width * height * dtype.itemsize
        body = data[match.end() : match.end() + size]
        if len(body) < size:
            raise FrameDamage(f"it ends after {len(body)} of {size} bytes of pixels", path.name, len(data))
        samples = np.frombuffer(body, dtype)
        if _HEADER.match(data[match.end() + size :].lstrip()):
            raise ConfigError(f"{path} holds several images; in a folder each file is one frame")
    else:
        try:
            samples = np.array(data[match.end() :].split(), dtype=np.int64).astype(dtype)
        except ValueError as error:
            raise FrameDamage(f"its pixels are not numbers ({error})", path.name) from error
        if samples.size < width * height:
            raise FrameDamage(
                f"it ends after {samples.size} of {width * height} pixels", path.name, len(data)
            )
        samples = samples[: width * height]
    samples = samples.astype(np.uint16) if deep else samples
    return Picture(PixelFormat(samples.dtype), samples.reshape(height, width))


def _header(path: Path, data: bytes) -> re.Match[bytes]:
    match = _HEADER.match(data)
    if match is None:
        raise FrameDamage("it has no header of PGM (P2 or P5)" if data else "the file is empty", path.name, 0)
    width, height, top = (int(match[number]) for number in (2, 3, 4))
    if not (0 < top < 65536 and width and height):
        raise ConfigError(f"{path} can't be read as PGM: {width}x{height} pixels with a maximum of {top}")
    return match
