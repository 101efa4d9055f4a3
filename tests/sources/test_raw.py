from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import DamagedSourceError, open_source
from atomstream.sources.geometry import parse_geometry
from tests.sources.source_files import DEEP, FRAMES, read


@pytest.mark.parametrize(
    ("text", "shape", "bits", "frame_bytes", "header", "each"),
    [
        ("640x480", (480, 640), 8, 307200, 0, None),
        ("640X480x16", (480, 640), 16, 614400, 0, None),
        (" 64x48x12+640 ", (48, 64), 12, 6144, 640, None),
        ("64x48x16be+1024+8", (48, 64), 16, 6144, 1024, 8),
        ("64x48xmono12p", (48, 64), 12, 4608, 0, None),
        ("64x48xMono12Packed+10", (48, 64), 12, 4608, 10, None),
        ("64×48x10p", (48, 64), 10, 3840, 0, None),
    ],
)
def test_geometry(
    text: str, shape: tuple[int, int], bits: int, frame_bytes: int, header: int, each: int | None
) -> None:
    """Sizes, pixels and headers are read from one text; letters of any case, with the names of GenICam."""
    found = parse_geometry(text)
    assert (found.height, found.width) == shape
    assert (found.bits, found.frame_bytes, found.header, found.each) == (bits, frame_bytes, header, each)


@pytest.mark.parametrize(
    "text", ["", "640", "640x", "0x480", "640x480x17", "640x480x7", "640x480x8be", "axb", "6x4x12q"]
)
def test_other_geometries_show_the_form(text: str) -> None:
    """Any other text is refused with the form that is expected."""
    with pytest.raises(ConfigError, match=r"geometry|--geometry"):
        parse_geometry(text)


@pytest.mark.parametrize("pixel", ["16", "16be", "12"])
def test_words(tmp_path: Path, pixel: str) -> None:
    """Pixels of 16 bits in both byte orders, and of 12 bits in two bytes, come as they are."""
    (tmp_path / "a.raw").write_bytes(DEEP.astype(">u2" if pixel == "16be" else "<u2").tobytes())
    frames = read(open_source(tmp_path / "a.raw", geometry=f"64x48x{pixel}"))
    np.testing.assert_array_equal(frames, DEEP)
    assert frames.dtype == np.uint16


def test_packed_pixels(tmp_path: Path) -> None:
    """Two pixels of 12 bits in three bytes become uint16."""
    even, odd = DEEP[..., ::2].astype(np.uint8), DEEP[..., 1::2].astype(np.uint8)
    middle = (DEEP[..., ::2] >> 8) | ((DEEP[..., 1::2] & 15) << 4)
    last = DEEP[..., 1::2] >> 4
    assert odd.shape == even.shape
    (tmp_path / "a.bin").write_bytes(
        np.stack([even, middle.astype(np.uint8), last.astype(np.uint8)], -1).tobytes()
    )
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.bin", geometry="64x48x12p")), DEEP)


def test_a_header_before_all_or_before_each(tmp_path: Path) -> None:
    """One number: before all frames of a .raw, before each of an .imm and .img. Two numbers: both."""
    each = b"".join(b"h" * 640 + frame.tobytes() for frame in DEEP)
    (tmp_path / "a.imm").write_bytes(each)
    (tmp_path / "a.img").write_bytes(each[: 640 + DEEP[0].nbytes])
    (tmp_path / "a.raw").write_bytes(b"h" * 100 + FRAMES.tobytes())
    (tmp_path / "b.raw").write_bytes(b"h" * 7 + each)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.imm", geometry="64x48x16+640")), DEEP)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.img", geometry="64x48x16+640")), DEEP[:1])
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.raw", geometry="64x48+100")), FRAMES)
    np.testing.assert_array_equal(read(open_source(tmp_path / "b.raw", geometry="64x48x16+7+640")), DEEP)


