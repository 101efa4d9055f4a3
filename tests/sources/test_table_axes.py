"""What an axis means, for each reader: (N, H, W) and nothing else is guessed; the file or --axes states the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import ArraySource
from atomstream.sources.axes import layout
from tests.sources.file_table import (
    ARRAY_FILES,
    COLOUR,
    GREY,
    SAME_COLOURS,
    Cell,
    check,
    parametrized,
    pictures,
    tiff,
    video,
    zarr_group,
)
from tests.sources.source_files import tifffile, zarr

SIX = np.concatenate([GREY, GREY[::-1]])
LAST = np.moveaxis(GREY, 0, -1)
TWO_CHANNELS = np.stack([GREY, GREY // 2], axis=1)


def ome_zarr(axes: list[dict[str, str]], array: Any, scale: list[float], version: str) -> Any:
    """Write an OME-Zarr group of version 0.4 or 0.5, with a smaller copy."""

    def write(folder: Path) -> Path:
        transformations = [{"type": "scale", "scale": scale}]
        image = {
            "axes": axes,
            "datasets": [{"path": "0", "coordinateTransformations": transformations}, {"path": "1"}],
        }
        notes: dict[str, Any] = {"multiscales": [image]}
        group = zarr.create_group(
            str(folder / "a.ome.zarr"),
            zarr_format=2 if version == "0.4" else 3,
            attributes=notes if version == "0.4" else {"ome": notes},
        )
        group.create_array("0", data=array)
        group.create_array("1", data=array[..., ::2, ::2])
        return folder / "a.ome.zarr"

    return write


TCZYX = [{"name": name} for name in "tczyx"]
TYX_MS = [{"name": "t", "type": "time", "unit": "millisecond"}, {"name": "y"}, {"name": "x"}]

ARRAYS = [
    cell
    for reader, write in ARRAY_FILES
    for cell in (
        Cell(reader, "N H W", write(GREY), GREY),
        Cell(reader, "H W", write(GREY[0]), GREY[:1]),
        Cell(reader, "N H W 1", write(GREY[..., None]), GREY),
        Cell(reader, "1 N H W", write(GREY[None]), GREY),
        Cell(reader, "N 1 1 H W", write(GREY[:, None, None]), GREY),
        Cell(
            reader, "H W 1", write(GREY[0][..., None]), refused=r"\(24, 32, 1\).*one colour picture.*--axes"
        ),
        Cell(reader, "H W 3", write(COLOUR[0]), refused=r"\(24, 32, 3\).*one colour picture.*--axes"),
        Cell(reader, "N H W 3", write(COLOUR), refused=r"\(3, 24, 32, 3\) \(colour frames\?\).*--axes"),
        Cell(reader, "T Z H W", write(SIX.reshape(3, 2, 24, 32)), refused=r"\(3, 2, 24, 32\).*--axes"),
        Cell(reader, "TZYX", write(SIX.reshape(3, 2, 24, 32)), SIX, options={"axes": "TZYX"}),
        Cell(
            reader,
            "ZTYX: time is slowest",
            write(SIX.reshape(3, 2, 24, 32).swapaxes(0, 1)),
            SIX,
            options={"axes": "ztyx"},
        ),
        Cell(reader, "HWN", write(LAST), GREY, options={"axes": "HWN"}),
        Cell(reader, "XYT", write(GREY.T), GREY, options={"axes": "XYT"}),
        Cell(reader, "HWC", write(SAME_COLOURS[0]), GREY[:1], options={"axes": "HWC"}),
        Cell(reader, "TCYX", write(TWO_CHANNELS), GREY // 2, options={"axes": "TCYX", "channel": "1"}),
        Cell(reader, "channels", write(TWO_CHANNELS), refused="--channel.*0 to 1", options={"axes": "TCYX"}),
        Cell(reader, "too few letters", write(GREY), refused="'HW' name 2 axes", options={"axes": "HW"}),
        Cell(reader, "twice", write(GREY), refused="no axis twice", options={"axes": "HHW"}),
        Cell(reader, "no rows", write(GREY), refused="rows and columns once", options={"axes": "NCW"}),
        Cell(reader, "unknown", write(GREY), refused="contain K", options={"axes": "KHW"}),
    )
]

ZARR = [
    Cell("zarr", "names", zarr_group({"frames": (LAST, {"dims": ("y", "x", "time")})}), GREY),
    Cell("zarr", "unknown names", zarr_group({"frames": (GREY, {"dims": ("scan", "v", "u")})}), GREY),
    Cell(
        "zarr",
        "option over names",
        zarr_group({"frames": (LAST, {"dims": ("t", "y", "x")})}),
        GREY,
        options={"axes": "YXT"},
    ),
    Cell("zarr", "the only array", zarr_group({"film": (GREY, {}), "time": (np.arange(3.0), {})}), GREY),
    Cell(
        "zarr",
        "in a group",
        zarr_group({"entry/data/film": (GREY, {}), "entry/start": (np.arange(2), {})}),
        GREY,
    ),
    Cell(
        "zarr",
        "two arrays",
        zarr_group({"film": (GREY, {}), "dark": (GREY, {})}),
        refused="dataset of dark, film",
    ),
    Cell("zarr", "OME 0.4", ome_zarr(TCZYX, GREY[:, None, None], [1.0] * 5, "0.4"), GREY),
    Cell(
        "zarr",
        "OME 0.4 by name",
        ome_zarr(TCZYX, GREY[:, None, None], [1.0] * 5, "0.4"),
        GREY,
        options={"dataset": "0"},
    ),
    Cell("zarr", "OME 0.5", ome_zarr(TYX_MS, GREY, [50.0, 1.0, 1.0], "0.5"), GREY, fps=20.0),
]

IMAGEJ = {"imagej": True}
OME = {"ome": True, "photometric": "minisblack"}

TIFF = [
    Cell("tiff", "N H W", tiff(GREY, photometric="minisblack"), GREY),
    Cell("tiff", "H W", tiff(GREY[0]), GREY[:1]),
    Cell("tiff", "ImageJ TZYX", tiff(SIX.reshape(3, 2, 24, 32), **IMAGEJ, metadata={"axes": "TZYX"}), SIX),
    Cell("tiff", "OME TZYX", tiff(SIX.reshape(3, 2, 24, 32), **OME, metadata={"axes": "TZYX"}), SIX),
    Cell(
        "tiff",
        "OME ZTYX, zlib",
        tiff(SIX.reshape(3, 2, 24, 32).swapaxes(0, 1), **OME, metadata={"axes": "ZTYX"}, compression="zlib"),
        SIX,
    ),
    Cell(
        "tiff",
        "equal channels",
        tiff(np.repeat(GREY[:, None], 3, 1), **IMAGEJ, metadata={"axes": "TCYX"}),
        GREY,
    ),
    Cell(
        "tiff",
        "channels",
        tiff(TWO_CHANNELS, **IMAGEJ, metadata={"axes": "TCYX"}),
        refused="--channel.*0 to 1",
    ),
    Cell(
        "tiff",
        "one channel, zlib",
        tiff(TWO_CHANNELS, **OME, metadata={"axes": "TCYX"}, compression="zlib"),
        GREY // 2,
        options={"channel": "1"},
    ),
    Cell("tiff", "called channels", tiff(GREY, **IMAGEJ), GREY),
    Cell("tiff", "no names", tiff(SIX.reshape(3, 2, 24, 32), photometric="minisblack"), refused=r"--axes"),
    Cell(
        "tiff",
        "TZYX",
        tiff(SIX.reshape(3, 2, 24, 32), photometric="minisblack"),
        SIX,
        options={"axes": "TZYX"},
    ),
]

PICTURES = [
    Cell("png", "one file", lambda folder: pictures(".png", GREY[:1])(folder) / "f0.png", GREY[:1]),
    Cell("png", "H W", pictures(".png", GREY), GREY),
    Cell("jpeg", "H W", pictures(".jpg", GREY, quality=100), GREY, tolerance=2),
    Cell("bmp", "H W", pictures(".bmp", GREY), GREY),
    Cell("pgm", "H W", pictures(".pgm", GREY), GREY),
    Cell("video", "N H W", video(GREY), GREY),
]

CELLS = [*ARRAYS, *ZARR, *TIFF, *PICTURES]


@parametrized(CELLS)
def test_axes(cell: Cell, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Frames are in the order of time, upright; what the shape leaves open is refused with the option."""
    check(cell, tmp_path, caplog)


