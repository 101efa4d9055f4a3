"""Damaged files of each kind: whole frames are delivered, the missing ones are reported with file, number and byte."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from tests.sources.source_files import DEEP, FRAMES, tifffile, write_image, zarr

COUNT = len(FRAMES)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def npy_cut(folder: Path) -> Path:
    np.save(folder / "a.npy", DEEP)
    cut(folder / "a.npy", 128 + 6 * DEEP[0].nbytes + 10)
    return folder / "a.npy"


def mapped_tiff_cut(folder: Path) -> Path:
    tifffile.imwrite(folder / "a.tif", DEEP, imagej=True)
    with tifffile.TiffFile(folder / "a.tif") as tif:
        begin = tif.series[0].dataoffset
    cut(folder / "a.tif", begin + 6 * DEEP[0].nbytes + 10)
    return folder / "a.tif"


def paged_tiff(folder: Path, **options: Any) -> tuple[Path, list[int], list[int]]:
    """A TIFF as cameras write it: each page behind the last one. Returns places of directories and of pixels."""
    path = folder / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in DEEP:
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None, **options)
    with tifffile.TiffFile(path) as tif:
        return path, [page.offset for page in tif.pages], [page.dataoffsets[0] for page in tif.pages]


def page_with_broken_pixels(folder: Path) -> Path:
    path, _, pixels = paged_tiff(folder, compression="zlib")
    overwrite(path, pixels[6], b"\xff" * 200)
    return path


def page_whose_strip_is_short(folder: Path) -> Path:
    path, _, pixels = paged_tiff(folder, compression="lzw")
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[6].tags["StripByteCounts"]
        overwrite(path, tag.offset + 8, struct.pack("<I", tag.value[0] // 2))
    assert pixels
    return path


def page_that_was_never_written(folder: Path) -> Path:
    path, _, _ = paged_tiff(folder)
    with tifffile.TiffFile(path) as tif:
        overwrite(path, tif.pages[6].tags["StripOffsets"].offset + 8, bytes(4))
    return path


def jpeg_page_cut_off(folder: Path) -> Path:
    path = folder / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None, compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        at, size = tif.pages[6].dataoffsets[0], tif.pages[6].databytecounts[0]
    overwrite(path, at + size // 2, bytes(size - size // 2))
    return path


def images(folder: Path, write: Callable[[Path, npt.NDArray[Any]], object], suffix: str) -> Path:
    (folder / "images").mkdir()
    for number, frame in enumerate(FRAMES):
        write(folder / "images" / f"img{number}{suffix}", frame)
    return folder / "images"


def one_empty_image(folder: Path) -> Path:
    place = images(folder, tifffile.imwrite, ".tif")
    (place / "img6.tif").write_bytes(b"")
    return place


def one_png_cut_off(folder: Path) -> Path:
    place = images(folder, write_image, ".png")
    cut(place / "img6.png", (place / "img6.png").stat().st_size - 20)
    return place


def one_png_changed(folder: Path) -> Path:
    place = images(folder, write_image, ".png")
    overwrite(place / "img6.png", (place / "img6.png").stat().st_size // 2, b"\x55\x55")
    return place


def one_jpeg_cut_off(folder: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")  # not every FFmpeg writes grey JPEG
    place = images(folder, lambda path, frame: pillow.fromarray(frame).save(path), ".jpg")
    cut(place / "img6.jpg", (place / "img6.jpg").stat().st_size // 2)
    return place


def one_pgm_cut_off(folder: Path) -> Path:
    place = images(
        folder, lambda path, frame: path.write_bytes(b"P5\n64 48\n255\n" + frame.tobytes()), ".pgm"
    )
    cut(place / "img6.pgm", 2000)
    return place


def one_tiff_image_cut_off(folder: Path) -> Path:
    place = images(folder, tifffile.imwrite, ".tif")
    cut(place / "img6.tif", 2000)
    return place


def one_bmp_cut_off(folder: Path) -> Path:
    place = images(folder, lambda path, frame: write_image(path, frame, codec="bmp"), ".bmp")
    cut(place / "img6.bmp", 2000)
    return place


def zarr_with_a_damaged_chunk(folder: Path) -> Path:
    zarr.create_array(str(folder / "a.zarr"), data=DEEP, chunks=(1, 48, 64))
    place = folder / "a.zarr" / "c" / "6" / "0" / "0"
    place.write_bytes(place.read_bytes()[:-9])
    return folder / "a.zarr"


TO_THE_END = [npy_cut, mapped_tiff_cut]
ONE_FRAME = [
    page_with_broken_pixels,
    page_whose_strip_is_short,
    page_that_was_never_written,
    jpeg_page_cut_off,
    one_empty_image,
    one_jpeg_cut_off,
    one_png_cut_off,
    one_png_changed,
    one_pgm_cut_off,
    one_tiff_image_cut_off,
    one_bmp_cut_off,
    zarr_with_a_damaged_chunk,
]


@pytest.mark.parametrize("damaged", [*TO_THE_END, *ONE_FRAME])
@pytest.mark.parametrize("chunk_size", [1, 4, 100])
def test_damage_at_frame_six(tmp_path: Path, damaged: Callable[[Path], Path], chunk_size: int) -> None:
    """Frames 0 to 5 are whole; frame 6 is reported, and the frames after it are read if ``skip_damaged`` is set."""
    path = damaged(tmp_path)
    lost = COUNT - 6 if damaged in TO_THE_END else 1
    frames: list[npt.NDArray[Any]] = []
    with pytest.raises(DamagedSourceError, match=r"Can't read frames? 6 ") as caught:
        frames.extend(chunk.frames for chunk in open_source(path, skip_damaged=False).chunks(chunk_size))
    before = np.concatenate(frames)
    assert len(before) == 6
    assert caught.value.gap.frames == lost
    assert caught.value.behind == COUNT - 6 - lost

    source = open_source(path, skip_damaged=True)
    chunks = list(source.chunks(chunk_size))
    assert all(len(chunk.frames) == chunk_size for chunk in chunks[:-1])
    indices = np.concatenate([chunk.indices for chunk in chunks if chunk.indices is not None])
    assert indices.tolist() == [k for k in range(COUNT) if not 6 <= k < 6 + lost]
    found = np.concatenate([chunk.frames for chunk in chunks])
    np.testing.assert_array_equal(found[:6], before)
    if damaged not in (jpeg_page_cut_off, one_jpeg_cut_off):
        expected = DEEP if found.dtype == np.uint16 else FRAMES
        np.testing.assert_array_equal(found, expected[indices])
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(6, lost)]

    frames.clear()
    with pytest.raises(DamagedSourceError, match="all other frames were read"):
        frames.extend(chunk.frames for chunk in open_source(path).chunks(chunk_size))
    np.testing.assert_array_equal(np.concatenate(frames), found)


def test_several_gaps(tmp_path: Path) -> None:
    """Each gap is listed; neighbours with the same reason are one gap."""
    place = images(tmp_path, tifffile.imwrite, ".tif")
    for number in (2, 3, 7):
        (place / f"img{number}.tif").write_bytes(b"")
    source = open_source(place, skip_damaged=True)
    assert sum(len(chunk.frames) for chunk in source.chunks(4)) == COUNT - 3
    assert [(gap.frame, gap.frames, gap.file) for gap in source.gaps] == [
        (2, 1, "img2.tif"),
        (3, 1, "img3.tif"),
        (7, 1, "img7.tif"),
    ]
    assert "frame 2 of img2.tif: the file is empty" in str(source.gaps[0])


@pytest.mark.parametrize("where", [-40, 30, 3100])
def test_a_tiff_whose_chain_of_pages_is_broken(tmp_path: Path, where: int) -> None:
    """The link to page 8 leads behind the end of the file, or to bytes that are not a directory: pages 0 to 7
    remain."""
    path, directories, _ = paged_tiff(tmp_path)
    if where < 0:
        cut(path, directories[8] + 10)
    else:
        with tifffile.TiffFile(path) as tif:
            link = tif.pages[7].offset + 2 + 12 * len(tif.pages[7].tags)
        overwrite(path, link, struct.pack("<I", directories[7] + where))
    source = open_source(path, skip_damaged=True)
    np.testing.assert_array_equal(np.concatenate([chunk.frames for chunk in source.chunks(3)]), DEEP[:8])
    assert [(gap.frame, gap.frames) for gap in source.gaps] == [(8, None)]
    with pytest.raises(DamagedSourceError, match=r"frame 8 and all after it of a\.tif from byte"):
        list(open_source(path, skip_damaged=False).chunks(3))


def test_one_picture_cut_off(tmp_path: Path) -> None:
    """If no frame is complete, the file can't be opened: an error states it before anything is read."""
    np.save(tmp_path / "one.npy", DEEP[0])
    np.save(tmp_path / "turned.npy", np.asfortranarray(DEEP))
    cut(tmp_path / "one.npy", 3000)
    cut(tmp_path / "turned.npy", 3000)
    for name in ("one.npy", "turned.npy"):
        with pytest.raises(ConfigError, match=r"cut off.*no frame"):
            open_source(tmp_path / name)


