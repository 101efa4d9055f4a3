"""Detects whether H.264 was encoded without chroma (4:0:0), which its decoder in FFmpeg does not report.

Programs give such an encoder the counts of a monochrome camera as they are. Decoded, they look like colour video
whose range is not stated, and would be expanded from the limited range to the full one.
"""

from __future__ import annotations

from typing import Any, Final

_WITH_CHROMA_FORMAT: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles whose sequence parameter set states the chroma format (ITU-T H.264, 7.3.2.1.1); others have 4:2:0."""

_SEQUENCE: Final = 7
"""Type of the unit that contains the sequence parameter set."""


def is_monochrome(stream: Any) -> bool:
    """Return True if a video stream of PyAV is H.264 without chroma."""
    context = stream.codec_context
    if context is None or context.name != "h264" or not context.extradata:
        return False
    unit = _sequence_unit(bytes(context.extradata))
    if len(unit) < 5 or unit[1] not in _WITH_CHROMA_FORMAT:
        return False
    bits = "".join(f"{byte:08b}" for byte in unit[4:12])
    _, at = _exponential_golomb(bits, 0)  # the number of the set
    chroma_format, _ = _exponential_golomb(bits, at)
    return chroma_format == 0


def _sequence_unit(data: bytes) -> bytes:
    """Return the first sequence parameter set: of the form of MP4 (a length), or of AVI and TS (a start code)."""
    if data[:1] == b"\x01":
        length = int.from_bytes(data[6:8], "big")
        return data[8 : 8 + length]
    units = (unit for unit in data.split(b"\0\0\1") if unit and unit[0] & 31 == _SEQUENCE)
    return next(units, b"")


def _exponential_golomb(bits: str, at: int) -> tuple[int, int]:
    """Return the number that begins at the bit ``at``, and the bit after it; -1 if the bits end before."""
    zeros = bits.find("1", at) - at
    end = at + 2 * zeros + 1
    return (int(bits[at + zeros : end], 2) - 1, end) if zeros >= 0 and end <= len(bits) else (-1, len(bits))
