"""Uncompressed AVI files as camera programs write them: rows from the bottom, padded to 4 bytes, or with a palette."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def avi(
    frames: npt.NDArray[Any],
    *,
    palette: Sequence[tuple[int, int, int]] | None = None,
    top_down: bool = False,
    fourcc: bytes = b"\0\0\0\0",
    rate: int = 20,
    microseconds: int = 50000,
) -> Callable[[Path], Path]:
    """Write 8-bit or 24-bit frames; ``palette`` are red, green and blue of each index."""
    n, height, width = frames.shape[:3]
    samples = frames.shape[3] if frames.ndim == 4 else 1
    size = (width * samples + 3) // 4 * 4 * height

    def rows(frame: npt.NDArray[Any]) -> bytes:
        flat = (frame if top_down else frame[::-1]).reshape(height, width * samples)
        return np.pad(flat, ((0, 0), (0, -width * samples % 4))).tobytes()

    colours = b"".join(struct.pack("4B", blue, green, red, 0) for red, green, blue in palette or ())
    handler = fourcc if fourcc.strip(b"\0") else b"DIB "
    main = struct.pack("<14I", microseconds, 0, 0, 0, n, 0, 1, size, width, height, 0, 0, 0, 0)
    scale = 1 if rate else 0
    stream = (
        b"vids"
        + handler
        + struct.pack("<IHH8I4H", 0, 0, 0, 0, scale, rate, 0, n, size, 2**32 - 1, 0, 0, 0, width, height)
    )
    signed = -height if top_down else height
    form = struct.pack(
        "<IiiHH4sIiiII", 40, width, signed, 1, 8 * samples, fourcc, size, 0, 0, len(palette or ()), 0
    )
    header = _list(
        b"hdrl",
        _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form + colours)),
    )
    movie = _list(b"movi", b"".join(_chunk(b"00db", rows(frame)) for frame in frames))

    def write(folder: Path) -> Path:
        (folder / "a.avi").write_bytes(_chunk(b"RIFF", b"AVI " + header + movie))
        return folder / "a.avi"

    return write


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


def _list(kind: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", kind + data)
