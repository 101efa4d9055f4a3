"""One HDF5 dataset as an array that is read piece by piece, with what HDF5 itself hides made visible.

HDF5 returns zeros for chunks that were never written, as by a program that ended in the middle of a recording, and
for virtual datasets whose files are missing. Both are errors here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .damage import FrameDamage, UnreadableFileError, decode_error
from .frame_source import EmptySourceError, optional_package

FILTERS: Final = {
    307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle", 32013: "ZFP", 32015: "Zstandard",
    32017: "SZ", 32018: "FCIDECOMP", 32024: "SZ3", 32026: "Blosc2", 32028: "SPERR",
}  # fmt: skip
"""Registered numbers of compression filters (The HDF Group), for messages."""


def open_file(path: Path) -> Any:
    """Open an HDF5 file for reading, also one that another program is writing. Raises ConfigError if it can't."""
    h5py = optional_package("h5py", "hdf5", "Reading HDF5")
    try:
        try:
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            if "already open for write" not in str(error):
                raise
            return h5py.File(path, "r", locking=False, swmr=True)
    except OSError as error:
        raise UnreadableFileError(str(path), "HDF5", _plain(error, path)) from error


def _plain(error: OSError, path: Path) -> str:
    text = " ".join(str(error).split())
    if "truncated file" in text:
        return (
            f"the file is cut off ({text}). HDF5 keeps its index in several places of the file, so that nothing before "
            "the end can be read safely: copy the file again, or try h5recover or h5clear on a copy of it"
        )
    if "not already open for SWMR writing" in text:
        return (
            "another program is writing it, and not in SWMR mode: it can be read when that program has closed it. "
            "After a crash of that program, run h5clear -s on a copy"
        )
    if "signature not found" in text and path.stat().st_size:
        return "it has no HDF5 signature"
    return text if path.stat().st_size else "the file is empty"


class Hdf5Array:
    """A dataset of an HDF5 file; the file is opened at the first access, and by :meth:`close` closed until the next.

    Raises :class:`ConfigError` if a needed filter or file is missing, :class:`FrameDamage` from item access.
    """

    def __init__(self, path: Path, name: str, dataset: Any) -> None:
        self.path = path
        self.name = name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        _check_filters(f"{path} [{name}]", dataset)
        _check_parts(path, name, dataset)
        self._mapped = _mapped(dataset)
        self._chunks: tuple[int, ...] | None = dataset.chunks
        self._file: Any = None
        self._dataset: Any = None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = self._dataset = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        dataset = self._opened()
        try:
            self._check_written(key)
            return np.asarray(dataset[key])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise decode_error(error, self.path.name) from error

    @property
    def piece(self) -> int:
        """Frames of a chunk, if the first axis counts them; 1 for a dataset without chunks."""
        return self._chunks[0] if self._chunks else 1

    def has_piece(self, number: int) -> bool:
        """Whether all chunks at this place of the first axis were written; False behind the end."""
        if not self._chunks:
            return number < self.shape[0]
        asked = [(number * self._chunks[0], number * self._chunks[0] + 1), *((0, n) for n in self.shape[1:])]
        try:
            _check_chunks(self._opened(), asked, self.path)
        except (FrameDamage, OSError, RuntimeError, ValueError):
            return False
        return True

    def _opened(self) -> Any:
        if self._dataset is None:
            self._file = open_file(self.path)
            self._dataset = self._file[self.name]
        return self._dataset

    def _check_written(self, key: Any) -> None:
        """Raise FrameDamage if a chunk of this part was never written, or if no file holds a part of it."""
        keys = key if isinstance(key, tuple) else (key,)
        keys += (slice(None),) * (len(self.shape) - len(keys))
        asked = []
        for k, length in zip(keys, self.shape, strict=True):
            part = k if isinstance(k, slice) else slice(int(k), int(k) + 1)
            asked.append(part.indices(length)[:2])
        if self._mapped is not None:
            self._check_mapped(asked)
        _check_chunks(self._dataset, asked, self.path)

    def _check_mapped(self, asked: list[tuple[int, int]]) -> None:
        """Raise FrameDamage if a place of this part belongs to no file of a virtual dataset: HDF5 gives zeros there."""
        (begin, end), *inner = asked
        for frame in range(begin, end):
            held = sum(
                _common(first[1:], last[1:], inner)
                for first, last in self._mapped or ()
                if first[0] <= frame <= last[0]
            )
            if held < math.prod(stop - start for start, stop in inner):
                raise FrameDamage("no file of the virtual dataset holds it", self.path.name)


