from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from tests.sources.source_files import read, tifffile

FRAMES = np.stack([np.add.outer(np.arange(40), np.arange(300)) * 3 + 9 * k for k in range(3)]).astype(
    np.uint8
)


def lzw(data: bytes, early: int) -> bytes:
    """An LZW strip whose codes get longer ``early`` codes before the table is full."""
    bits, count, out = 0, 0, bytearray()
    table = {bytes([value]): value for value in range(256)}
    known, found = 258, b""

    def put(code: int) -> None:
        nonlocal bits, count
        # The reader's table lacks the newest entry, which the writer already has.
        width = min(12, max(9, (known - 1 + early).bit_length()))
        bits, count = bits << width | code, count + width
        while count >= 8:
            count -= 8
            out.append(bits >> count & 255)
            bits &= (1 << count) - 1

    put(256)
    for value in data:
        new = found + bytes([value])
        if new in table:
            found = new
            continue
        put(table[found])
        table[new], known, found = known, known + 1, bytes([value])
        if known == 4093:
            put(256)
            table, known = {bytes([one]): one for one in range(256)}, 258
    put(table[found])
    known += 1
    put(257)
    return bytes(out) + (bytes([bits << (8 - count) & 255]) if count else b"")


def write(path: Path, early: int, *, predictor: bool = False) -> None:
    """A TIFF of two strips a page with such strips in place of the library's."""
    imagecodecs = pytest.importorskip("imagecodecs")
    kind = {"predictor": True} if predictor else {}
    tifffile.imwrite(path, FRAMES, compression="lzw", rowsperstrip=25, photometric="minisblack", **kind)
    with tifffile.TiffFile(path) as tif:
        pages = [
            (page.dataoffsets, page.databytecounts, page.tags[273], page.tags[279]) for page in tif.pages
        ]
    with open(path, "r+b") as file:
        for offsets, counts, places, lengths in pages:
            for k, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
                file.seek(offset)
                strip = lzw(imagecodecs.lzw_decode(file.read(count)), early)
                at = file.seek(0, 2)
                file.write(strip)
                for tag, value in ((places, at), (lengths, len(strip))):
                    size = tag.valuebytecount // 2
                    file.seek(tag.valueoffset + k * size)
                    file.write(value.to_bytes(size, "little"))


@pytest.mark.parametrize("early", [0, 1, 2])
def test_codes_that_get_longer_at_another_place(tmp_path: Path, early: int) -> None:
    """Writers that lengthen codes later (as GIF) or earlier than TIFF defines: the pixels are exact."""
    write(tmp_path / "a.tif", early)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), FRAMES)


def test_differences_of_neighbours(tmp_path: Path) -> None:
    """The predictor of TIFF is undone for such strips as well."""
    write(tmp_path / "a.tif", 2, predictor=True)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.tif")), FRAMES)


def test_a_damaged_strip_is_not_another_kind(tmp_path: Path) -> None:
    """A strip with wrong bytes fits no kind of LZW: the frame is refused, not guessed."""
    write(tmp_path / "a.tif", 2)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        offset = tif.pages[0].dataoffsets[0]
    with open(tmp_path / "a.tif", "r+b") as file:
        file.seek(offset + 200)
        file.write(b"\xff" * 20)
    with pytest.raises(ConfigError, match=r"frame 0 of a\.tif .*can't be decoded"):
        read(open_source(tmp_path / "a.tif", skip_damaged=False))
