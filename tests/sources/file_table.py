"""One table of all readers: what each does with pixels, axes, times, depth and damage of its files.

Each line is a :class:`Cell`: a file that is written, the options, and the frames that must come out or the sentence of
the refusal. ``test_file_table.py`` checks that no reader is without a cell for a trait.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import open_source
from tests.sources.source_files import av, read, tifffile, write_image, zarr

Array = npt.NDArray[Any]

READERS: Final = ("npy", "npz", "zarr", "tiff", "png", "jpeg", "bmp", "pgm", "video", "hdf5")

_Y, _X = np.mgrid[:24, :32]
GREY: Final = np.stack([(_X * 7 + _Y * 2 + k * 9) % 251 for k in range(3)]).astype(np.uint8)
"""Three frames that no mirror, rotation, exchange of axes or of frames leaves unchanged."""

DEEP: Final = GREY.astype(np.uint16) * 16 + 5
"""The same with 12 bits."""

COLOUR: Final = np.stack([GREY, GREY // 2, GREY // 3], axis=-1)
SAME_COLOURS: Final = np.repeat(GREY[..., None], 3, axis=-1)


@dataclass(frozen=True)
class Cell:
    """A file of one reader. ``write`` gets an empty folder and returns what to open."""

    reader: str
    what: str
    write: Callable[[Path], Path]
    frames: Array | None = None
    refused: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    times_s: Sequence[float] | None = None
    fps: float | None = None
    logged: str = ""
    tolerance: int = 0


def parametrized(cells: Sequence[Cell]) -> Any:
    """Give a test the argument ``cell``, once for each cell."""
    return pytest.mark.parametrize("cell", cells, ids=[f"{cell.reader}: {cell.what}" for cell in cells])


def check(cell: Cell, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Open the cell's file and compare frames, type, times, rate and log, or the refusal."""
    path = cell.write(folder)
    with caplog.at_level(logging.WARNING, "atomstream"):
        if cell.refused:
            with pytest.raises(ConfigError, match=cell.refused):
                read(open_source(path, **cell.options))
            return
        source = open_source(path, **cell.options)
        frames = read(source)
    assert cell.frames is not None
    assert frames.dtype == cell.frames.dtype
    if cell.tolerance:
        np.testing.assert_allclose(frames.astype(int), cell.frames.astype(int), atol=cell.tolerance)
    else:
        np.testing.assert_array_equal(frames, cell.frames)
    logged = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("atomstream"))
    assert re.search(cell.logged, logged)
    assert bool(cell.logged) == bool(logged)
    _check_times(cell, source)


def _check_times(cell: Cell, source: Any) -> None:
    if cell.fps is not None:
        assert source.fps == pytest.approx(cell.fps)
    if cell.times_s is not None:
        times = [chunk.times_s for chunk in source.chunks(2)]
        if not len(cell.times_s):
            assert all(part is None for part in times)
        else:
            np.testing.assert_allclose(np.concatenate(times), cell.times_s, atol=1e-6)


def npy(array: Array) -> Callable[[Path], Path]:
    """Write a .npy file."""

    def write(folder: Path) -> Path:
        np.save(folder / "a.npy", array)
        return folder / "a.npy"

    return write


def npz(**arrays: Any) -> Callable[[Path], Path]:
    """Write a .npz file."""

    def write(folder: Path) -> Path:
        np.savez(folder / "a.npz", **arrays)
        return folder / "a.npz"

    return write


def zarr_array(array: Array, **options: Any) -> Callable[[Path], Path]:
    """Write a single Zarr array."""

    def write(folder: Path) -> Path:
        zarr.create_array(str(folder / "a.zarr"), data=array, **options)
        return folder / "a.zarr"

    return write


def zarr_group(
    arrays: Mapping[str, tuple[Array, Mapping[str, Any]]], **attributes: Any
) -> Callable[[Path], Path]:
    """Write a Zarr group: arrays with their attributes, by their paths; ``dims`` are names of dimensions."""

    def write(folder: Path) -> Path:
        group = zarr.create_group(str(folder / "a.zarr"), attributes=attributes)
        for name, (data, notes) in arrays.items():
            dims = notes.get("dims")
            made = group.create_array(name, data=data, dimension_names=dims)
            made.attrs.update({key: value for key, value in notes.items() if key != "dims"})
        return folder / "a.zarr"

    return write


def hdf5(arrays: Mapping[str, tuple[Array, Mapping[str, Any]]], **attributes: Any) -> Callable[[Path], Path]:
    """Write an HDF5 file: arrays with their attributes, by their paths."""
    h5py = pytest.importorskip("h5py")

    def write(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            file.attrs.update(attributes)
            for name, (data, notes) in arrays.items():
                file[name] = data
                file[name].attrs.update(notes)
        return folder / "a.h5"

    return write


def tiff(array: Array, **options: Any) -> Callable[[Path], Path]:
    """Write a TIFF file by tifffile."""

    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / "a.tif", array, **options)
        return folder / "a.tif"

    return write


def images(suffix: str, save: Callable[[int, Path], object], count: int = 3) -> Callable[[Path], Path]:
    """Write a folder of images; ``save(k, path)`` writes the image ``k``."""

    def write(folder: Path) -> Path:
        for k in range(count):
            save(k, folder / f"f{k}{suffix}")
        return folder

    return write


def pictures(suffix: str, frames: Array, mode: str | None = None, **options: Any) -> Callable[[Path], Path]:
    """Write a folder of images by Pillow."""
    pillow = pytest.importorskip("PIL.Image")

    def save(k: int, path: Path) -> None:
        image = pillow.fromarray(frames[k])
        (image.convert(mode) if mode else image).save(path, **options)

    return images(suffix, save, len(frames))


def encoded(suffix: str, frames: Array, source: str, codec: str) -> Callable[[Path], Path]:
    """Write a folder of images by FFmpeg."""
    return images(suffix, lambda k, path: write_image(path, frames[k], source, codec), len(frames))


def planes(luma: Array) -> Array:
    """Return grey frames as the three planes of yuv420p: luma, and chroma without colour."""
    return np.concatenate([luma, np.full_like(luma[:, ::2], 128)], axis=1)


def video(
    frames: Array,
    name: str = "a.mkv",
    codec: str = "ffv1",
    pix_fmt: str = "gray",
    source: str = "gray",
    *,
    rate: int = 20,
    options: Mapping[str, str] | None = None,
    prepare: Callable[[Any], object] = lambda stream: None,
    pts: Sequence[int] | None = None,
) -> Callable[[Path], Path]:
    """Write a video by FFmpeg. ``prepare(stream)`` sets more; ``pts`` are in ms, with ``rate=1000``."""

    def write(folder: Path) -> Path:
        if codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no encoder {codec}")
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
            rows = frames.shape[1] * 2 // 3 if source == "yuv420p" else frames.shape[1]
            stream.height, stream.width, stream.pix_fmt = rows, frames.shape[2], pix_fmt
            prepare(stream)
            for k, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
                frame.pts = k if pts is None else pts[k]
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return folder / name

    return write


ARRAY_FILES: Final[Sequence[tuple[str, Callable[[Array], Callable[[Path], Path]]]]] = (
    ("npy", npy),
    ("npz", lambda array: npz(frames=array)),
    ("zarr", zarr_array),
    ("hdf5", lambda array: hdf5({"frames": (array, {})})),
)
"""The readers of arrays, and what writes an array for each."""
