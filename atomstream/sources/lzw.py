"""LZW strips of TIFF in which codes get longer at another place than TIFF defines.

LZW codes begin with 9 bits, and get a bit longer when the table of sequences is full. TIFF's reader does that one code
before it is full, GIF's when it is full, and some writers do it two codes before: the decoders of libtiff and
imagecodecs take their strips for damaged ones. Such a strip checks itself: read in the wrong way, it does not end with
the end code after exactly the bytes of its rows.
"""

from __future__ import annotations

from typing import Final

_CLEAR, _END, _FIRST = 256, 257, 258
_LONGEST: Final = 12
"""Bits of a code at most."""
_EARLY: Final = (2, 0)
"""Codes before the full table at which codes get longer. 1, which TIFF defines, is what the library reads."""


def decode_other_lzw(strip: bytes, size: int) -> bytes | None:
    """Return the ``size`` bytes of a strip of such a writer; None if it is none, or damaged."""
    for early in _EARLY:
        decoded = _decoded(strip, size, early)
        if decoded is not None:
            return decoded
    return None


def _decoded(strip: bytes, size: int, early: int) -> bytes | None:
    out = bytearray()
    table = [bytes([value]) for value in range(256)] + [b"", b""]
    before: bytes | None = None
    held = bits = 0
    width = 9
    for place, byte in enumerate(strip):
        held, bits = held << 8 | byte, bits + 8
        if bits < width:
            continue
        bits -= width
        code, held = held >> bits, held & ((1 << bits) - 1)
        if code == _END:
            return bytes(out) if len(out) == size and place >= len(strip) - 2 else None
        if code == _CLEAR:
            del table[_FIRST:]
            before, width = None, 9
            continue
        if before is None:
            if code > 255:
                return None
            found = table[code]
        else:
            if code > len(table):
                return None
            found = table[code] if code < len(table) else before + before[:1]
            table.append(before + found[:1])
        out += found
        if len(out) > size:
            return None
        before = found
        width = min(max(9, (len(table) + early).bit_length()), _LONGEST)
    return None
