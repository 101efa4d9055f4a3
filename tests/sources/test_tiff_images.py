from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from tests.sources.source_files import DEEP, FRAMES, read, tifffile, write_image


@pytest.mark.parametrize("frames", [FRAMES, DEEP, DEEP[:1]])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"imagej": True},
        {"bigtiff": True, "byteorder": ">"},
        {"ome": True},
        {"compression": "zlib", "rowsperstrip": 7},
    ],
)
def test_tiff_stacks(tmp_path: Path, frames: npt.NDArray[Any], options: dict[str, Any]) -> None:
    """TIFF stacks of 8 and 16 bits, mapped or compressed, plain, ImageJ, OME or BigTIFF, are read unchanged."""
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", **options)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), frames)


def test_tiff_written_page_by_page(tmp_path: Path) -> None:
    """Pages appended one at a time, as cameras do, form one stack."""
    with tifffile.TiffWriter(tmp_path / "a.tiff") as writer:
        for frame in FRAMES:
            writer.write(frame, contiguous=False, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "b.tiff") as writer:
        writer.write(FRAMES[:6], photometric="minisblack", contiguous=False)
        writer.write(FRAMES[6:], photometric="minisblack", contiguous=False)
    for name in ("a.tiff", "b.tiff"):
        np.testing.assert_array_equal(read(open_source(tmp_path / name)), FRAMES)


def test_pages_that_are_stored_in_two_ways_keep_their_order(tmp_path: Path) -> None:
    """A program that compresses some pages only: all pages come in the order of the file."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for k, frame in enumerate(FRAMES):
            kind = "zlib" if k % 3 == 1 else None
            writer.write(frame, contiguous=False, photometric="minisblack", metadata=None, compression=kind)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), FRAMES)


def set_photometric(path: Path, page: int, value: int | None) -> None:
    """Change what a page states about 0: 0 for white, 1 for black; None makes the tag another, unknown one."""
    with tifffile.TiffFile(path) as tif:
        tag = tif.pages[page].tags[262]
    with open(path, "r+b") as file:
        file.seek(tag.offset if value is None else tag.valueoffset)
        file.write((260 if value is None else value).to_bytes(2, "little"))


def test_pages_with_two_meanings_are_refused(tmp_path: Path) -> None:
    """A file in which 0 is white in some pages only is refused with the page."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, photometric="minisblack", metadata=None)
    set_photometric(tmp_path / "a.tif", 1, 0)
    with pytest.raises(ConfigError, match="page 1 has another photometric interpretation"):
        open_source(tmp_path / "a.tif")


def test_a_missing_photometric_interpretation_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the tag, 0 is black, as in most files, and a warning states this; nothing is inverted."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES[0], photometric="minisblack", metadata=None)
    set_photometric(tmp_path / "a.tif", 0, None)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), FRAMES[:1])
    assert "does not state whether 0 is black" in caplog.text


