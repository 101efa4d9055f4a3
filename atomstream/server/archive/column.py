"""One-dimensional growing arrays: one value for each frame, chunk or result.

Each is a Zarr v3 array of uncompressed files of equal size, written in place. So an append changes a few bytes of the
last file, however long the stream is, and a value far ahead costs one file. Measured: 0.05 ms an append;
zarr-python rewrites the whole last chunk, which takes 2.4 ms and 1.3 ms more for the new length. Windows allows
writing in place while a reader has the file open. A value has at most 8 aligned bytes, so a reader sees either the old
or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.system.own_files import open_file, read_plain

_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO})
"""Error numbers of a missing file, or of a folder or link with its name."""

COLUMN_CHUNK: Final = 16_384
"""Values in a file: 128 KiB of float64, and 264 files for 10 h at 120 frames a second."""

_MAX_DIGITS: Final = 13
"""Longest name of a file: the place of a value fits into 64 bits."""

Values: TypeAlias = npt.NDArray[Any]


class Column:
    """The files of one column in ``folder``. Not thread-safe: one writer at a time."""

    def __init__(self, folder: Path, files: ArchiveFiles, dtype: np.dtype[Any], fill: float) -> None:
        self._folder = folder
        self._files = files
        self._file_system = files.file_system
        self.dtype = dtype.newbyteorder("<")
        self.fill = fill
        self._named: set[Path] = set()
        """Files whose names this process has synced; an earlier process may have made a file and died before that."""

    def write(self, pieces: Iterable[tuple[int, Values]]) -> None:
        """Write each (start, values), durably.

        Raises:
            OSError: from the disk; a part may be written, and writing all again is harmless.
        """
        self.sync(self.put(pieces))

    def put(self, pieces: Iterable[tuple[int, Values]]) -> list[Path]:
        """Write each (start, values); readers see it at once, but it may not survive a power cut yet.

        Returns the changed files, to be passed to :meth:`sync`.

        Raises:
            OSError: from the disk; a part may be written, and writing all again is harmless.
        """
        by_file: dict[int, list[tuple[int, Values]]] = {}
        for start, values in pieces:
            for number, offset, part in _split(start, values):
                encoded = np.ascontiguousarray(part, dtype=self.dtype)
                by_file.setdefault(number, []).append((offset * self.dtype.itemsize, encoded))
        written = (self._put_file(number, writes) for number, writes in by_file.items())
        return [path for path in written if path is not None]

    def _put_file(self, number: int, writes: list[tuple[int, Values]]) -> Path | None:
        path = self._folder / "c" / str(number)
        # A descriptor, not a file object: each batch of results writes dozens of columns, in half of the time.
        handle = self._open_whole(path, writes)
        if handle is None:
            return None
        try:
            for offset, encoded in writes:
                self._file_system.write_at(handle, offset, encoded.tobytes())
        finally:
            self._file_system.close(handle)
        return path

    def _open_whole(self, path: Path, writes: list[tuple[int, Values]]) -> int | None:
        """Open a file, made in full length if it is missing; None if it is missing and all values are the fill value.

        Such values need no file: readers see the same. So a short chunk does not make files for all frames
        that its chunk could have.
        """
        for _ in range(2):
            try:
                handle = self._file_system.open_existing(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in _NO_FILE:
                    raise
                self._files.clear_way(path)
            else:
                if os.fstat(handle).st_size == COLUMN_CHUNK * self.dtype.itemsize:
                    return handle
                # It is too short: an earlier version wrote it without a sync before a power cut, or it is damaged.
                self._file_system.close(handle)
                self._files.note_damage(
                    path, "it had a wrong length and was made again, filled as far as is known"
                )
            if not path.exists() and all(self._is_fill(values) for _, values in writes):
                return None
            self._make_file(path)
        raise OSError(f"{path} can't be made in its full length.")

    def _is_fill(self, values: Values) -> bool:
        return bool((np.isnan(values) if math.isnan(self.fill) else values == self.fill).all())

    def _make_file(self, path: Path) -> None:
        # Of full size, filled and synced before it gets its name: readers refuse an uncompressed chunk that is too
        # short, and after a power cut an unsynced file may read as zeros, which are values and not the fill value.
        self._files.check_not_deleted()
        self._file_system.make_folder(path.parent, durable=False)
        temporary = self._files.temporary_path()
        handle = self._file_system.create(temporary)
        try:
            self._file_system.write(handle, [np.full(COLUMN_CHUNK, self.fill, dtype=self.dtype).tobytes()])
            self._file_system.sync(handle)
        finally:
            self._file_system.close(handle)
        self._file_system.rename(temporary, path)
        self._named.discard(path)

    def sync(self, paths: Iterable[Path]) -> None:
        """Make these files and their names durable.

        Raises:
            OSError: from the disk; calling it again is harmless.
        """
        for path in paths:
            self._file_system.sync_file(path)
            if path not in self._named:
                self._file_system.sync_folders(path.parent, self._folder.parent)
                self._named.add(path)

    def read(self, start: int, stop: int) -> Values:
        """The values ``start`` .. ``stop``, the fill value where nothing was written. Reads only those bytes.

        Raises:
            OSError: from the disk.
        """
        out: Values = np.full(max(0, stop - start), self.fill, dtype=self.dtype)
        done = 0
        while done < len(out):
            number, offset = divmod(start + done, COLUMN_CHUNK)
            count = min(COLUMN_CHUNK - offset, len(out) - done)
            part = self._read_file(number, offset, count)
            out[done : done + len(part)] = part
            done += count
        return out

    def read_at(self, places: npt.NDArray[np.int64]) -> Values:
        """The values at these ascending ``places``, the fill value where nothing was written.

        Only the files with these places are read, however far apart they are.

        Raises:
            OSError: from the disk.
        """
        out: Values = np.full(len(places), self.fill, dtype=self.dtype)
        numbers = places // COLUMN_CHUNK
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(places)]
        for first, stop in itertools.pairwise(bounds):
            if first == stop:
                continue
            check_wanted()
            inside = places[first:stop] - numbers[first] * COLUMN_CHUNK
            low = int(inside[0])
            part = self._read_file(int(numbers[first]), low, int(inside[-1]) + 1 - low)
            there = inside - low < len(part)
            out[first:stop][there] = part[(inside - low)[there]]
        return out

    def _read_file(self, number: int, offset: int, count: int) -> Values:
        try:
            with open_file(self._folder / "c" / str(number), "rb", buffering=0) as file:
                file.seek(offset * self.dtype.itemsize)
                raw = file.read(count * self.dtype.itemsize)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raw = b""
        return np.frombuffer(raw[: len(raw) // self.dtype.itemsize * self.dtype.itemsize], dtype=self.dtype)

    def stored(self) -> Iterator[tuple[int, Values]]:
        """(start, values) of each existing file; a file of a wrong size is skipped."""
        folder = self._folder / "c"
        for path in folder.iterdir() if folder.is_dir() else ():
            if not (path.name.isascii() and path.name.isdecimal() and len(path.name) <= _MAX_DIGITS):
                continue
            raw = b""
            with contextlib.suppress(OSError):  # its values count as not stored
                raw = read_plain(path)
            if len(raw) == COLUMN_CHUNK * self.dtype.itemsize:
                yield int(path.name) * COLUMN_CHUNK, np.frombuffer(raw, dtype=self.dtype)


def _split(start: int, values: Values) -> Iterator[tuple[int, int, Values]]:
    """Split ``values`` at file borders: (file number, offset in the file, values). ``start`` is their first index."""
    done = 0
    while done < len(values):
        number, offset = divmod(start + done, COLUMN_CHUNK)
        part = values[done : done + COLUMN_CHUNK - offset]
        yield number, offset, part
        done += len(part)