class Hdf5Pictures:
    """Datasets of an HDF5 file that are one picture each, as an array (n, H, W); opened as :class:`Hdf5Array`.

    ``names`` are their paths, in the order of the frames. All are of the shape and type of ``first``.
    """

    def __init__(self, path: Path, names: Sequence[str], first: Any) -> None:
        self.path = path
        self.names = names
        self.shape: tuple[int, ...] = (len(names), *first.shape)
        self.dtype: np.dtype[Any] = first.dtype
        _check_filters(f"{path} [{names[0]}]", first)
        self._file: Any = None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        first, *inner = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            return np.stack([self._picture(name)[tuple(inner)] for name in self.names[first]])
        frame: npt.NDArray[Any] = self._picture(self.names[first])[tuple(inner)]
        return frame

    def _picture(self, name: str) -> npt.NDArray[Any]:
        if self._file is None:
            self._file = open_file(self.path)
        try:
            dataset = self._file[name]
            if dataset.id.get_storage_size() == 0 and not dataset.external and not dataset.is_virtual:
                raise FrameDamage(f"{name} was never written", self.path.name)
            _check_chunks(dataset, [(0, length) for length in dataset.shape], self.path)
            return np.asarray(dataset[()])
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise decode_error(error, self.path.name) from error


def _check_chunks(dataset: Any, asked: list[tuple[int, int]], path: Path) -> None:
    """Raise FrameDamage if a chunk of a part of a dataset, given as (first, stop) of each axis, was never written."""
    chunks = dataset.chunks
    if chunks is None:
        return
    starts = [
        range(begin - begin % step, end, step) for (begin, end), step in zip(asked, chunks, strict=True)
    ]
    for place in itertools.product(*starts):
        if dataset.id.get_chunk_info_by_coord(place).byte_offset is None:
            raise FrameDamage("it was never written (HDF5 has no chunk for it)", path.name)


def _common(first: tuple[int, ...], last: tuple[int, ...], asked: list[tuple[int, int]]) -> int:
    """Return how many places two blocks have in common."""
    return math.prod(
        max(0, min(stop, high + 1) - max(start, low))
        for low, high, (start, stop) in zip(first, last, asked, strict=True)
    )


def _check_filters(name: str, dataset: Any) -> None:
    h5py = optional_package("h5py", "hdf5", "Reading HDF5")
    properties = dataset.id.get_create_plist()
    for k in range(properties.get_nfilters()):
        number = properties.get_filter(k)[0]
        if h5py.h5z.filter_avail(number):
            continue
        kind = FILTERS.get(number, f"the filter {number}")
        try:
            optional_package("hdf5plugin", "hdf5", f"Reading {name}, compressed by {kind},")
        except ConfigError as error:
            raise ConfigError(f"{error} (or pip install hdf5plugin)") from error
        if not h5py.h5z.filter_avail(number):
            raise ConfigError(f"{name} is compressed by {kind}, which neither h5py nor hdf5plugin can read")


def _check_parts(path: Path, name: str, dataset: Any) -> None:
    """Raise ConfigError if frames of the dataset are in other files which are missing, or were never written."""
    if dataset.is_virtual:
        folder = Path(dataset.file.filename).parent
        for source in dataset.virtual_sources():
            if source.file_name != "." and not (folder / source.file_name).exists():
                raise ConfigError(f"{path} [{name}] has frames in {source.file_name}, which is missing")
    elif dataset.size and not dataset.external and dataset.id.get_storage_size() == 0:
        raise EmptySourceError(f"{path} [{name}] is empty: its frames were never written")


def _mapped(dataset: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Return the parts of a virtual dataset that are stored somewhere, as first and last places; None for others.

    Of a part whose bounds HDF5 does not state, such as an unlimited one, the whole dataset is returned.
    """
    if not dataset.is_virtual:
        return None
    parts = []
    for source in dataset.virtual_sources():
        if "%b" in source.file_name or source.vspace.get_select_npoints() > dataset.size:
            return [(tuple(0 for _ in dataset.shape), tuple(n - 1 for n in dataset.shape))]
        first, last = source.vspace.get_select_bounds()
        parts.append((tuple(map(int, first)), tuple(map(int, last))))
    return parts
