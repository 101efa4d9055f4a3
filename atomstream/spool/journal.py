"""The journal of a stream: an append-only file of entries, each with a length and a CRC-32C.

A torn entry at the end fails its checksum and is cut off. If an entry in the middle is damaged, the reader
searches for the next valid entry, so only the damaged entries are lost. The entries of one chunk take about
50 bytes in total (40 MB a day for chunks of 0.1 s), so the journal is never compacted.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import google_crc32c
import msgpack

from atomstream.errors import SpoolError
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.stored_values import stored_digest, stored_index, stored_integer, stored_text
from atomstream.system.files import FileSystem
from atomstream.system.own_files import read_bounded

EntryKind: TypeAlias = Literal[
    "manifest",  # ``detail`` is a second copy of stream.json, in case that file is damaged
    "accepted",  # a chunk was accepted
    "stored",  # the server has stored the chunk
    "quarantined",  # the chunk can't be delivered; its record is in the quarantine folder
    "dropped",  # discarded by the policy ``on_full``, or lost with the memory of a process that died
    "purged",  # removed on request or because of the retention time
    "requeued",  # a quarantined chunk is delivered again
    "finalizing",  # no more pushes; deliver all chunks, then end the stream (``detail``: options of finalize)
    "ended",  # the server confirmed the end
    "reopened",  # cancels "finalizing" and "ended"
]

HEADER: Final = b"\x89ATJRN\x01\n"

_OF_STREAM: Final = frozenset({"manifest", "finalizing", "ended", "reopened"})
"""Kinds of the whole stream; the others are about one chunk."""

_KINDS: Final[tuple[EntryKind, ...]] = get_args(EntryKind)
"""The file holds the position in this tuple: add new kinds at the end only."""
_MARK: Final = b"\xa7J"
_FRAME = struct.Struct("<2sII")
_LENGTH = struct.Struct("<I")
_MAX_BODY_BYTES: Final = 1 << 20
_MAX_REASON_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One event of a stream; ``index`` is the chunk's index, or -1 for an event of the whole stream."""

    kind: EntryKind
    index: int = -1
    digest: bytes = b""
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class JournalScan(NamedTuple):
    """The result of reading a journal: its entries, the end of the last one, and the number of damaged places."""

    entries: list[JournalEntry]
    end: int
    gaps: int


def pack_entry(entry: JournalEntry) -> bytes:
    """The bytes of an entry, with its mark, length and checksum."""
    values: list[Any] = [_KINDS.index(entry.kind), entry.index, entry.digest]
    if entry.reason or entry.detail:
        values += [entry.reason[:_MAX_REASON_CHARS], dict(entry.detail)]
    body: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
    if len(body) > _MAX_BODY_BYTES:
        raise ValueError(f"A journal entry of {len(body)} bytes is over the limit of {_MAX_BODY_BYTES}.")
    return _FRAME.pack(_MARK, len(body), _frame_crc(body)) + body


def scan(data: bytes) -> JournalScan:
    """All valid entries in a journal's bytes; damaged bytes are skipped."""
    entries: list[JournalEntry] = []
    at = end = data.find(_MARK) if not data.startswith(HEADER) else len(HEADER)
    gaps = 0
    while 0 <= at < len(data):
        body = _body_at(data, at)
        if body is None:
            at = data.find(_MARK, at + 1)
            continue
        gaps += at != end
        at = end = at + _FRAME.size + len(body)
        entries.extend(_unpack(body))
    return JournalScan(entries, max(end, len(HEADER)), gaps)


def _frame_crc(body: bytes) -> int:
    crc: int = google_crc32c.extend(google_crc32c.value(_LENGTH.pack(len(body))), body)
    return crc


def _body_at(data: bytes, at: int) -> bytes | None:
    if at + _FRAME.size > len(data):
        return None
    mark, size, crc = _FRAME.unpack_from(data, at)
    body = data[at + _FRAME.size : at + _FRAME.size + min(size, _MAX_BODY_BYTES)]
    if mark != _MARK or len(body) != size or _frame_crc(body) != crc:
        return None
    return body


def _unpack(body: bytes) -> list[JournalEntry]:
    try:
        code, *rest = msgpack.unpackb(body, unicode_errors="surrogatepass")
        # A kind of a newer version is skipped: this version can still deliver the records.
        return [_checked(_KINDS[code], *rest)] if 0 <= code < len(_KINDS) else []
    except (ValueError, TypeError, msgpack.UnpackException):
        return []


def _checked(
    kind: EntryKind, index: Any, digest: Any, reason: Any = "", detail: Any = MappingProxyType({})
) -> JournalEntry:
    """The entry, with its values checked: another program may have written it with a valid checksum. Raises ValueError,
    TypeError."""
    if kind in _OF_STREAM:
        stored_integer(index, -1, -1)
    else:
        stored_index(index)
    return JournalEntry(kind, index, stored_digest(digest), stored_text(reason), dict(detail))


