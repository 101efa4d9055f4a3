"""The orientation that a camera wrote into a JPEG or PNG image (EXIF, tag 274)."""

from __future__ import annotations

import struct
from typing import Final

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3


def exif_orientation(data: bytes) -> int:
    """Return 1 to 8, as EXIF defines them; 1, as it is stored, if the image does not state it or states nonsense."""
    block = _png_block(data) if data.startswith(b"\x89PNG") else _jpeg_block(data)
    try:
        return _of_tiff(block)
    except (struct.error, IndexError):
        return 1


def _jpeg_block(data: bytes) -> bytes:
    """Return the EXIF data of a JPEG: its segment APP1, which lies before the pixels."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", data, at + 2)
        if data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + length]
        at += 2 + length
    return b""


def _png_block(data: bytes) -> bytes:
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] == b"eXIf":
            return data[at + 8 : at + 8 + length]
        at += 12 + length
    return b""


def _of_tiff(block: bytes) -> int:
    end = {b"II": "<", b"MM": ">"}.get(block[:2])
    if end is None:
        return 1
    (start,) = struct.unpack_from(f"{end}I", block, 4)
    (count,) = struct.unpack_from(f"{end}H", block, start)
    for number in range(count):
        tag, kind, _, value = struct.unpack_from(f"{end}HHIH", block, start + 2 + 12 * number)
        if tag == _ORIENTATION and kind == _SHORT and 1 <= value <= 8:
            return int(value)
    return 1
