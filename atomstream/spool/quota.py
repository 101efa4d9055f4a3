"""The bounds of a spool, shared by all processes that use its root, right across crashes.

Each stream's folder has a small file ``usage`` that its owner alone writes: the bytes of its records, spare files
included, charged before a record is written and credited after it is gone. The sum over all folders, read under
the root's lock, is what the spool takes. A process that dies between the two leaves its number too high by a record at
most, never too low, and opening the stream counts anew. A missing or torn number is counted from the files.
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

MAX_DEFAULT_BYTES: Final = 20_000_000_000
_NUMBER = struct.Struct("<q")


class Usage:
    """The bytes of one stream's records; its owner is the only writer."""

    def __init__(self, disk: FileSystem, folder: Path) -> None:
        self._disk = disk
        self._path = folder / USAGE
        self._lock = threading.Lock()
        self._nbytes = 0

    def recount(self) -> None:
        """Take the number from the files; where it can't be written down, on a full disk, the next write does."""
        with self._lock:
            self._nbytes = record_bytes(self._path.parent)
            with suppress(OSError):
                self._set(self._nbytes)

    def charge(self, nbytes: int) -> None:
        """Count ``nbytes`` more, before they are written. Raises OSError; then they are not counted."""
        with self._lock:
            self._set(self._nbytes + nbytes)

    def credit(self, nbytes: int) -> None:
        """Count ``nbytes`` less, now that they are gone; should the disk refuse, the next write tells it."""
        with self._lock:
            self._nbytes -= nbytes
            with suppress(OSError):
                self._set(self._nbytes)

    def _set(self, nbytes: int) -> None:
        number = _NUMBER.pack(nbytes)
        self._disk.overwrite(self._path, number + google_crc32c.value(number).to_bytes(4, "little"))
        self._nbytes = nbytes


class Quota:
    """Whether there is room for one more record."""

    def __init__(self, disk: FileSystem, root: Path, max_bytes: int | None, min_free_bytes: int) -> None:
        self.root = root
        self.lock = RootLock(root / ROOT_LOCK)
        self._disk = disk
        self.max_bytes = self._default_max_bytes() if max_bytes is None else max_bytes
        self.min_free_bytes = min_free_bytes
        self._spare_room: list[Callable[[], None]] = []
        self.roomy = False
        """Whether at least half of the room was free when last looked at."""

    def used_bytes(self) -> int:
        """Bytes of all records under the root, of all processes."""
        return sum(map(usage_of, stream_folders(self.root)))

    def free_bytes(self) -> int:
        """Bytes free on the disk."""
        return self._disk.free_bytes(self.root)

    def charge(self, account: Usage, nbytes: int) -> None:
        """Charge a record of ``nbytes`` to ``account`` if there is room; one alone may be over the bound.

        Raises:
            SpoolFullError: there is none. SpoolError: the disk failed.
        """
        with self.lock.held(), disk_errors("count its bytes", self.root):
            try:
                self._check_room(nbytes)
            except SpoolFullError:
                for make_room in list(self._spare_room):
                    make_room()
                self._check_room(nbytes)
            account.charge(nbytes)

    def ask_when_full(self, make_room: Callable[[], None]) -> None:
        """Call ``make_room``, which gives up what is only kept for speed, before anybody is refused."""
        self._spare_room.append(make_room)

    def ask_no_more(self, make_room: Callable[[], None]) -> None:
        """Forget ``make_room``; nothing where it is not known."""
        with suppress(ValueError):
            self._spare_room.remove(make_room)

    def _check_room(self, nbytes: int) -> None:
        used, self.roomy = self.used_bytes(), False
        if used and used + nbytes > self.max_bytes:
            raise SpoolFullError(
                f"The spool {self.root} is full: it holds {used / 1e6:.0f} MB, a record of {nbytes / 1e6:.1f} MB "
                f"more would pass spool_max_bytes ({self.max_bytes / 1e6:.0f} MB). The stream goes on from "
                "memory; room comes back as uploads are confirmed."
            )
        free = self.free_bytes()
        self.roomy = 2 * (used + nbytes) <= self.max_bytes and free - nbytes >= 2 * self.min_free_bytes
        if free - nbytes < self.min_free_bytes:
            raise SpoolFullError(
                f"The disk under the spool {self.root} has {free / 1e6:.0f} MB free: a record of {nbytes / 1e6:.1f} MB "
                f"more would leave less than spool_min_free_bytes ({self.min_free_bytes / 1e6:.0f} MB). The stream "
                "goes on from memory; free some space."
            )

    def _default_max_bytes(self) -> int:
        # Of the disk as it was without us: else a full spool would shrink its own bound at each start.
        return min(MAX_DEFAULT_BYTES, (self.free_bytes() + self.used_bytes()) // 10)


def usage_of(folder: Path) -> int:
    """The bytes that a stream's records take, by its owner's number, else by its files."""
    with suppress(OSError):
        raw = (folder / USAGE).read_bytes()
        if len(raw) == _NUMBER.size + 4 and google_crc32c.value(raw[:-4]) == int.from_bytes(
            raw[-4:], "little"
        ):
            return int(_NUMBER.unpack(raw[:-4])[0])
    return record_bytes(folder)