class Journal:
    """A stream's journal, open for appending; thread-safe. The caller must hold the stream's lock.

    ``append`` survives the end of the process, ``append_durable`` also a power cut. After a failed write the
    partial entry is cut off before the next write. After a failed fsync the content of the file since the last
    good fsync is unknown: the system may have discarded these pages, and it reports the error only once.
    So the next append first rewrites the journal as a new file.

    Raises (every method that writes):
        SpoolFullError, SpoolError: the entry is not in the journal; earlier entries are.
    """

    def __init__(self, disk: FileSystem, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._end = 0
        self._synced = 0
        self._unsynced: list[bytes] = []  # all bytes after ``_synced``, for a rewrite
        self._torn = False
        self._must_rewrite = False
        self._closed = False

    @classmethod
    def create(cls, disk: FileSystem, path: Path, first: JournalEntry) -> Journal:
        """Create a journal with one entry, durably."""
        with disk_errors("begin the journal", path):
            disk.write_atomic(path, [HEADER, pack_entry(first)])
        return cls.open(disk, path)[0]

    @classmethod
    def open(cls, disk: FileSystem, path: Path) -> tuple[Journal, JournalScan]:
        """Open an existing journal and read it; a torn entry at the end is cut off."""
        journal = cls(disk, path)
        with disk_errors("open the journal", path, READ_REFUSED):
            data = _read_all(disk, path)
            found = scan(data)
            journal._end = found.end
            # An earlier process may have left its bytes in the page cache only, so none of them count as synced.
            journal._unsynced = [data[: found.end].ljust(found.end, b"\0")]
            journal._descriptor()
        return journal, found

    def append(self, entry: JournalEntry) -> None:
        """Add an entry that survives the end of this process."""
        with self._lock, disk_errors("write to the journal", self.path):
            self._write(pack_entry(entry))

    def append_durable(self, entry: JournalEntry) -> None:
        """Add an entry that survives a power cut; all earlier entries do then, too."""
        with self._lock, disk_errors("write to the journal", self.path):
            frame = pack_entry(entry)
            self._write(frame)
            self._sync()

    def sync(self) -> None:
        """Make all entries durable."""
        with self._lock, disk_errors("write to the journal", self.path):
            self._write(b"")
            self._sync()

    def close(self) -> None:
        """Close the file; later calls raise SpoolError."""
        with self._lock:
            self._closed = True
            fd, self._fd = self._fd, None
            if fd is not None:
                with disk_errors("close the journal", self.path):
                    self._disk.close(fd)

    def _write(self, frame: bytes) -> None:
        if self._must_rewrite:
            self._rewrite()
        fd = self._descriptor()
        if self._torn:
            self._disk.truncate(fd, self._end)
        self._torn = True
        self._disk.write(fd, [frame])
        self._torn = False
        self._end += len(frame)
        self._unsynced.append(frame)

    def _sync(self) -> None:
        try:
            self._disk.sync(self._descriptor())
        except BaseException:
            # The newest entry was not acknowledged, so a rewrite leaves it out.
            self._end -= len(self._unsynced.pop())
            self._must_rewrite = True
            raise
        self._synced = self._end
        self._unsynced.clear()

    def _rewrite(self) -> None:
        # The part up to the last good fsync is safe on the disk and can be read back; the rest is in memory.
        # The file is closed first because Windows can't rename over an open file.
        synced = _read_all(self._disk, self.path)[: self._synced]
        if len(synced) != self._synced:
            raise OSError(None, "its earlier entries can't be read back")
        fd, self._fd = (
            self._descriptor(),
            None,
        )  # set before the close: a close that fails has closed the file, too
        self._disk.close(fd)
        self._disk.write_atomic(self.path, [synced, *self._unsynced])
        self._must_rewrite, self._torn = False, False
        self._synced = self._end
        self._unsynced.clear()

    def _descriptor(self) -> int:
        if self._closed:
            raise SpoolError(f"The journal {self.path} is closed; nothing more can be written to it.")
        if self._fd is None:
            self._fd = self._disk.open_truncated(self.path, self._end)
        return self._fd


def read_journal(disk: FileSystem, path: Path) -> JournalScan:
    """Read a journal without changing the file.

    Raises:
        SpoolError: the disk could not read it.
    """
    with disk_errors("read the journal", path, READ_REFUSED):
        return scan(_read_all(disk, path))


def _read_all(disk: FileSystem, path: Path) -> bytes:
    with disk.open_read(path) as file:
        return read_bounded(file, path)
