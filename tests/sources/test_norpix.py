from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from tests.sources.source_files import DEEP, FRAMES, read

PERIOD = 0.0125


def write_seq(
    path: Path,
    frames: npt.NDArray[Any],
    *,
    version: int = 5,
    bits: int = 0,
    kind: int = 100,
    stated: int | None = None,
) -> None:
    """Write a .seq file of StreamPix: header, then each frame padded to full sectors with its time behind it."""
    count, height, width = frames.shape
    size, depth = frames[0].nbytes, 8 * frames.itemsize
    step = -(-(size + 8) // 8192) * 8192
    offset = 8192 if version >= 5 else 1024
    header = struct.pack("<I24sii512s", 0xFEED, "Norpix seq".encode("utf-16-le"), version, 1024, b"")
    header += struct.pack(
        "<9I", width, height, depth, bits or depth, size, kind, count if stated is None else stated, 0, step
    )
    header += struct.pack("<d", 80.0)
    blocks = []
    for k, frame in enumerate(frames):
        micros = round(1e6 * k * PERIOD) + 999_000
        stamp = struct.pack("<IHH", 1_700_000_000 + micros // 1_000_000, micros // 1000 % 1000, micros % 1000)
        blocks.append((frame.tobytes() + stamp).ljust(step, b"\0"))
    path.write_bytes(header.ljust(offset, b"\0") + b"".join(blocks))


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("frames", [FRAMES, DEEP])
def test_seq(tmp_path: Path, frames: npt.NDArray[Any], version: int) -> None:
    """Grey frames of 8 and 16 bits with their times, in the short and the long header."""
    write_seq(tmp_path / "a.seq", frames, version=version, bits=12 if frames is DEEP else 8)
    source = open_source(tmp_path / "a.seq")
    np.testing.assert_array_equal(read(source), frames)
    assert source.fps == 80.0
    times = np.concatenate([chunk.times_s for chunk in source.chunks(4) if chunk.times_s is not None])
    resolution = 1e-6 if version >= 5 else 1e-3
    np.testing.assert_allclose(times, PERIOD * np.arange(11), atol=resolution)


def test_a_seq_file_cut_off(tmp_path: Path) -> None:
    """The whole frames are read, then the error states how many are missing."""
    write_seq(tmp_path / "a.seq", FRAMES)
    content = (tmp_path / "a.seq").read_bytes()
    (tmp_path / "a.seq").write_bytes(content[: 8192 + 4 * 8192 + 100])
    chunks = open_source(tmp_path / "a.seq").chunks(8)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:4])
    with pytest.raises(DamagedSourceError, match=r"frames 4 to 10 of a\.seq from byte 40960"):
        next(chunks)


def test_other_seq_files(tmp_path: Path) -> None:
    """Compressed and colour frames, other files of that name, and those without a frame are refused in words."""
    for name, kind, sentence in (
        ("jpeg", 102, "holds JPEG"),
        ("bgr", 200, "colour"),
        ("new", 999, "number 999"),
    ):
        write_seq(tmp_path / f"{name}.seq", FRAMES, kind=kind)
        with pytest.raises(ConfigError, match=sentence):
            open_source(tmp_path / f"{name}.seq")
    (tmp_path / "x.seq").write_bytes(b"other" * 1000)
    with pytest.raises(ConfigError, match="no header of StreamPix"):
        open_source(tmp_path / "x.seq")
    write_seq(tmp_path / "none.seq", FRAMES[:1])
    content = (tmp_path / "none.seq").read_bytes()
    (tmp_path / "none.seq").write_bytes(content[:8300])
    with pytest.raises(ConfigError, match="no frame in it is complete"):
        open_source(tmp_path / "none.seq")
