"""Frames from an array: in memory, in .npy (memory-mapped) or in .npz."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError
from atomstream.records import Frames

from .axes import Sliceable, layout
from .datasets import chosen_array
from .frame_source import SourceChunk, Times, checked_chunk_size
from .options import ReadOptions
from .pixels import PixelFormat, PixelReader
from .times import TIME_NAMES, median_step, named_times, relative, seconds


class ArraySource:
    """Frames of an array, uint8 or uint16, read slice by slice; (n, H, W) or (H, W) if ``axes`` says nothing else.

    ``axes``, ``channel`` and ``levels`` are those of :func:`open_source`. ``times_s`` (n,) are the times of the
    frames in s, which must not run backwards. A frame with the time NaN is a gap, as in an archive, and is skipped.
    ``pixels`` and ``known_axes`` are what the file states about its samples and axes. Raises :class:`ConfigError`
    for other dtypes and shapes.
    """

    def __init__(
        self,
        array: Sliceable,
        *,
        name: str = "the array",
        fps: float | None = None,
        times_s: npt.ArrayLike | None = None,
        axes: str | None = None,
        channel: str | None = None,
        levels: tuple[float, float] | None = None,
        pixels: PixelFormat | None = None,
        known_axes: str | None = None,
    ) -> None:
        self.name = name
        self.fps = fps
        self._array = array
        self._layout = layout(name, tuple(array.shape), axes, known=known_axes)
        if pixels is None:
            pixels = PixelFormat(np.dtype(array.dtype), samples=self._layout.n_samples)
            if self._layout.n_samples in (3, 4):
                pixels = replace(pixels, meaning="rgb", opacity=self._layout.n_samples == 4)
        self._pixels = PixelReader(name, pixels, ReadOptions(channel=channel, levels=levels))
        self.dtype = self._pixels.dtype
        self.frame_shape = self._pixels.frame_shape(*self._layout.frame_shape)
        self._length = self._layout.n_frames
        self.time_step_s: float | None = None
        """Usual time between two frames in s, by their times; None without times."""
        self._times = None if times_s is None else self._checked_times(np.asarray(times_s, dtype=np.float64))
        self.n_frames: int | None = self._length
        if self._times is not None:
            self.n_frames = int(np.isfinite(self._times).sum())
            self.time_step_s = median_step(self._times)
        if self._pixels.decided_by_values:
            self._read(slice(0, 1))

    def _checked_times(self, times: Times) -> Times:
        if times.shape != (self._length,):
            raise ConfigError(f"{self.name} has {self._length} frames, but times of the shape {times.shape}")
        return relative(self.name, times)

    def chunks(self, chunk_size: int) -> Iterator[SourceChunk]:
        """Yield all frames in order, at most ``chunk_size`` at a time; views where the array is in memory."""
        step = checked_chunk_size(chunk_size)
        if self._times is None:
            for begin in range(0, self._length, step):
                yield SourceChunk(self._read(slice(begin, min(begin + step, self._length))))
            return
        taken = np.flatnonzero(np.isfinite(self._times))
        for begin in range(0, taken.size, step):
            index = taken[begin : begin + step]
            # Read one slice with the gaps: fancy indexing is slow in every kind of store.
            block = self._read(slice(int(index[0]), int(index[-1]) + 1))
            kept = block if len(block) == index.size else block[index - index[0]]
            yield SourceChunk(kept, self._times[index])

    def _read(self, part: slice) -> Frames:
        block = self._layout.read(self._array, part.start, part.stop)
        if isinstance(block, np.memmap):
            # Read the disk here, and not later while a caller holds a lock.
            block = np.array(block, order="C", subok=False)
        return self._pixels.frames(block, part.start)


def open_npy(path: Path, options: ReadOptions) -> ArraySource:
    """Open a .npy file as a memory map. Raises ConfigError for a file that can't be read."""
    options.refuse_dataset(str(path))
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ConfigError(f"{path} can't be read as .npy: {error}") from error
    return _source(array, str(path), options)


def open_npz(path: Path, options: ReadOptions) -> ArraySource:
    """Open an array of a .npz file, held in memory: the dataset, ``frames`` or the only one.

    An array ``time`` or ``times`` beside it has the times of the frames in s, or as datetime64.
    """
    try:
        # Opened here, because numpy does not close a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            chosen = chosen_array(path, _shapes(archive), options.dataset)
            array = archive[chosen]
            times = None if options.ignore_times else _times(path, archive, chosen, options)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} can't be read as .npz: {error}") from error
    return _source(array, f"{path} [{chosen}]", options, times)


def _shapes(archive: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array, from its header; the pixels are not read."""
    shapes = {}
    for name in archive.files:
        with archive.zip.open(f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shapes[name] = tuple(read(member)[0])
    return shapes


def _times(path: Path, archive: Any, chosen: str, options: ReadOptions) -> Times | None:
    for name in archive.files:
        if name != chosen and name.casefold() in TIME_NAMES:
            values = archive[name]
            if values.ndim == 1 and named_times(
                name, values.dtype.kind in "mM" or options.time_unit is not None
            ):
                return seconds(f"{path} [{name}]", values, stated_unit=options.time_unit)
    return None


def _source(array: Sliceable, name: str, options: ReadOptions, times_s: Times | None = None) -> ArraySource:
    return ArraySource(
        array,
        name=name,
        axes=options.axes,
        channel=options.channel,
        levels=options.levels,
        times_s=times_s,
    )
