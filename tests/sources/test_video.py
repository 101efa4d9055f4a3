from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from atomstream.sources.options import ReadOptions
from atomstream.sources.pixels import PixelFormat, PixelReader
from tests.sources.source_files import DEEP, FRAMES, av, read, write_video


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_video_is_exact(tmp_path: Path, suffix: str) -> None:
    """Lossless grey video is read unchanged, with its frame rate."""
    write_video(tmp_path / f"a{suffix}", FRAMES, list(range(11)), rate=25)
    source = open_source(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read(source), FRAMES)
    assert source.fps == pytest.approx(25.0, rel=0.02)


def test_video_times_are_kept(tmp_path: Path) -> None:
    """Presentation times are kept, with gaps, relative to the first frame."""
    stamps = [40, 73, 106, 214, 247, 280, 313, 346, 454, 487, 520]
    write_video(tmp_path / "a.mkv", FRAMES, stamps)
    times = [chunk.times_s for chunk in open_source(tmp_path / "a.mkv").chunks(4)]
    expected = (np.array(stamps) - 40) / 1000
    np.testing.assert_allclose(np.concatenate([t for t in times if t is not None]), expected, atol=1e-9)


def test_deep_video_keeps_its_bits(tmp_path: Path) -> None:
    """A 16-bit grey video comes as uint16."""
    write_video(tmp_path / "a.mkv", DEEP, list(range(11)), pix_fmt="gray16le", source="gray16le")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.mkv")), DEEP)


def test_compressed_colour_video_becomes_its_luma(tmp_path: Path) -> None:
    """H.264 frames become grey over the full range, close to the originals."""
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no H.264 encoder")
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (6, 48, 64))
    write_video(
        tmp_path / "a.mp4", np.ascontiguousarray(smooth), list(range(6)), codec="libx264", pix_fmt="yuv420p"
    )
    frames = read(open_source(tmp_path / "a.mp4"))
    assert np.abs(frames.astype(int) - smooth).max() <= 8


def test_files_without_video(tmp_path: Path) -> None:
    """Random bytes, an empty file, sound only, and a video without frames raise errors."""
    (tmp_path / "garbage.mp4").write_bytes(b"no video at all" * 100)
    (tmp_path / "empty.avi").write_bytes(b"")
    write_sound(tmp_path / "sound.avi")
    (tmp_path / "frameless.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1 Ip A1:1 Cmono\n")
    message = {
        "garbage.mp4": "can't be read as video",
        "empty.avi": "the file is empty",
        "sound.avi": "no video",
    }
    for name, sentence in (message | {"frameless.y4m": "is empty: its video has no frames"}).items():
        with pytest.raises(ConfigError, match=f"{name}.*{sentence}"):
            open_source(tmp_path / name)


def write_sound(path: Path) -> None:
    """Write 0.1 s of silence as WAV data with the name of a video."""
    samples = bytes(1600)
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + 1600,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        8000,
        16000,
        2,
        16,
        b"data",
        1600,
    )
    path.write_bytes(head + samples)


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_limited_range_is_expanded_exactly(bits: int) -> None:
    """Each value becomes the rounded one that players show, for all bits, in either byte order."""
    black, white, top = 16 << (bits - 8), 235 << (bits - 8), (1 << bits) - 1
    every = np.arange(top + 1)
    halves = (2 * (every - black) * top + white - black) // (white - black)  # twice the value, plus one
    shown = np.clip(halves // 2, 0, top)
    for order in "<>":
        dtype = np.dtype(np.uint8 if bits == 8 else f"{order}u2")
        reader = PixelReader("a", PixelFormat(dtype, "yuv", bits, range="limited"), ReadOptions())
        frames = reader.frames(every.astype(dtype)[None, None])
        np.testing.assert_array_equal(frames[0, 0], shown)
        assert frames.dtype == (np.uint8 if bits == 8 else np.uint16)
