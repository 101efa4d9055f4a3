"""Frames from an array: in memory, in .npy (memory-mapped) or in .npz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .frame_source import SourceChunk, Times, checked_chunk_size, checked_dtype, checked_stack, refuse_dataset


class Sliceable(Protocol):
    """An array that may be on disk: a numpy array, a memory map or a Zarr array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W) or (H, W)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""

    def __getitem__(self, key: Any, /) -> Any: ...


class ArraySource:
    """Frames of an array (n, H, W) or (H, W), uint8 or uint16, read slice by slice.

    ``times_s`` (n,) are the times of the frames in s. A frame with the time NaN is a gap, as in an archive, and is
    skipped. Raises :class:`ConfigError` for other dtypes and shapes.
    """

    def __init__(
        self,
        array: Sliceable,
        *,
        name: str = "the array",
        fps: float | None = None,
        times_s: npt.ArrayLike | None = None,
    ) -> None:
        self.name = name
        self.fps = fps
        self.dtype = checked_dtype(name, array.dtype)
        self._length, height, width = checked_stack(name, tuple(array.shape))
        self.frame_shape = (height, width)
        self._array = array if len(array.shape) == 3 else np.asarray(array[...])[None]
        self._times = None if times_s is None else self._checked_times(np.asarray(times_s, dtype=np.float64))
        self.n_frames: int | None = self._length
        if self._times is not None:
            self.n_frames = int(np.isfinite(self._times).sum())

    def _checked_times(self, times: Times) -> Times:
        if times.shape != (self._length,):
            raise ConfigError(f"{self.name} has {self._length} frames, but times of the shape {times.shape}")
        taken = times[np.isfinite(times)]
        if not taken.size:
            raise ConfigError(f"{self.name} is empty: no frame has a time")
        seconds: Times = times - taken[0]
        return seconds

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

    def _read(self, part: slice) -> npt.NDArray[Any]:
        block = self._array[part]
        if isinstance(block, np.memmap):
            # Read the disk here, and not later while a caller holds a lock.
            return np.array(block, dtype=self.dtype, order="C", subok=False)
        return np.ascontiguousarray(block, dtype=self.dtype)


def open_npy(path: Path, dataset: str | None) -> ArraySource:
    """Open a .npy file as a memory map. Raises ConfigError for a file that can't be read."""
    refuse_dataset(str(path), dataset)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ConfigError(f"{path} can't be read as .npy: {error}") from error
    return ArraySource(array, name=str(path))


def open_npz(path: Path, dataset: str | None) -> ArraySource:
    """Open the array ``dataset`` of a .npz file (default: ``frames``, or the only one), held in memory."""
    try:
        # Opened here, because numpy does not close a damaged file.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            chosen = _choose(path, list(archive.files), dataset)
            array = archive[chosen]
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} can't be read as .npz: {error}") from error
    return ArraySource(array, name=f"{path} [{chosen}]")


def _choose(path: Path, names: list[str], dataset: str | None) -> str:
    if dataset is None and len(names) == 1:
        return names[0]
    chosen = dataset or "frames"
    if chosen not in names:
        raise ConfigError(f"{path} has no array {chosen!r}; choose a dataset of {', '.join(names) or 'none'}")
    return chosen
