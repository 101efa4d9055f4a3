"""Frames from a Zarr array, or from a group with one: an atomstream archive, xarray, OME-Zarr and others."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np

from atomstream.errors import ConfigError
from atomstream.system.log_privacy import get_logger

from .arrays import ArraySource
from .axes import layout, letters_of_names
from .datasets import chosen_array
from .frame_source import EmptySourceError, Times, optional_package
from .ome_zarr import Image, image_of
from .options import ReadOptions
from .scaling import stated_scaling
from .times import SparseTimes, named_times, seconds, unit_seconds, written

logger = get_logger(__name__)

_MOST_CHUNKS: Final = 100_000
"""Chunks of an array up to which it is checked that all are stored; the names of all of them are compared."""

_MARKERS = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Return True if the folder is a Zarr array or group, version 2 or 3."""
    return any((path / marker).is_file() for marker in _MARKERS)


def open_zarr(path: Path, options: ReadOptions) -> ArraySource:
    """Open a Zarr array, or an array of a group: the dataset, ``frames``, OME-Zarr's image or the only one.

    The times of the frames are those of an array beside it: the coordinate of its first dimension as xarray writes
    it, or ``time``. An attribute ``fps`` is the nominal rate.
    """
    return open_node(str(path), _open(path), options)


def open_node(path: str, node: Any, options: ReadOptions) -> ArraySource:
    """Open an array or group of the package zarr; ``path`` is its name for messages."""
    if not hasattr(node, "keys"):
        if options.dataset is not None:
            raise ConfigError(f"{path} is a single array; leave out the dataset {options.dataset!r}")
        known = letters_of_names(_dimensions(node))
        return _source(node, path, options, known, fps=_fps(node.attrs))
    image = image_of(node) if options.dataset is None else None
    if image is not None and image.array in node:
        return _ome_source(path, node, image, options)
    shapes = {name: tuple(array.shape) for name, array in node.arrays()}
    if options.dataset is None and not shapes:
        inner = [(key, group) for key, group in node.groups() if image_of(group) is not None]
        if len(inner) == 1:  # as bioformats2raw writes it
            return open_node(f"{path} [{inner[0][0]}]", inner[0][1], options)
    if options.dataset is not None or all(len(shape) < 2 for shape in shapes.values()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are not part of the Zarr group
            members = node.members(max_depth=None)
        shapes = {name: tuple(item.shape) for name, item in members if not hasattr(item, "keys")}
    name = chosen_array(path, shapes, options.dataset)
    array = node[name]
    beside = node[name.rpartition("/")[0]] if "/" in name else node
    image = image_of(beside)
    if image is not None and name.rpartition("/")[2] == image.array:
        return _ome_source(f"{path} [{name}]", beside, image, options)
    known = letters_of_names(_dimensions(array))
    times = None if options.ignore_times else _times(path, beside, array, known, options)
    fps = _fps(array.attrs) or _fps(beside.attrs) or _fps(node.attrs)
    return _source(array, f"{path} [{name}]", options, known, fps=fps, times_s=times)


class _Written:
    """A Zarr array in a folder, which tells the chunks that are stored from those that are not.

    Zarr reads chunks that are not stored as the fill value.
    """

    def __init__(self, array: Any, n_frames: int) -> None:
        self._array = array
        self.shape: tuple[int, ...] = (n_frames, *array.shape[1:])
        self.dtype: np.dtype[Any] = array.dtype
        self._size: tuple[int, ...] = tuple(array.shards or array.chunks)
        root, path = str(array.store.root), str(array.store_path.path)
        self._folder = Path(root, path)

    @property
    def piece(self) -> int:
        """Frames of a stored chunk, or shard."""
        return self._size[0]

    def has_piece(self, number: int) -> bool:
        """Whether all chunks at this place of the first axis are stored; False behind the end."""
        others = [range(-(-n // size)) for n, size in zip(self.shape[1:], self._size[1:], strict=True)]
        return number * self._size[0] < self.shape[0] and all(
            (self._folder / self._array.metadata.encode_chunk_key((number, *place))).is_file()
            for place in itertools.product(*others)
        )

    def __getitem__(self, key: Any, /) -> Any:
        return self._array[key]


def _source(array: Any, name: str, options: ReadOptions, known: str | None, **more: Any) -> ArraySource:
    if options.growing:
        times = more.get("times_s")
        if isinstance(times, SparseTimes) or not hasattr(array.store, "root"):
            raise ConfigError(f"{name} can't be followed: it is an archive of a server, or packed")
        n_frames = array.shape[0] if times is None else min(len(times), array.shape[0])
        whole = _Written(array, n_frames)
        source = ArraySource.of_file(
            whole, name, options, known_axes=known, scaling=stated_scaling(array.attrs), **more
        )
        source.frames_per_piece = whole.piece
        return source
    if not isinstance(more.get("times_s"), SparseTimes):  # which name the frames that are stored
        _warn_of_holes(array, name)
    scaling = stated_scaling(array.attrs)
    return ArraySource.of_file(array, name, options, known_axes=known, scaling=scaling, **more)


def _warn_of_holes(array: Any, name: str) -> None:
    """Warn of chunks that are not stored: Zarr leaves out those that contain the fill value alone, and reads it there.

    They may as well be frames that were never written, as of a recording that ended early.
    """
    if array.nchunks > _MOST_CHUNKS or not array.nchunks:
        return
    missing = array.nchunks - array.nchunks_initialized
    if missing > 0:
        logger.warning(
            "%s: %d of %d chunks are not stored, and are read as the fill value %s. They are frames of one grey "
            "level, or were never written",
            name, missing, array.nchunks, array.fill_value,
        )  # fmt: skip


def _ome_source(path: str, group: Any, image: Image, options: ReadOptions) -> ArraySource:
    fps = None if options.ignore_times or not image.time_step_s else 1.0 / image.time_step_s
    return _source(group[image.array], path, options, image.axes, fps=fps or _fps(group.attrs))


def _open(path: Path) -> Any:
    zarr = optional_package("zarr", "server", "Reading Zarr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # zarr warns about codecs that other programs can't read; this only reads
            store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else str(path)
            return zarr.open(store=store, mode="r")
    except Exception as error:  # KeyError, ValueError or others, depending on the zarr version
        raise ConfigError(f"{path} can't be read as Zarr: {error}") from error


def _dimensions(array: Any) -> Any:
    """Return the names of an array's axes: those of Zarr 3, or those of xarray in Zarr 2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names is not None else None


def _times(
    path: str, group: Any, array: Any, known: str | None, options: ReadOptions
) -> Times | SparseTimes | None:
    """Return the times in s of the axis that counts the frames, None if the file has none."""
    place = layout(path, tuple(array.shape), options.axes, known=known)
    axis = place.counting[0] if len(place.counting) == 1 else 0
    dimensions = _dimensions(array)
    names = [dimensions[axis]] if dimensions and dimensions[axis] else []
    for name in dict.fromkeys([*names, "time", "times", *sorted(group.array_keys())]):
        if name not in group or hasattr(group[name], "keys"):
            continue
        column = group[name]
        unit = column.attrs.get("units") or column.attrs.get("unit")
        is_date = column.dtype.kind in "mM"
        if not (named_times(name, unit is not None or is_date) or (name in names and unit_seconds(unit))):
            continue
        if options.growing and column.ndim == 1 and not is_date and place.counting == (0,):
            values = written(_unpacked(column)[: place.n_frames], column.fill_value)
            if not len(values):
                raise EmptySourceError(f"{path} is empty: no frame has a time")
            return seconds(f"{path} [{name}]", values, unit, stated_unit=options.time_unit)
        if tuple(column.shape) != (place.n_frames,):
            logger.warning(
                "%s: %r has the shape %s, which is not one time for each of the %d frames; it is ignored",
                path, name, tuple(column.shape), place.n_frames,
            )  # fmt: skip
            continue
        places = _stored_frames(group, array) if axis == 0 and not is_date else None
        if places is None:
            return seconds(f"{path} [{name}]", _unpacked(column), unit, stated_unit=options.time_unit)
        found = np.concatenate([np.zeros(0), *(column[first:stop] for first, stop in places)])
        numbers = np.concatenate([np.zeros(0, np.int64), *(np.arange(first, stop) for first, stop in places)])
        known = np.isfinite(found)
        times = seconds(f"{path} [{name}]", found[known], unit, stated_unit=options.time_unit)
        return SparseTimes(numbers[known], times)
    return None


def _stored_frames(group: Any, array: Any) -> list[tuple[int, int]] | None:
    """Return the frames of the chunks that an atomstream archive holds, as (first, stop); None for other arrays.

    A chunk with a large index makes the array long: what lies between is never read.
    """
    if "chunk_frames" not in group or hasattr(group["chunk_frames"], "keys"):
        return None
    counts, size = group["chunk_frames"], (array.shards or array.chunks)[0]
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or counts.shape[0] != -(-array.shape[0] // size):
        return None
    stored = np.asarray(counts[:])
    (indices,) = np.nonzero(stored)
    breaks = np.flatnonzero((np.diff(indices) != 1) | (stored[indices[:-1]] != size)) + 1
    runs = np.split(indices, breaks) if len(indices) else []
    return [(int(run[0]) * size, int(run[-1]) * size + int(stored[run[-1]])) for run in runs]


def _unpacked(column: Any) -> np.ndarray[Any, Any]:
    """Return the values of a CF variable: missing ones as NaN, packed ones unpacked."""
    values = np.asarray(column[:])
    attributes = column.attrs
    missing = attributes.get("_FillValue", attributes.get("missing_value"))
    if values.dtype.kind in "iu" and isinstance(missing, int):
        absent = values == missing
        if absent.any():
            known = values[~absent]
            values = (values - known[0] if known.size else values).astype(np.float64)
            values[absent] = np.nan
    factor, offset = attributes.get("scale_factor", 1), attributes.get("add_offset", 0)
    return values if factor == 1 and offset == 0 else values * float(factor) + float(offset)


def _fps(attributes: Any) -> float | None:
    value = attributes.get("fps")
    return float(value) if isinstance(value, int | float) and value > 0 else None
