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
from .pixels import PixelFormat

_GAP: Final = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER: Final = re.compile(
    rb"P([25])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)(?:#[^\n\r]*)?\s"
)


def read_pgm(path: Path) -> Picture:
    """Read one PGM image; with a maximum above 255 as uint16. Raises :class:`ConfigError` for a damaged one."""
    data = path.read_bytes()
    match = _HEADER.match(data)
    if match is None:
        raise ConfigError(f"{path} can't be read as PGM: its header is not that of P2 or P5")
    width, height, top = (int(match[number]) for number in (2, 3, 4))
    if not (0 < top < 65536 and width and height):
        raise ConfigError(f"{path} can't be read as PGM: {width}x{height} pixels with a maximum of {top}")
    dtype = np.dtype(np.uint8 if top < 256 else ">u2")
    if match[1] == b"5":
        size = width * height * dtype.itemsize
        body = data[match.end() : match.end() + size]
        if len(body) < size:
            raise ConfigError(
                f"{path} can't be read as PGM: it ends after {len(body)} of {size} bytes of pixels"
            )
        samples = np.frombuffer(body, dtype)
    else:
        try:
            samples = np.array(data[match.end() :].split(), dtype=np.int64).astype(dtype)
        except ValueError as error:
            raise ConfigError(f"{path} can't be read as PGM: {error}") from error
        if samples.size < width * height:
            raise ConfigError(
                f"{path} can't be read as PGM: it ends after {samples.size} of {width * height} pixels"
            )
        samples = samples[: width * height]
    return Picture(PixelFormat(dtype), samples.reshape(height, width))
