"""Frames from .npy and .npz files of numpy, read piece by piece."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError

from .arrays import ArraySource
from .axes import Sliceable
from .damage import FrameDamage, UnreadableFileError, decode_error
from .datasets import DEFAULT, chosen_array
from .file_frames import FileFrames
from .frame_source import Times
from .options import ReadOptions
from .times import TIME_NAMES, named_times, seconds

_PIECE: Final = 1 << 20
"""Bytes that are read at a time where they are only checked or left out."""

_ERRORS: Final = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def open_npy(path: Path, options: ReadOptions) -> ArraySource:
    """Open a .npy file. Of one that is cut off, the frames before the end are read."""
    options.refuse_dataset(str(path))
    try:
        with path.open("rb") as file:
            shape, fortran, dtype = _header(file)
            offset = file.tell()
    except _ERRORS as error:
        raise UnreadableFileError(str(path), ".npy", str(error)) from error
    array: Sliceable
    if fortran and len(shape) > 1:
        needed = offset + dtype.itemsize * math.prod(shape)
        if path.stat().st_size < needed:
            raise UnreadableFileError(
                str(path),
                ".npy",
                f"it is cut off, and in this order of its axes no frame is complete (of {needed} bytes)",
            )
        array = np.memmap(path, dtype, "r", offset, shape, "F")
    else:
        array = FileFrames(path, dtype, shape, offset)
    return ArraySource.of_file(array, str(path), options)


def open_npz(path: Path, options: ReadOptions) -> ArraySource:
    """Open an array of a .npz file: the dataset, ``frames`` or the only one.

    An array ``time`` or ``times`` beside it has the times of the frames in s, or as datetime64. The checksum is
    compared first, because a damaged file may be decompressed to wrong frames without an error.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            headers = _headers_of(archive, members, options.dataset)
            chosen = chosen_array(
                path, {name: header[0] for name, header in headers.items()}, options.dataset
            )
            shape, fortran, dtype = headers[chosen]
            with archive.open(members[chosen]) as member:
                while member.read(_PIECE):  # the checksum is compared at the end
                    pass
        array: Sliceable = NpzArray(path, members[chosen], shape, dtype)
        with np.load(path, allow_pickle=False) as loaded:
            if fortran or len(shape) != 3 or options.axes is not None:
                array = loaded[chosen]
            times = None if options.ignore_times else _times(path, loaded, chosen, options)
    except _ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise UnreadableFileError(str(path), ".npz", str(error)) from error
    return ArraySource.of_file(array, f"{path} [{chosen}]", options, times_s=times)


def _headers_of(
    archive: zipfile.ZipFile, members: dict[str, str], dataset: str | None
) -> dict[str, tuple[tuple[int, ...], bool, np.dtype[Any]]]:
    """Return shape, order and type of all arrays of numbers.

    Arrays of Python objects beside the frames are left out; to read them would run code that the file contains.
    """
    headers, refused = {}, None
    for name, member in members.items():
        try:
            headers[name] = _member_header(archive, member)
        except _HasObjectsError as error:
            if name == (dataset or DEFAULT).strip("/"):
                raise
            refused = error
    if refused is not None and not headers:
        raise refused
    return headers


class _HasObjectsError(ValueError):
    def __init__(self) -> None:
        super().__init__("it holds Python objects, and no numbers")


def _member_header(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with archive.open(member) as file:
        return _header(file)


def _times(path: Path, archive: Any, chosen: str, options: ReadOptions) -> Times | None:
    for name in archive.files:
        if name != chosen and name.casefold() in TIME_NAMES:
            values = archive[name]
            if values.ndim == 1 and named_times(
                name, values.dtype.kind in "mM" or options.time_unit is not None
            ):
                return seconds(f"{path} [{name}]", values, stated_unit=options.time_unit)
    return None


class NpzArray:
    """The array (n, ...) in C order of a member of a .npz file, read forwards; going back restarts at the beginning."""

    def __init__(self, path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._path = path
        self._member = member
        self._archive: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        self._at = 0
        """Item at which the stream is."""

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._stream is not None:
            self._stream.close()
        if self._archive is not None:
            self._archive.close()
        self._stream = self._archive = None

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        first = keys[0]
        one = not isinstance(first, slice)
        begin, end, step = (slice(int(first), int(first) + 1) if one else first).indices(self.shape[0])
        try:
            block = self._items(begin, max(begin, end))[::step]
        except _ERRORS as error:
            raise decode_error(error, self._path.name) from error
        rest = (0 if one else slice(None), *keys[1:])
        part: npt.NDArray[Any] = block[rest]
        return part

    def _items(self, begin: int, end: int) -> npt.NDArray[Any]:
        stream = self._stream
        if stream is None or self._at > begin:
            self.close()
            self._archive = zipfile.ZipFile(self._path)
            stream = self._stream = self._archive.open(self._member)
            _header(stream)
            self._at = 0
        item = self.dtype.itemsize * math.prod(self.shape[1:])
        left_out = (begin - self._at) * item
        while left_out:
            left_out -= len(_read_exactly(stream, min(left_out, _PIECE), self._path))
        data = bytearray(_read_exactly(stream, (end - begin) * item, self._path))
        self._at = end
        return np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])


def _read_exactly(stream: IO[bytes], count: int, path: Path) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise FrameDamage("the file ends within it", path.name)
    return data


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise _HasObjectsError
    return shape, fortran, dtype
