"""Disk quota of the spool, shared by all processes that use its root folder.

Each stream's folder has a small file ``usage`` with the bytes of its records and recycled files. Only the owner
of the stream writes it: it adds a record's size before the record is written, and subtracts it after the record
is removed. The sum over all folders, read under the root lock, is the space that the spool uses. If a process
dies between the two steps, its number is too high by one record at most, never too low. It is corrected when the
stream is opened. A missing or damaged number is computed from the files.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import google_crc32c

from atomstream.errors import SpoolFullError
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.locks import RootLock
from atomstream.spool.paths import ROOT_LOCK, USAGE, record_bytes, stream_folders
from atomstream.system.files import FileSystem
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain

MAX_DEFAULT_BYTES: Final = 20_000_000_000

_NUMBER = struct.Struct("<q")


class Usage:
    """The file ``usage`` of one stream, and the number of bytes in it; thread-safe."""

    def __init__(self, disk: FileSystem, folder: Path) -> None:
        self._disk = disk
        self._path = folder / USAGE
        self._lock = threading.Lock()
        self._nbytes = 0

    def recount(self) -> None:
        """Compute the number from the files. If it can't be written, the next change writes it."""
        with self._lock:
            self._nbytes = record_bytes(self._path.parent)
            with suppress(OSError):
                self._set(self._nbytes)

    def add(self, nbytes: int) -> None:
        """Add ``nbytes`` before they are written. Raises OSError; then nothing is added."""
        with self._lock:
            self._set(self._nbytes + nbytes)

    def subtract(self, nbytes: int) -> None:
        """Subtract ``nbytes`` after they were removed. If it can't be written, the next change writes it."""
        with self._lock:
            self._nbytes -= nbytes
            with suppress(OSError):
                self._set(self._nbytes)

    def _set(self, nbytes: int) -> None:
        number = _NUMBER.pack(nbytes)
        self._disk.overwrite(self._path, number + google_crc32c.value(number).to_bytes(4, "little"))
        self._nbytes = nbytes


class Quota:
    """The limits of the spool: ``max_bytes`` for all records, ``min_free_bytes`` to leave free on the disk.

    With ``max_bytes`` None the limit is 20 GB or 10 % of the free disk space, whichever is smaller.
    """

    def __init__(self, disk: FileSystem, root: Path, max_bytes: int | None, min_free_bytes: int) -> None:
        self.root = root
        self.lock = RootLock(root / ROOT_LOCK)
        self._disk = disk
        self.max_bytes = self._default_max_bytes() if max_bytes is None else max_bytes
        self.min_free_bytes = min_free_bytes
        self._reclaimers: list[Callable[[], None]] = []
        self.half_free = False
        """True if at least half of the allowed space was free at the last check."""

    def used_bytes(self) -> int:
        """Bytes of all records under the root folder, of all processes."""
        return sum(map(usage_of, stream_folders(self.root)))

    def free_bytes(self) -> int:
        """Free bytes on the disk."""
        return self._disk.free_bytes(self.root)

    def reserve(self, usage: Usage, nbytes: int) -> None:
        """Add a record of ``nbytes`` to ``usage`` if the limits allow it.

        A single record in an empty spool may be larger than ``max_bytes``.

        Raises:
            SpoolFullError: the limits don't allow it. SpoolError: the disk failed.
        """
        with self.lock.held(), disk_errors("count its bytes", self.root):
            try:
                self._check_space(nbytes)
            except SpoolFullError:
                for reclaim in list(self._reclaimers):
                    reclaim()
                self._check_space(nbytes)
            usage.add(nbytes)

    def add_reclaimer(self, reclaim: Callable[[], None]) -> None:
        """Register a function that frees optional space; it is called before a record is refused."""
        self._reclaimers.append(reclaim)

    def remove_reclaimer(self, reclaim: Callable[[], None]) -> None:
        """Unregister the function; does nothing if it is not registered."""
        with suppress(ValueError):
            self._reclaimers.remove(reclaim)

    def _check_space(self, nbytes: int) -> None:
        used, self.half_free = self.used_bytes(), False
        if used and used + nbytes > self.max_bytes:
            raise SpoolFullError(
                f"The spool {self.root} is full: it holds {used / 1e6:.0f} MB, and a record of {nbytes / 1e6:.1f} MB "
                f"more would exceed spool_max_bytes ({self.max_bytes / 1e6:.0f} MB). The stream continues from "
                "memory. Space is freed when uploads are confirmed."
            )
        free = self.free_bytes()
        self.half_free = 2 * (used + nbytes) <= self.max_bytes and free - nbytes >= 2 * self.min_free_bytes
        if free - nbytes < self.min_free_bytes:
            raise SpoolFullError(
                f"The disk of the spool {self.root} has {free / 1e6:.0f} MB free: a record of {nbytes / 1e6:.1f} MB "
                f"more would leave less than spool_min_free_bytes ({self.min_free_bytes / 1e6:.0f} MB). The stream "
                "continues from memory. Free some space on that disk."
            )

    def _default_max_bytes(self) -> int:
        # The spool's own files count as free: otherwise a full spool would get a smaller limit at each start.
        return min(MAX_DEFAULT_BYTES, (self.free_bytes() + self.used_bytes()) // 10)


def usage_of(folder: Path) -> int:
    """Bytes of a stream's records, from its ``usage`` file, or from its files if that one is missing or damaged."""
    with suppress(OSError):
        raw = read_plain(folder / USAGE, DOCUMENT_BYTES)
        if len(raw) == _NUMBER.size + 4 and google_crc32c.value(raw[:-4]) == int.from_bytes(
            raw[-4:], "little"
        ):
            nbytes = int(_NUMBER.unpack(raw[:-4])[0])
            if nbytes >= 0:
                return nbytes
    return record_bytes(folder)
