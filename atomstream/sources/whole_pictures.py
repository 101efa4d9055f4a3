"""Checks whether a compressed picture is complete, from its structure alone.

Decoders fill the rest of a picture that is cut off with grey, often without an error. A JPEG must contain its end
marker, and a PNG its end chunk and the correct checksum of each chunk before it.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

JPEG_START: Final = b"\xff\xd8"
PNG_START: Final = b"\x89PNG\r\n\x1a\n"

_JPEG_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""The next marker in coded data, which is not a stuffed 0xFF 0x00 and not a restart marker (D0 to D7)."""

_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a length: TEM, restarts, start of image."""

_END, _SCAN = 0xD9, 0xDA


def why_not_whole(data: bytes) -> str:
    """Return why a JPEG or PNG is incomplete, empty if it is complete or of another kind."""
    if not data:
        return "the file is empty"
    if data.startswith(JPEG_START):
        return _why_jpeg(data)
    if data.startswith(PNG_START):
        return _why_png(data)
    return ""


def _why_jpeg(data: bytes) -> str:
    position = 2
    scans = 0
    while True:
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            return "the JPEG is cut off: it has no end marker"
        marker = data[found.end() - 1]
        position = found.end()
        if marker == _END:
            return "" if scans else "the JPEG contains no picture"
        if marker in _ALONE:
            continue
        if position + 2 > len(data):
            return "the JPEG is cut off in its header"
        scans += marker == _SCAN
        position += struct.unpack_from(">H", data, position)[0]


def _why_png(data: bytes) -> str:
    position = len(PNG_START)
    while True:
        if position + 12 > len(data):
            return "the PNG is cut off: it has no end chunk"
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return "the PNG is cut off: it has no end chunk"
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return f"the checksum of the PNG's {kind.decode('latin-1')!r} chunk differs"
        if kind == b"IEND":
            return ""
        position = end + 4
