"""A store in a folder: each object is a file. For one computer, and for folders that several computers mount.

Files are written beside their place and renamed, durably. A lock file in the folder makes conditions and writes one
step for all processes that use the folder.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock

from atomstream.records import Piece
from atomstream.server.ports.store import (
    DOCUMENT_NBYTES,
    PIECE_NBYTES,
    Data,
    ObjectExistsError,
    ObjectInfo,
    ObjectMissingError,
    ObjectTooLongError,
    StaleObjectError,
    StoredObject,
    StoreError,
    StoreUnavailableError,
    check_key,
    checked_content,
)
from atomstream.system.files import LOCAL, TEMP_SUFFIX, FileSystem
from atomstream.system.own_files import LONGEST, open_file, prepare_for_library

LOCK_FILE: Final = ".store-lock"
_LOCK_WAIT_S: Final = 10.0
_POLL_S: Final = 0.005
_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""Error numbers of a missing file, or of a folder or a link with its name."""


class LocalStore:
    """Objects as files in ``folder``, which is made where it is missing; see :class:`~.store.Store`."""

    def __init__(self, folder: Path, file_system: FileSystem = LOCAL) -> None:
        self._folder = folder
        self._file_system = file_system
        file_system.make_folder(folder)
        prepare_for_library(folder / LOCK_FILE)
        self._lock = FileLock(folder / LOCK_FILE, timeout=_LOCK_WAIT_S, poll_interval=_POLL_S)

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    def put(
        self,
        key: str,
        data: Data,
        *,
        create_only: bool = False,
        if_match: str | None = None,
        crc32c: int | None = None,
    ) -> str:
        """Store an object; see :meth:`.store.Store.put`."""
        content = checked_content(key, data, create_only, if_match, crc32c)
        path = self._path(key)
        try:
            with self._lock:
                self._check_present(key, path, create_only, if_match)
                self._file_system.make_folder(path.parent, inside=self._folder)
                self._file_system.write_atomic(path, [content])
                return _etag(path.stat())
        except OSError as error:
            raise self._failed(key, error) from None

    def _check_present(self, key: str, path: Path, create_only: bool, if_match: str | None) -> None:
        try:
            present = _etag(_regular(path))
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            present = None
        if create_only and present is not None:
            raise ObjectExistsError(f"{key} is in {self.name} already.", key)
        if if_match is not None and present != if_match:
            raise StaleObjectError(f"{key} in {self.name} was changed since it was read.", key)

    def fetch(
        self, key: str, offset: int = 0, length: int | None = None, *, most: int = DOCUMENT_NBYTES
    ) -> bytes:
        """A part of an object; see :meth:`.store.Store.fetch`."""
        check_key(key)
        try:
            with open_file(self._path(key), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                start = max(0, size + offset) if offset < 0 else offset
                count = size - start if length is None else min(length, size - start)
                if length is None and offset >= 0 and count > most:
                    raise ObjectTooLongError(key, most)
                file.seek(start)
                return file.read(max(0, count))
        except OSError as error:
            raise self._failed(key, error) from None

    def pieces(self, key: str, *, most: int = LONGEST) -> Iterator[Piece]:
        """The content of an object in pieces; see :meth:`.store.Store.pieces`."""
        check_key(key)
        try:
            with open_file(self._path(key), "rb") as file:
                if os.fstat(file.fileno()).st_size > most:
                    raise ObjectTooLongError(key, most)
                while piece := file.read(PIECE_NBYTES):
                    yield piece
        except OSError as error:
            raise self._failed(key, error) from None

    def get(self, key: str, *, most: int = DOCUMENT_NBYTES) -> StoredObject:
        """An object with its etag; see :meth:`.store.Store.get`."""
        check_key(key)
        try:
            with open_file(self._path(key), "rb") as file:
                found = os.fstat(file.fileno())
                if found.st_size > most:
                    raise ObjectTooLongError(key, most)
                return StoredObject(file.read(most), _etag(found))
        except OSError as error:
            raise self._failed(key, error) from None

    def head(self, key: str) -> ObjectInfo:
        """Size and etag of an object; see :meth:`.store.Store.head`."""
        check_key(key)
        try:
            found = _regular(self._path(key))
        except OSError as error:
            raise self._failed(key, error) from None
        return ObjectInfo(found.st_size, _etag(found))

    def keys(self, folder: str) -> Iterator[str]:
        """The keys below a folder; see :meth:`.store.Store.keys`."""
        return (path.relative_to(self._folder).as_posix() for path in self._files(folder))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        """Keys and sizes below a folder; see :meth:`.store.Store.sizes`."""
        for path in self._files(folder):
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                yield path.relative_to(self._folder).as_posix(), path.lstat().st_size

    def _files(self, folder: str) -> Iterator[Path]:
        check_key(folder, is_folder=True)
        for where, _, names in os.walk(self._path(folder)):
            yield from (Path(where, name) for name in names if _is_object(name))

    def children(self, folder: str) -> list[str]:
        """The names directly below a folder; see :meth:`.store.Store.children`."""
        check_key(folder, is_folder=True)
        try:
            return sorted(filter(_is_object, os.listdir(self._path(folder))))
        except OSError as error:
            if error.errno in _NO_FILE:
                return []
            raise self._failed(folder, error) from None

    def delete(self, key: str) -> None:
        """Remove an object; see :meth:`.store.Store.delete`. Folders that become empty are removed with it."""
        check_key(key)
        path = self._path(key)
        try:
            with self._lock:
                self._file_system.unlink(path)
                for folder in path.parents:
                    if folder == self._folder or not folder.is_dir() or any(folder.iterdir()):
                        break
                    self._file_system.remove_folder(folder)
        except OSError as error:
            raise self._failed(key, error) from None

    def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects; see :meth:`.store.Store.delete_all`."""
        for key in keys:
            check_key(key)
        for key in keys:
            self.delete(key)

    def close(self) -> None:
        """Does nothing: no file stays open."""

    def _path(self, key: str) -> Path:
        return self._folder / key

    def _failed(self, key: str, error: OSError) -> StoreError:
        if error.errno in _NO_FILE:
            return ObjectMissingError(f"There is no {key} in {self.name}.", key)
        why = error.strerror or str(error)  # a lock that another process keeps has its own text
        return StoreUnavailableError(f"The store {self.name} can't be used at present ({key}): {why}.", key)


def _is_object(name: str) -> bool:
    return name != LOCK_FILE and not name.endswith(TEMP_SUFFIX)


def _regular(path: Path) -> os.stat_result:
    """The status (os.stat_result) of a regular file; raises OSError if ``path`` is missing or something else."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ELOOP, "it is not a regular file", str(path))
    return found


def _etag(found: os.stat_result) -> str:
    """A new file has another inode or time than the one that it replaced."""
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