@pytest.mark.parametrize("axes", ["TZYX", "ZTYX", "YXTZ", "XTYZ", "TYZX"])
@pytest.mark.parametrize("chunk_size", [1, 4, 5, 30])
def test_any_order_and_any_part(axes: str, chunk_size: int) -> None:
    """Each order of four axes gives the same frames, in parts of any size."""
    stack = np.arange(5 * 3 * 6 * 7, dtype=np.uint16).reshape(5, 3, 6, 7)
    array = stack.transpose(["TZYX".index(letter) for letter in axes])
    frames = [chunk.frames for chunk in ArraySource(array, axes=axes).chunks(chunk_size)]
    np.testing.assert_array_equal(np.concatenate(frames), stack.reshape(15, 6, 7))


def test_an_empty_axis_is_refused() -> None:
    """A shape without frames or pixels is refused also with letters."""
    for shape in ((0, 4, 5), (3, 0, 5), (2, 3, 4, 0)):
        with pytest.raises(ConfigError, match="is empty"):
            layout("a", shape, "TZYX"[-len(shape) :])


def test_a_tiff_of_several_series_is_one_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Stacks appended to a file follow each other, whatever the number of their pages."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(SIX[:2], photometric="minisblack", contiguous=False)
        writer.write(SIX[2:], photometric="minisblack", contiguous=False)
    check(Cell("tiff", "", lambda folder: folder / "a.tif", SIX), tmp_path, caplog)
