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

_PNG_HEADER: Final = struct.Struct(">16xIIBBxxB")
"""Width, height, bits of a sample, kind of colour, and whether the rows are interlaced."""

_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel, for each kind of colour."""

_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row and their steps, of the pictures that make up an interlaced one."""

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
    pixels: list[bytes] = []
    while True:
        if position + 12 > len(data):
            return "the PNG is cut off: it has no end chunk"
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return "the PNG is cut off: it has no end chunk"
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return f"the checksum of the PNG's {kind.decode('latin-1')!r} chunk differs"
        if kind == b"IDAT":
            pixels.append(data[position + 8 : end])
        if kind == b"IEND":
            return _why_png_pixels(data, pixels)
        position = end + 4


def _why_png_pixels(data: bytes, parts: list[bytes]) -> str:
    """Return why compressed pixels of a PNG are incomplete: decoders leave the missing rows black, without an error."""
    expected = _png_bytes(data)
    unpacker, found = zlib.decompressobj(), 0
    try:
        for part in parts:
            found += len(unpacker.decompress(part))
    except zlib.error as error:
        return f"the pixels of the PNG can't be unpacked ({error})"
    return "" if found >= expected else f"the PNG has {found} of {expected} bytes of pixels"


def _png_bytes(data: bytes) -> int:
    """Return how many bytes the pixels of a PNG have, each row with the byte of its filter; 0 without a header."""
    if len(data) < _PNG_HEADER.size:
        return 0
    width, height, bits, colour, interlaced = _PNG_HEADER.unpack_from(data)
    per_pixel = bits * _PNG_SAMPLES.get(colour, 0)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + (columns * per_pixel + 7) // 8) for columns, rows in sizes if columns > 0 < rows)