def test_a_header_in_the_other_place_is_refused(tmp_path: Path) -> None:
    """If the length of the file fits only with the header in the other place, the error has the option for it."""
    (tmp_path / "a.raw").write_bytes(b"".join(b"h" * 64 + frame.tobytes() for frame in FRAMES))
    with pytest.raises(ConfigError, match=r"before each frame.*\+0\+64"):
        open_source(tmp_path / "a.raw", geometry="64x48+64")
    (tmp_path / "a.imm").write_bytes(b"h" * 64 + FRAMES.tobytes())
    with pytest.raises(ConfigError, match=r"once.*\+64\+0"):
        open_source(tmp_path / "a.imm", geometry="64x48+64")


def test_raw_without_a_geometry(tmp_path: Path) -> None:
    """Raw pixels of unknown layout are refused, with the option; so is a file shorter than a frame."""
    for name in ("a.raw", "a.bin", "a.img", "a.imm"):
        (tmp_path / name).write_bytes(bytes(5000))
        with pytest.raises(ConfigError, match=rf"{name} holds raw pixels.*--geometry WxH"):
            open_source(tmp_path / name)
        with pytest.raises(ConfigError, match="fewer than one frame"):
            open_source(tmp_path / name, geometry="640x480")
    np.save(tmp_path / "a.npy", FRAMES)
    with pytest.raises(ConfigError, match=r"a\.npy.*geometry"):
        open_source(tmp_path / "a.npy", geometry="64x48")


def test_values_that_contradict_the_bits(tmp_path: Path) -> None:
    """A value above the stated bits means another layout, and is refused."""
    frames = DEEP.copy()
    frames[5, 3, 2] = 1 << 12
    (tmp_path / "a.raw").write_bytes(frames.tobytes())
    chunks = open_source(tmp_path / "a.raw", geometry="64x48x12").chunks(4)
    np.testing.assert_array_equal(next(chunks).frames, DEEP[:4])
    np.testing.assert_array_equal(next(chunks).frames, DEEP[4:5])
    with pytest.raises(ConfigError, match=r"frame 5.*4096.*12 bits.*--geometry"):
        next(chunks)


def test_a_raw_file_cut_off(tmp_path: Path) -> None:
    """The whole frames are read, then the error names the frame, the byte and the number of bytes that exist."""
    (tmp_path / "a.raw").write_bytes(FRAMES.tobytes()[:-1000])
    source = open_source(tmp_path / "a.raw", geometry="64x48")
    chunks = source.chunks(8)
    np.testing.assert_array_equal(np.concatenate([next(chunks).frames, next(chunks).frames]), FRAMES[:10])
    with pytest.raises(
        DamagedSourceError, match=r"frame 10 of a\.raw from byte 30720.*after 2072 of 3072 bytes"
    ):
        next(chunks)
    lenient = open_source(tmp_path / "a.raw", geometry="64x48", skip_damaged=True)
    np.testing.assert_array_equal(read(lenient), FRAMES[:10])
    assert [(gap.frame, gap.frames, gap.byte) for gap in lenient.gaps] == [(10, 1, 30720)]


@pytest.mark.parametrize(("signature", "length"), [(b"KSA00F", 640), (b"KSA00J", 685)])
def test_the_header_of_ksa(tmp_path: Path, signature: bytes, length: int) -> None:
    """The size in a header of kSA 400 is taken only if the length of the file fits it exactly."""
    header = bytearray(length)
    header[39:45] = signature
    struct.pack_into("<H", header, 48, 64)
    struct.pack_into("<H", header, 320, 48)
    movie = b"".join(bytes(header) + frame.tobytes() for frame in DEEP)
    (tmp_path / "a.imm").write_bytes(movie)
    np.testing.assert_array_equal(read(open_source(tmp_path / "a.imm")), DEEP)
    (tmp_path / "b.imm").write_bytes(movie[:-1])
    with pytest.raises(ConfigError, match="--geometry"):
        open_source(tmp_path / "b.imm")
