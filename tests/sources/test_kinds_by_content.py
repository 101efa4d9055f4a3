from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source, open_sources
from tests.sources.avi_files import avi
from tests.sources.file_table import DEEP, GREY, hdf5, npz, video
from tests.sources.source_files import read, zarr


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("a.stk", b"II*\0" + bytes(80), r"unknown type \(its first bytes are those of TIFF: .* \.tif"),
        ("a.tif", b"\x89PNG\r\n\x1a\n" + bytes(80), r"as TIFF.*of PNG: give it the ending \.png"),
        ("a.h5", b"CDF\x01" + bytes(80), r"as HDF5.*of NetCDF 3, which is not read here"),
        ("a.npy", b"\x89HDF\r\n\x1a\n" + bytes(80), r"as \.npy.*of HDF5: give it the ending \.h5"),
        ("a.fits", b"SIMPLE  =    T" + bytes(80), r"unknown type \(its first bytes are those of FITS, which"),
        ("a.xyz", b"BM" + bytes(10), r"unknown type; frames can be read from"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, name: str, start: bytes, message: str) -> None:
    """The refusal of a file names the kind that its first bytes stand for, if its ending is another one."""
    (tmp_path / name).write_bytes(start)
    with pytest.raises(ConfigError, match=message):
        open_source(tmp_path / name)


def test_a_folder_of_recordings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder of files of one kind is one recording in the order of their numbers; a shell's order is reported."""
    for k, name in enumerate(("f1", "f2", "f10")):
        np.save(tmp_path / f"{name}.npy", DEEP[k])
    (tmp_path / "notes.txt").write_text("Ga open")
    np.testing.assert_array_equal(read(open_source(tmp_path), 3), DEEP)
    assert not caplog.records
    shell = sorted(tmp_path.glob("*.npy"))
    with caplog.at_level(logging.WARNING, "atomstream"):
        np.testing.assert_array_equal(read(open_sources(shell), 3), DEEP[[0, 2, 1]])
    assert "as a shell sorts names: f10.npy comes before files with smaller numbers" in caplog.text
    caplog.clear()
    open_sources([tmp_path / "f2.npy", tmp_path / "f1.npy"])  # on purpose
    assert not caplog.records
    hdf5({"frames": (DEEP, {})})(tmp_path)
    with pytest.raises(ConfigError, match="of several kinds or none that is read"):
        open_source(tmp_path)


def test_objects_beside_frames(tmp_path: Path) -> None:
    """Python objects beside the frames of a .npz are left out; as frames they are refused."""
    notes = np.array({"gas": "O2"}, dtype=object)
    np.testing.assert_array_equal(read(open_source(npz(frames=DEEP, notes=notes)(tmp_path)), 3), DEEP)
    with pytest.raises(ConfigError, match="holds Python objects"):
        open_source(npz(frames=notes, other=DEEP)(tmp_path))


def test_the_fourth_byte_of_an_avi(tmp_path: Path) -> None:
    """Of 32 bits of an uncompressed AVI the last byte is unused; it is not an opacity, whatever it holds."""
    for last in (0, 7):
        pixels = np.stack([GREY, GREY, GREY, np.full_like(GREY, last)], axis=-1)
        np.testing.assert_array_equal(read(open_source(avi(pixels)(tmp_path))), GREY)


def test_frames_outside_the_edit_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A trimmed MP4: the frames that players show are streamed, and a warning has the number of the others."""
    path = video(np.tile(GREY, (2, 1, 1)), "a.mp4", "libx264", options={"qp": "0", "bf": "0"})(tmp_path)
    data = bytearray(path.read_bytes())
    units = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    struct.pack_into(">i", data, data.index(b"elst") + 16, units * 2 // 20)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "atomstream"):
        np.testing.assert_array_equal(read(open_source(path)), np.tile(GREY, (2, 1, 1))[2:])
    assert "contains 2 more frames, which its edit list hides" in caplog.text


def test_raw_streams_of_codecs(tmp_path: Path) -> None:
    """A raw H.264 stream, as small cameras write it, has no rate: its frames come without times."""
    path = video(GREY, "a.h264", "libx264", options={"qp": "0"})(tmp_path)
    source = open_source(path)
    np.testing.assert_array_equal(read(source), GREY)
    assert source.fps is None


def test_chunks_that_zarr_does_not_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Zarr gives the fill value for frames that were never written: a warning has their number."""
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=DEEP.shape, dtype=DEEP.dtype, chunks=(1, 24, 32)
    )
    array[:2] = DEEP[:2]
    with caplog.at_level(logging.WARNING, "atomstream"):
        open_source(tmp_path / "a.zarr")
    assert "1 of 3 chunks are not stored, and are read as the fill value 0" in caplog.text
    caplog.clear()
    array[2] = DEEP[2]
    open_source(tmp_path / "a.zarr")
    assert not caplog.records


def test_the_frame_with_a_pixel_that_is_too_large(tmp_path: Path) -> None:
    """Raw pixels with more bits than stated: the message names the frame itself."""
    frames = DEEP.copy()
    frames[2, 3, 4] = 5000
    (tmp_path / "a.raw").write_bytes(frames.tobytes())
    with pytest.raises(ConfigError, match="frame 2 has a pixel of 5000, but pixels of 12 bits"):
        read(open_source(tmp_path / "a.raw", geometry="32x24x12"))


def test_messages_of_libraries_are_short(tmp_path: Path) -> None:
    """FFmpeg's own numbers of errors are left out of messages."""
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    with pytest.raises(
        ConfigError, match=r"can't be read as video: Invalid data found when processing input$"
    ):
        open_source(tmp_path / "a.gif")