def test_a_damaged_npz_is_refused(tmp_path: Path) -> None:
    """Changed bytes in a .npz can't be located, so its checksum is compared before anything is read."""
    np.savez(tmp_path / "a.npz", frames=FRAMES)
    overwrite(tmp_path / "a.npz", 20000, b"\x01\x02\x03")
    with pytest.raises(ConfigError, match=r"a\.npz can't be read.*CRC"):
        open_source(tmp_path / "a.npz")


def test_a_file_that_vanishes_or_shrinks_while_it_is_read(tmp_path: Path) -> None:
    """An image that is removed, and a file that gets shorter, are damage and no crash."""
    place = images(tmp_path, tifffile.imwrite, ".tif")
    chunks = open_source(place, skip_damaged=False).chunks(4)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:4])
    (place / "img6.tif").unlink()
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[4:6])
    with pytest.raises(DamagedSourceError, match=r"frame 6 of img6\.tif.*No such file"):
        next(chunks)
    np.save(tmp_path / "a.npy", FRAMES)
    chunks = open_source(tmp_path / "a.npy", skip_damaged=False).chunks(4)
    next(chunks)
    with (tmp_path / "a.npy").open("r+b") as file:
        file.truncate(128 + 5 * FRAMES[0].nbytes + 1)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[4:5])
    with pytest.raises(DamagedSourceError, match=r"frame 5 of a\.npy from byte.*ends within"):
        next(chunks)


def test_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable sector is damage of the frames in it, with its place; the others are read."""
    np.save(tmp_path / "a.npy", FRAMES)
    bad = range(128 + 6 * FRAMES[0].nbytes, 128 + 7 * FRAMES[0].nbytes)

    class Disk(FileIO):
        def readinto(self, buffer: Any) -> int:
            begin = self.tell()
            if begin < bad.stop and begin + len(buffer) > bad.start:
                raise OSError(errno.EIO, "Input/output error")
            return super().readinto(buffer)

    monkeypatch.setattr("atomstream.sources.file_frames.FileIO", Disk)
    source = open_source(tmp_path / "a.npy", skip_damaged=True)
    found = np.concatenate([chunk.frames for chunk in source.chunks(100)])
    np.testing.assert_array_equal(found, np.delete(FRAMES, 6, axis=0))
    assert [(gap.frame, gap.byte) for gap in source.gaps] == [(6, bad.start)]
    assert "Input/output error" in source.gaps[0].reason
