"""AVI files of scientific cameras: raw pixels under codes that FFmpeg has no decoder for."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from tests.sources.source_files import DEEP, FRAMES, read, write_video

WIDTH, HEIGHT = 64, 48


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def write_raw_avi(path: Path, frames: list[bytes], code: bytes, bits: int) -> None:
    """Write an AVI without an index whose packets are these bytes."""
    size = len(frames[0])
    main = struct.pack("<14I", 50000, 0, 0, 0, len(frames), 0, 1, size, WIDTH, HEIGHT, 0, 0, 0, 0)
    stream = (
        b"vids"
        + code
        + struct.pack("<IHHIIIIIIII4H", 0, 0, 0, 0, 1, 20, 0, len(frames), size, 0, 0, 0, 0, 9, 9)
    )
    form = struct.pack("<IiiHH4sIiiII", 40, WIDTH, HEIGHT, 1, bits, code, size, 0, 0, 0, 0)
    head = b"strl" + chunk(b"strh", stream) + chunk(b"strf", form)
    lists = chunk(b"LIST", b"hdrl" + chunk(b"avih", main) + chunk(b"LIST", head))
    movie = chunk(b"LIST", b"movi" + b"".join(chunk(b"00db", frame) for frame in frames))
    path.write_bytes(chunk(b"RIFF", b"AVI " + lists + movie))


def as_bytes(frames: npt.NDArray[Any]) -> list[bytes]:
    return [frame.tobytes() for frame in frames]


def mipi12(frames: npt.NDArray[np.uint16]) -> list[bytes]:
    first, second = frames[..., ::2], frames[..., 1::2]
    packed = np.stack([first >> 4, second >> 4, first & 15 | (second & 15) << 4], axis=-1)
    return as_bytes(packed.astype(np.uint8))


@pytest.mark.parametrize(("code", "bits"), [(b"Y10 ", 10), (b"Y12 ", 12), (b"Y14 ", 14), (b"Y16 ", 16)])
def test_grey_words(tmp_path: Path, code: bytes, bits: int) -> None:
    """Codes of 10 to 16 bits in two bytes give the counts, with rate and times."""
    frames = DEEP >> 2 if bits == 10 else DEEP
    write_raw_avi(tmp_path / "a.avi", as_bytes(frames), code, 16)
    source = open_source(tmp_path / "a.avi")
    np.testing.assert_array_equal(read(source), frames)
    assert source.fps == 20.0
    times = np.concatenate([part.times_s for part in source.chunks(4) if part.times_s is not None])
    np.testing.assert_allclose(times, np.arange(11) / 20)


def test_packed_grey(tmp_path: Path) -> None:
    """Y12P, two pixels in three bytes, gives the counts."""
    write_raw_avi(tmp_path / "a.avi", mipi12(DEEP), b"Y12P", 12)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.avi")), DEEP)


def test_an_unknown_code_asks_for_the_geometry(tmp_path: Path) -> None:
    """Another code is named; with a stated geometry its packets are read as raw pixels."""
    write_raw_avi(tmp_path / "a.avi", as_bytes(DEEP), b"LAB1", 16)
    with pytest.raises(ConfigError, match=r"FourCC 'LAB1'.*--geometry"):
        open_source(tmp_path / "a.avi")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.avi", geometry="64x48x12")), DEEP)
    with pytest.raises(ConfigError, match="leave out"):
        open_source(tmp_path / "a.avi", geometry="64x48x12+8")


def test_a_short_packet(tmp_path: Path) -> None:
    """A packet with too few bytes is a missing frame."""
    packets = as_bytes(DEEP)
    packets[6] = packets[6][:-2]
    write_raw_avi(tmp_path / "a.avi", packets, b"Y12 ", 16)
    with pytest.raises(DamagedSourceError, match=r"frame 6 of a\.avi.*6142 of 6144 bytes"):
        list(open_source(tmp_path / "a.avi", skip_damaged=False).chunks(4))
    source = open_source(tmp_path / "a.avi", skip_damaged=True)
    found = np.concatenate([part.frames for part in source.chunks(4)])
    np.testing.assert_array_equal(found, np.delete(DEEP, 6, axis=0))


@pytest.mark.parametrize("name", ["a%03d.avi", "b ?.avi", "http:c.avi", "Wachstum ü.avi"])
def test_names_that_ffmpeg_could_misread(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is a name: no pattern, and no address."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.avi", FRAMES, list(range(11)), rate=25)
    try:
        (tmp_path / "plain.avi").rename(name)
    except OSError:
        pytest.skip("this file system has no such names")
    np.testing.assert_array_equal(read(open_source(name)), FRAMES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    """Opening a pipe would wait for its other end for ever."""
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        open_source(tmp_path / "a.tif")
