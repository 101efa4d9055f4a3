"""How many bits a pixel has, for each reader: all are kept, nothing is scaled or cut, the rest needs --levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.sources import to_uint8
from tests.sources.avi_files import avi
from tests.sources.file_table import (
    DEEP,
    GREY,
    Cell,
    check,
    encoded,
    hdf5,
    images,
    npy,
    npz,
    parametrized,
    pictures,
    tiff,
    video,
    zarr_array,
)

DEEP_COLOURS = np.repeat(DEEP[..., None], 3, axis=-1)
UNIT = GREY / 255
LEVELS_REFUSED = r"pixels; uint8 and uint16 can be streamed as they are.*--levels LOW HIGH"
WITH_NAN = np.where(GREY == 9, np.nan, UNIT)
WITH_INF = np.where(GREY > 200, np.inf, np.where(GREY < 20, -np.inf, UNIT))
CLIPPED = np.where(GREY > 200, 255, np.where(GREY < 20, 0, GREY)).astype(np.uint8)
BITS = GREY > 128
BLACK_WHITE = np.where(BITS, 255, 0).astype(np.uint8)
UNIT_LEVELS = {"levels": (0, 1)}


def hdf5_of(array: Any) -> Callable[[Path], Path]:
    """Write an HDF5 file with one array."""
    return hdf5({"frames": (array, {})})


def tiff_of(array: Any) -> Callable[[Path], Path]:
    """Write a TIFF of grey values."""
    return tiff(array, photometric="minisblack")


ARRAYS = [
    cell
    for reader, write in (
        ("npy", npy),
        ("npz", lambda a: npz(frames=a)),
        ("zarr", zarr_array),
        ("tiff", tiff_of),
        ("hdf5", hdf5_of),
    )
    for cell in (
        Cell(reader, "8 bits", write(GREY), GREY),
        Cell(reader, "16 bits", write(DEEP), DEEP),
        Cell(reader, "16 bits to 8", write(DEEP), to_uint8(DEEP, 0, 4095), options={"levels": (0, 4095)}),
        Cell(reader, "float32", write(UNIT.astype(np.float32)), refused=f"float32 {LEVELS_REFUSED}"),
        Cell(reader, "float32 by levels", write(UNIT.astype(np.float32)), GREY, options=UNIT_LEVELS),
        Cell(reader, "float64 by levels", write(UNIT), GREY, options=UNIT_LEVELS),
        Cell(reader, "NaN", write(WITH_NAN), refused="frame 0 or one after it.*NaN", options=UNIT_LEVELS),
        Cell(reader, "infinity", write(WITH_INF), CLIPPED, options=UNIT_LEVELS),
        Cell(reader, "int16", write(GREY.astype(np.int16)), refused=f"int16 {LEVELS_REFUSED}"),
        Cell(
            reader, "int16 by levels", write(GREY.astype(np.int16) - 99), GREY, options={"levels": (-99, 156)}
        ),
        Cell(reader, "int8", write(GREY.view(np.int8)), refused=f"int8 {LEVELS_REFUSED}"),
        Cell(reader, "uint32", write(GREY.astype(np.uint32)), refused=f"uint32 {LEVELS_REFUSED}"),
        Cell(reader, "uint32 by levels", write(GREY.astype(np.uint32)), GREY, options={"levels": (0, 255)}),
        Cell(reader, "bool", write(BITS), refused=r"1-bit pixels.*--levels 0 1"),
        Cell(reader, "bool by levels", write(BITS), BLACK_WHITE, options=UNIT_LEVELS),
        Cell(
            reader,
            "complex",
            write(GREY.astype(np.complex64)),
            refused="complex64 pixels, which are not a brightness|has no array",
        ),
    )
]

ORDERS = [
    Cell("npy", "big-endian", npy(DEEP.astype(">u2")), DEEP),
    Cell("npz", "big-endian", npz(frames=DEEP.astype(">u2")), DEEP),
    Cell("zarr", "big-endian", zarr_array(DEEP.astype(">u2"), zarr_format=2), DEEP),
    Cell("tiff", "big-endian", tiff(DEEP, photometric="minisblack", byteorder=">"), DEEP),
    Cell(
        "tiff",
        "big-endian, zlib",
        tiff(DEEP, photometric="minisblack", byteorder=">", compression="zlib"),
        DEEP,
    ),
    Cell("tiff", "0 is white, 16 bits", tiff(65535 - DEEP, photometric="miniswhite"), DEEP),
    Cell("tiff", "0 is white, float", tiff(1 - UNIT, photometric="miniswhite"), GREY, options=UNIT_LEVELS),
    Cell(
        "tiff", "0 is white, 1 bit", tiff(~BITS, photometric="miniswhite"), BLACK_WHITE, options=UNIT_LEVELS
    ),
    Cell("tiff", "16-bit colours", tiff(DEEP_COLOURS, photometric="rgb"), DEEP),
    Cell("npy", "columns first", npy(np.asfortranarray(DEEP)), DEEP),
]


def pgm(*maxima: int) -> Callable[[Path], Path]:
    """Write 16-bit PGM images, each with its own maximum; below 256, of the frame divided by 20."""

    def save(k: int, path: Path) -> None:
        frame = DEEP[k] // 20 if maxima[k] < 256 else DEEP[k]
        path.write_bytes(
            b"P5 32 24 %d\n" % maxima[k] + frame.astype(">u2" if maxima[k] > 255 else "u1").tobytes()
        )

    return images(".pgm", save)


IMAGES = [
    Cell("png", "8 bits", pictures(".png", GREY), GREY),
    Cell("png", "16 bits", pictures(".png", DEEP), DEEP),
    Cell("png", "16-bit colours", encoded(".png", DEEP_COLOURS, "rgb48be", "png"), DEEP),
    Cell("png", "1 bit", pictures(".png", BITS), refused=r"f0\.png holds 1-bit pixels.*--levels 0 1"),
    Cell("png", "1 bit by levels", pictures(".png", BITS), BLACK_WHITE, options=UNIT_LEVELS),
    Cell("png", "levels", pictures(".png", DEEP), to_uint8(DEEP, 0, 4095), options={"levels": (0, 4095)}),
    Cell("jpeg", "8 bits", pictures(".jpg", GREY, quality=100), GREY, tolerance=2),
    Cell("bmp", "8 bits", pictures(".bmp", GREY), GREY),
    Cell("bmp", "1 bit", pictures(".bmp", BITS), BLACK_WHITE),  # its palette is black and white
    Cell(
        "pgm",
        "8 bits",
        images(".pgm", lambda k, path: path.write_bytes(b"P5 32 24 255\n" + GREY[k].tobytes())),
        GREY,
    ),
    Cell("pgm", "12 bits", pgm(4095, 4095, 4095), DEEP),
    Cell("pgm", "a maximum for each file", pgm(4021, 3999, 4000), DEEP),
    Cell(
        "pgm",
        "a dark frame",
        pgm(200, 4000, 4000),
        np.stack([DEEP[0] // 20, DEEP[1], DEEP[2]]),
    ),
    Cell(
        "pgm",
        "text of 12 bits",
        images(
            ".pgm", lambda k, path: path.write_text(f"P2 32 24 4095 {' '.join(map(str, DEEP[k].ravel()))}")
        ),
        DEEP,
    ),
]

H264 = {"codec": "libx264", "name": "a.mp4", "options": {"qp": "0"}}

VIDEO = [
    Cell("video", "8 bits", video(GREY), GREY),
    *(
        Cell(
            "video",
            f"{bits} bits",
            video(DEEP >> shift, pix_fmt=f"gray{bits}le", source=f"gray{bits}le"),
            DEEP >> shift,
        )
        for bits, shift in ((10, 2), (12, 0), (16, 0))
    ),
    Cell("video", "10-bit H.264", video(DEEP >> 2, pix_fmt="gray10le", source="gray10le", **H264), DEEP >> 2),
    Cell(
        "video",
        "10 bits with chroma",
        video(DEEP << 4, pix_fmt="yuv420p10le", source="gray16le", **H264),
        (DEEP >> 2).astype(np.uint16),
        tolerance=2,
    ),
    Cell("video", "8 bits of AVI", avi(GREY, palette=[(v, v, v) for v in range(256)]), GREY),
    Cell(
        "video",
        "levels",
        video(DEEP, pix_fmt="gray12le", source="gray12le"),
        to_uint8(DEEP, 0, 4095),
        options={"levels": (0, 4095)},
    ),
]

CELLS = [*ARRAYS, *ORDERS, *IMAGES, *VIDEO]


@parametrized(CELLS)
def test_depth(cell: Cell, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts of up to 16 bits are kept as they are; other numbers are refused without --levels."""
    check(cell, tmp_path, caplog)
