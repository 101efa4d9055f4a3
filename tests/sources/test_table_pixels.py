"""What a pixel value means, for each reader: polarity, palettes, colours, opacity, range, orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.sources.pixels import turned
from tests.sources.avi_files import avi
from tests.sources.file_table import (
    ARRAY_FILES,
    COLOUR,
    GREY,
    SAME_COLOURS,
    Cell,
    check,
    images,
    parametrized,
    pictures,
    planes,
    tiff,
    video,
)

RGBA = np.concatenate([SAME_COLOURS, np.full_like(GREY[..., None], 255)], axis=-1)
CLEAR = RGBA.copy()
CLEAR[1, 3, 3, 3] = 9
LUMA = np.floor(COLOUR @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)
RAMP = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
FALSE_COLOURS = np.stack([RAMP[0], RAMP[0] * 0, RAMP[0]])
GREY_PALETTE = [(v, v, v) for v in range(256)]
RED_PALETTE = [(v, 0, 0) for v in range(256)]

COLOURS_REFUSED = r"frame 0 is a colour picture.*--channel\): luma, r, g or b"
PALETTE_REFUSED = r"colours of a palette.*--channel raw"
OPACITY_REFUSED = r"frame \d is transparent.*--channel 0"


def with_palette(colours: list[tuple[int, int, int]]) -> Any:
    """Save images of indices by Pillow."""
    pillow = pytest.importorskip("PIL.Image")

    def save(k: int, path: Path) -> None:
        image = pillow.frombytes("P", (32, 24), GREY[k].tobytes())
        image.putpalette([value for colour in colours for value in colour])
        image.save(path)

    return save


def exif(suffix: str, orientation: int) -> Any:
    """Save images with an orientation in EXIF."""
    pillow = pytest.importorskip("PIL.Image")
    notes = pillow.Exif()
    notes[274] = orientation
    return pictures(suffix, GREY, exif=notes, quality=100)


def pgm(k: int, path: Path, header: bytes = b"P5 32 24 255\n") -> None:
    """Save a PGM image."""
    path.write_bytes(header + GREY[k].tobytes())


ARRAYS = [
    cell
    for reader, write in ARRAY_FILES
    for cell in (
        Cell(reader, "equal colours", write(SAME_COLOURS), GREY, options={"axes": "NHWC"}),
        Cell(reader, "colours", write(COLOUR), refused=COLOURS_REFUSED, options={"axes": "NHWC"}),
        Cell(reader, "luma", write(COLOUR), LUMA, options={"axes": "NHWC", "channel": "luma"}),
        Cell(reader, "green", write(COLOUR), GREY // 2, options={"axes": "NHWC", "channel": "g"}),
        Cell(reader, "opaque", write(RGBA), GREY, options={"axes": "NHWC"}),
        Cell(reader, "transparent", write(CLEAR), refused=OPACITY_REFUSED, options={"axes": "NHWC"}),
        Cell(reader, "levels", write(GREY), GREY, options={"levels": (0, 255)}),
        Cell(reader, "no such channel", write(GREY), refused="no channel '1'", options={"channel": "1"}),
    )
]

TIFF = [
    Cell("tiff", "0 is white", tiff(255 - GREY, photometric="miniswhite"), GREY),
    Cell("tiff", "0 is white, zlib", tiff(255 - GREY, photometric="miniswhite", compression="zlib"), GREY),
    Cell("tiff", "grey palette", tiff(GREY, photometric="palette", colormap=RAMP), GREY),
    Cell("tiff", "inverted palette", tiff(GREY, photometric="palette", colormap=RAMP[:, ::-1]), 255 - GREY),
    Cell("tiff", "palette of v * 256", tiff(GREY, photometric="palette", colormap=RAMP // 257 * 256), GREY),
    Cell(
        "tiff", "palette", tiff(GREY, photometric="palette", colormap=FALSE_COLOURS), refused=PALETTE_REFUSED
    ),
    Cell(
        "tiff",
        "indices",
        tiff(GREY, photometric="palette", colormap=FALSE_COLOURS),
        GREY,
        options={"channel": "raw"},
    ),
    Cell("tiff", "equal colours", tiff(SAME_COLOURS, photometric="rgb"), GREY),
    Cell(
        "tiff",
        "planes",
        tiff(np.moveaxis(SAME_COLOURS, -1, 1), photometric="rgb", planarconfig="separate"),
        GREY,
    ),
    Cell("tiff", "colours", tiff(COLOUR, photometric="rgb"), refused=COLOURS_REFUSED),
    Cell("tiff", "blue", tiff(COLOUR, photometric="rgb"), GREY // 3, options={"channel": "b"}),
    Cell("tiff", "luma", tiff(COLOUR, photometric="rgb"), LUMA, options={"channel": "luma"}),
    Cell("tiff", "opaque", tiff(RGBA, photometric="rgb", extrasamples=["unassalpha"]), GREY),
    Cell(
        "tiff",
        "transparent",
        tiff(CLEAR, photometric="rgb", extrasamples=["unassalpha"]),
        refused=OPACITY_REFUSED,
    ),
    Cell("tiff", "CMYK", tiff(RGBA, photometric="separated"), refused=r"CMYK.*--channel 0"),
    Cell("tiff", "Lab", tiff(SAME_COLOURS, photometric="cielab"), refused=r"Lab.*--channel 0"),
    *(
        Cell(
            "tiff",
            f"orientation {value}",
            tiff(GREY, photometric="minisblack", extratags=[(274, 3, 1, value, True)]),
            turned(GREY, value),
        )
        for value in range(1, 9)
    ),
]

IMAGES = [
    Cell("png", "grey", pictures(".png", GREY), GREY),
    Cell("png", "equal colours", pictures(".png", SAME_COLOURS), GREY),
    Cell("png", "colours", pictures(".png", COLOUR), refused=r"f0\.png: " + COLOURS_REFUSED),
    Cell("png", "red", pictures(".png", COLOUR), GREY, options={"channel": "r"}),
    Cell("png", "opaque", pictures(".png", RGBA), GREY),
    Cell("png", "transparent", pictures(".png", CLEAR), refused=OPACITY_REFUSED),
    Cell("png", "grey palette", images(".png", with_palette(GREY_PALETTE)), GREY),
    Cell("png", "palette", images(".png", with_palette(RED_PALETTE)), refused=PALETTE_REFUSED),
    Cell("png", "indices", images(".png", with_palette(RED_PALETTE)), GREY, options={"channel": "raw"}),
    Cell("png", "orientation", exif(".png", 6), turned(GREY, 6)),
    Cell("jpeg", "grey", pictures(".jpg", GREY, quality=100), GREY, tolerance=2),
    Cell("jpeg", "equal colours", pictures(".jpg", SAME_COLOURS, quality=100), GREY, tolerance=3),
    Cell("jpeg", "colours", pictures(".jpg", COLOUR, quality=100), refused=COLOURS_REFUSED),
    Cell("jpeg", "orientation 3", exif(".jpg", 3), turned(GREY, 3), tolerance=2),
    Cell("jpeg", "orientation 8", exif(".jpg", 8), turned(GREY, 8), tolerance=2),
    Cell("bmp", "grey", pictures(".bmp", GREY), GREY),
    Cell("bmp", "equal colours", pictures(".bmp", SAME_COLOURS), GREY),
    Cell("bmp", "colours", pictures(".bmp", COLOUR), refused=COLOURS_REFUSED),
    Cell("bmp", "palette", images(".bmp", with_palette(RED_PALETTE)), refused=PALETTE_REFUSED),
    Cell("bmp", "inverted palette", images(".bmp", with_palette(GREY_PALETTE[::-1])), 255 - GREY),
    Cell("pgm", "binary", images(".pgm", pgm), GREY),
    Cell("pgm", "comments", images(".pgm", lambda k, p: pgm(k, p, b"P5 # 1\n# 2\n32 24\n255\n")), GREY),
    Cell(
        "pgm",
        "text",
        images(".pgm", lambda k, p: p.write_text(f"P2 32 24 255 {' '.join(map(str, GREY[k].ravel()))}")),
        GREY,
    ),
]


def full_range(stream: Any) -> None:
    """State that the video has the full range."""
    stream.codec_context.color_range = 2


def display_rotation(degrees: int) -> Any:
    """State how the video is displayed, counterclockwise."""
    return lambda stream: stream.set_display_rotation(degrees)


EXPANDED = np.clip(np.floor((GREY - 16.0) * 255 / 219 + 0.5), 0, 255).astype(np.uint8)
"""What counts are that are taken for luma of the limited range."""

YUV = {"pix_fmt": "yuv420p", "source": "yuv420p"}
X264 = {"codec": "libx264", "name": "a.mp4", "options": {"qp": "0"}}

VIDEO = [
    Cell("video", "grey", video(GREY), GREY),
    Cell("video", "limited range", video(GREY, pix_fmt="yuv420p"), GREY, tolerance=1),
    Cell("video", "full range", video(planes(GREY), **YUV, prepare=full_range), GREY),
    Cell("video", "full range by option", video(planes(GREY), **YUV), GREY, options={"video_range": "full"}),
    Cell(
        "video",
        "clipped",
        video(planes(GREY), **YUV),
        EXPANDED,
        logged=r"pixels lie outside.*--video-range full",
    ),
    Cell("video", "old name of the full range", video(GREY, pix_fmt="yuvj420p", **X264), GREY),
    Cell("video", "monochrome H.264", video(GREY, **X264), GREY),
    Cell("video", "equal colours", video(SAME_COLOURS, pix_fmt="bgr0", source="rgb24"), GREY),
    Cell("video", "colours", video(COLOUR, pix_fmt="bgr0", source="rgb24"), refused=COLOURS_REFUSED),
    Cell(
        "video", "green", video(COLOUR, pix_fmt="bgr0", source="rgb24"), GREY // 2, options={"channel": "g"}
    ),
    Cell("video", "luma", video(COLOUR, pix_fmt="bgr0", source="rgb24"), LUMA, options={"channel": "luma"}),
    Cell("video", "chroma", video(COLOUR, pix_fmt="yuv444p", source="rgb24"), refused=COLOURS_REFUSED),
    Cell(
        "video",
        "luma of chroma",
        video(COLOUR, pix_fmt="yuv444p", source="rgb24"),
        LUMA,
        options={"channel": "luma"},
        tolerance=2,
    ),
    Cell(
        "video",
        "red of chroma",
        video(COLOUR, pix_fmt="yuv444p", source="rgb24"),
        GREY,
        options={"channel": "r"},
        tolerance=4,
    ),
    Cell("video", "turned by 90", video(GREY, **X264, prepare=display_rotation(90)), turned(GREY, 8)),
    Cell("video", "turned by 180", video(GREY, **X264, prepare=display_rotation(180)), turned(GREY, 3)),
    Cell("video", "odd width", video(GREY[:, :23, :29]), GREY[:, :23, :29]),
    Cell("video", "rows from the bottom", avi(GREY[:, :, :29], palette=GREY_PALETTE), GREY[:, :, :29]),
    Cell(
        "video",
        "rows from the top",
        avi(GREY[:, :, :29], palette=GREY_PALETTE, top_down=True),
        GREY[:, :, :29],
    ),
    Cell("video", "no palette", avi(GREY), GREY),
    Cell("video", "inverted palette", avi(GREY, palette=GREY_PALETTE[::-1]), 255 - GREY),
    Cell("video", "palette", avi(GREY, palette=RED_PALETTE), refused=PALETTE_REFUSED),
    Cell("video", "indices", avi(GREY, palette=RED_PALETTE), GREY, options={"channel": "raw"}),
    Cell("video", "24 bits", avi(SAME_COLOURS), GREY),
]

CELLS = [*ARRAYS, *TIFF, *IMAGES, *VIDEO]


@parametrized(CELLS)
def test_pixels(cell: Cell, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frames are exactly what the file states, or the file is refused with the option that decides."""
    check(cell, tmp_path, caplog)
