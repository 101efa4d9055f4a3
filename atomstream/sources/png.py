"""PNG images: what FFmpeg does not report: the bits of a grey sample, and whether there are several pictures."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from atomstream.errors import ConfigError

from .av_pixels import Picture
from .whole_pictures import PNG_START

_HEADER: Final = struct.Struct(">8xI4sIIBB")
"""Signature, length and name of the first chunk, width, height, bits of a sample, kind of colour."""

_GREY: Final = 0


def png_counts(name: str, data: bytes, picture: Picture) -> Picture:
    """Return the decoded ``picture`` of a PNG with its numbers as they were stored; others are returned unchanged.

    FFmpeg expands grey samples of 2 and 4 bits to 8 bits: by 85 and 17, so that the division is exact. It gives the
    first picture of an animation (APNG) alone. Raises :class:`ConfigError` for those.
    """
    if not data.startswith(PNG_START) or len(data) < _HEADER.size:
        return picture
    *_, bits, colour = _HEADER.unpack_from(data)
    if _animated(data):
        raise ConfigError(
            f"{name} holds several images (an animation); each file is one frame: split it first"
        )
    if colour != _GREY or bits not in (2, 4):
        return picture
    samples = picture.samples // (255 // ((1 << bits) - 1))
    return replace(picture, pixels=replace(picture.pixels, bits=bits), samples=samples)


def _animated(data: bytes) -> bool:
    """Return True if the file states more than one picture, before the first one (chunk ``acTL``)."""
    position = len(PNG_START)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"acTL":
            return length >= 4 and bool(struct.unpack_from(">I", data, position + 8)[0] > 1)
        if kind == b"IDAT":
            return False
        position += 12 + length
    return False
