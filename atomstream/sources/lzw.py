"""LZW strips of TIFF in which the code length grows at another code than TIFF defines.

LZW codes have 9 bits at first, and one bit more each time that the table of sequences is full for their length. TIFF
makes this change one code before the table is full, GIF when it is full, and some writers two codes before. The
decoders of libtiff and imagecodecs refuse strips of the last two kinds as damaged. A strip shows which rule is right:
with a wrong one, its end code does not follow exactly the bytes of its rows.
"""

from __future__ import annotations

from typing import Final

_CLEAR, _END, _FIRST = 256, 257, 258
_LONGEST: Final = 12
"""Longest code, in bits."""
_EARLY: Final = (2, 0)
"""The rules that are tried: how many codes before the table is full the code length grows. 1, the rule of TIFF, is not
among them, because the library decodes it."""


def decode_other_lzw(strip: bytes, size: int) -> bytes | None:
    """Return the ``size`` bytes of a strip, decoded by one of these rules; None if it fits none of them."""
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