def test_tiff_without_a_stack(tmp_path: Path) -> None:
    """Colour, pages of different sizes and damaged files raise errors."""
    colours = np.zeros((2, 8, 8, 3), np.uint8)
    colours[0, 5, 5, 1] = 9
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(FRAMES[0])
        writer.write(FRAMES[0, :20])
    (tmp_path / "torn.tif").write_bytes(b"II*\0")
    for name, message in (
        ("rgb", "colour picture"),
        ("mixed", "different sizes"),
        ("torn", "can't be read as TIFF"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_source(tmp_path / f"{name}.tif")


def test_a_damaged_page_is_named(tmp_path: Path) -> None:
    """A damaged page raises an error with its number when it is read; the pages before are delivered."""
    tifffile.imwrite(tmp_path / "a.tif", FRAMES, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[6].dataoffsets[0]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)
    chunks = open_source(tmp_path / "a.tif", skip_damaged=False).chunks(3)
    np.testing.assert_array_equal(next(chunks).frames, FRAMES[:3])
    next(chunks)
    with pytest.raises(ConfigError, match=r"frame 6 of a\.tif from byte \d+.*4 frames behind it"):
        next(chunks)


@pytest.mark.parametrize(("suffix", "codec"), [(".png", "png"), (".bmp", "bmp")])
def test_images_come_in_natural_order(tmp_path: Path, suffix: str, codec: str) -> None:
    """frame2 comes before frame10; other files in the folder are ignored."""
    for k, frame in enumerate(FRAMES):
        write_image(tmp_path / f"frame%{k}{suffix}", frame, codec=codec)
    (tmp_path / "notes.txt").write_text("Ga open")
    (tmp_path / f"._frame3{suffix}").write_bytes(b"mac")
    np.testing.assert_array_equal(read(open_source(tmp_path)), FRAMES)


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    """16-bit PNG and TIFF images keep all their bits."""
    for kind in ("png", "tif"):
        (tmp_path / kind).mkdir()
    for k, frame in enumerate(DEEP):
        write_image(tmp_path / "png" / f"{k}.png", frame, source="gray16be")
        tifffile.imwrite(tmp_path / "tif" / f"{k}.tif", frame)
    for kind in ("png", "tif"):
        np.testing.assert_array_equal(read(open_source(tmp_path / kind)), DEEP)


def test_grey_saved_as_rgb_is_grey(tmp_path: Path) -> None:
    """A PNG with three equal channels is grey, of 8 or 16 bits; with different channels it is a colour image."""
    rgb = np.repeat(FRAMES[0][..., None], 3, axis=2)
    write_image(tmp_path / "a.png", rgb, source="rgb24")
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.png")), FRAMES[:1])
    rgb[20:, :, 0] = 200
    write_image(tmp_path / "b.png", rgb, source="rgb24")
    write_image(tmp_path / "c.png", np.repeat(DEEP[0][..., None], 3, axis=2), source="rgb48be")
    with pytest.raises(ConfigError, match=r"b\.png: frame 0 is a colour picture"):
        open_source(tmp_path / "b.png")
    np.testing.assert_array_equal(read(open_source(tmp_path / "c.png")), DEEP[:1])


def test_folders_without_a_sequence(tmp_path: Path) -> None:
    """No images, several types, different sizes, a stack, or a damaged file raise errors."""
    for name in ("empty", "kinds", "sizes", "stack", "torn"):
        (tmp_path / name).mkdir()
    write_image(tmp_path / "kinds" / "a.png", FRAMES[0])
    write_image(tmp_path / "kinds" / "a.bmp", FRAMES[0], codec="bmp")
    write_image(tmp_path / "sizes" / "a1.png", FRAMES[0])
    write_image(tmp_path / "sizes" / "a2.png", np.ascontiguousarray(FRAMES[0, :40]))
    tifffile.imwrite(tmp_path / "stack" / "a.tif", FRAMES)
    (tmp_path / "torn" / "a.png").write_bytes(b"\x89PNG\r\n")
    message = {
        "empty": "is empty",
        "kinds": "1 BMP, 1 PNG",
        "stack": "11 pages",
        "torn": "none of the 1 images can be read",
    }
    for name, sentence in message.items():
        with pytest.raises(ConfigError, match=sentence):
            open_source(tmp_path / name)
    with pytest.raises(ConfigError, match=r"a2\.png is \(40, 64\)"):
        read(open_source(tmp_path / "sizes"))


def write_png(
    path: Path, rows: Sequence[bytes], size: tuple[int, int], bits: int, interlaced: int = 0
) -> None:
    """Write a grey PNG of ``size`` (H, W); ``rows`` are its packed pixels, of which some may be missing."""
    header = struct.pack(">IIBBBBB", size[1], size[0], bits, 0, 0, 0, interlaced)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + kind + data for kind, data in chunks]
    whole = b"".join(part + struct.pack(">I", zlib.crc32(part[4:])) for part in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + whole)


def test_a_png_with_missing_rows(tmp_path: Path) -> None:
    """A PNG whose structure is whole, but which has not all rows, is a missing frame and no black rows."""
    height, width = FRAMES.shape[1:]
    for k, rows in enumerate((height, height - 1, height)):
        write_png(tmp_path / f"f{k}.png", [row.tobytes() for row in FRAMES[k][:rows]], (height, width), 8)
    source = open_source(tmp_path, skip_damaged=True)
    np.testing.assert_array_equal(np.concatenate([part.frames for part in source.chunks(9)]), FRAMES[[0, 2]])
    assert "bytes of pixels" in source.gaps[0].reason
    adam7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    odd = FRAMES[0][:5, :3]
    rows_of = [row.tobytes() for x, y, dx, dy in adam7 for row in odd[y::dy, x::dx] if row.size]
    for rows, whole in ((rows_of, True), (rows_of[:-1], False)):
        write_png(tmp_path / "i.png", rows, odd.shape, 8, 1)
        if whole:
            np.testing.assert_array_equal(read(open_source(tmp_path / "i.png"))[0], odd)
        else:
            with pytest.raises(ConfigError, match="none of the 1 images"):
                open_source(tmp_path / "i.png")


def test_images_beside_a_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A picture beside a recording may be its preview: what is not read is reported."""
    write_image(tmp_path / "preview.png", FRAMES[0])
    np.save(tmp_path / "growth.npy", FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path)), FRAMES[:1])
    assert "not the recordings beside them (growth.npy)" in caplog.text


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_png_of_few_bits(tmp_path: Path, bits: int) -> None:
    """The counts of a PNG with 2 or 4 bits per pixel are those that are stored; decoders expand them to 0 to 255."""
    counts = FRAMES[0] >> (8 - bits)
    packed = np.packbits(
        np.unpackbits(counts[..., None], axis=2)[..., 8 - bits :].reshape(len(counts), -1), axis=1
    )
    write_png(tmp_path / "a.png", [row.tobytes() for row in packed], counts.shape, bits)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.png"))[0], counts)


@pytest.mark.parametrize(
    ("calibration", "refused"),
    [
        ("cf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value\n", "c0 -32768"),
        ("cf=0\nc0=255.0\nc1=-1.0\nvunit=inverted\n", "c1 -1"),
        ("cf=21\nvunit=Uncalibrated OD\n", "function 21"),
        ("cf=0\nc0=0.0\nc1=1.0\n", ""),
        ("", ""),
    ],
)
def test_a_calibration_of_imagej(tmp_path: Path, calibration: str, refused: str) -> None:
    """Values that are not the numbers of the file are refused, as those of CF and NeXus are; --channel raw has them."""
    path = tmp_path / "a.tif"
    text = f"ImageJ=1.53t\nimages={len(DEEP)}\nslices={len(DEEP)}\nloop=false\n{calibration}"
    tifffile.imwrite(path, DEEP, description=text, metadata=None, photometric="minisblack")
    if refused:
        with pytest.raises(ConfigError, match=refused):
            open_source(path)
    channel = "raw" if refused else None
    np.testing.assert_array_equal(read(open_source(path, channel=channel)), DEEP)
