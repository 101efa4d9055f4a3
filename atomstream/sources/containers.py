"""Reads from a video's container what FFmpeg does not report: a missing index of MP4, and the raw pixels of an AVI.

Programs of scientific cameras write AVI files whose frames are raw pixels of 10 to 16 bits, under codes (FourCC) that
FFmpeg has no decoder for.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

import numpy as np

from .damage import plain
from .geometry import Geometry
from .packed import LAYOUTS

MP4_SUFFIXES: Final = frozenset({".mp4", ".m4v", ".mov"})

_MP4_BOXES: Final = frozenset(
    {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"moof", b"pnot", b"meta", b"sidx"}
)

_AVI_HEAD: Final = 1 << 16
"""Bytes of an AVI in which its headers are."""


def why_not_open(path: Path, error: BaseException) -> str:
    """Return why FFmpeg can't open a video, with what to do; its own message if the cause is not known."""
    if not path.stat().st_size:
        return "the file is empty"
    if path.suffix.casefold() in MP4_SUFFIXES and not has_index(path):
        return (
            "its index (moov) is missing, so that no frame can be found: the recording was not closed, or the file is "
            "cut off. Copy it again; if there is no whole copy, a program such as untrunc can repair it with another "
            "file of the same camera"
        )
    return plain(error)


def has_index(path: Path) -> bool:
    """Return True if an MP4 has its index, or is not an MP4."""
    size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind not in _MP4_BOXES:
                return position == 0
            if kind == b"moov":
                return bool(position + length <= size)
            if length == 1:
                large = file.read(8)
                if len(large) < 8:
                    return False
                (length,) = struct.unpack(">Q", large)
            if length < 8:  # 0: to the end of the file
                return False
            position += length
    return False


def is_complete_avi(path: Path) -> bool:
    """Return True for an AVI that has all bytes which it states.

    It may hold fewer frames than its header states: empty chunks stand for frames that the camera dropped.
    """
    size = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 12 <= size:
            file.seek(position)
            kind, length, form = struct.unpack("<4sI4s", file.read(12))
            if kind != b"RIFF" or form not in (b"AVI ", b"AVIX") or not length:
                break
            position += 8 + length + length % 2
    return 0 < position <= size + 1


_WORDS: Final = {b"Y10 ": 10, b"Y12 ": 12, b"Y14 ": 14, b"Y16 ": 16, b"Y1\0\x0a": 10, b"Y1\0\x0c": 12,
                 b"Y1\0\x0e": 14, b"Y1\0\x10": 16}  # fmt: skip
"""Codes of pixels in two bytes, the low one first (V4L2 and FFmpeg)."""

_PACKED: Final = {b"Y10P": "10mipi", b"Y12P": "12mipi", b"Y10B": "10msb", b"Y12B": "12msb"}
"""Codes of packed pixels (V4L2)."""


def fourcc(path: Path) -> str:
    """Return the code of an AVI's pixels or codec, for messages; empty for other files."""
    header = _avi_format(path)
    return "" if header is None else header[2].decode("latin-1").strip("\0 ")


def has_unused_bytes(path: Path) -> bool:
    """Return True for an AVI of uncompressed colours (BI_RGB): of 32 bits of a pixel, the fourth byte is unused."""
    header = _avi_format(path)
    return header is not None and header[2] == bytes(4)


def raw_pixels(path: Path) -> Geometry | None:
    """Return how the pixels of an AVI are stored, if it has one of the codes above; None for all other files."""
    header = _avi_format(path)
    if header is None:
        return None
    width, height, code = header
    if width <= 0 or not height:
        return None
    if code in _WORDS:
        return Geometry(abs(height), width, _WORDS[code], np.dtype("<u2"), None, 0, None)
    if code in _PACKED:
        layout = LAYOUTS[_PACKED[code]]
        return Geometry(abs(height), width, layout.bits, np.dtype(np.uint8), layout, 0, None)
    return None


def _avi_format(path: Path) -> tuple[int, int, bytes] | None:
    """Return width, height (negative: the first row is the upper one) and code of the first video stream of an AVI."""
    with path.open("rb") as file:
        head = file.read(_AVI_HEAD)
    if head[:4] != b"RIFF" or head[8:12] != b"AVI ":
        return None
    stream = head.find(b"vids")
    form = head.find(b"strf", max(stream, 0))
    if stream < 0 or form < 0 or len(head) < form + 28:
        return None
    _, width, height, _, _, code = struct.unpack_from("<IiiHH4s", head, form + 8)
    return width, height, code
