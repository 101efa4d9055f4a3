"""The stream's journal on disk: append-only, each entry whole or not there.

``append`` survives the process, ``append_durable`` a power cut as well. A failed write is cut off before the
next one. After a failed fsync nothing is known of the pages since the last good one (the system may have
dropped them and will not say so twice), so the next append first writes the journal anew, into a fresh file.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import google_crc32c
import msgpack

from atomstream.errors import SpoolError
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.system.files import FileSystem, write_whole

# The journal's entries and their bytes: each framed with a mark, a length and a CRC-32C.
#
# A torn tail fails its checksum and is cut off. Where an entry in the middle is damaged, the next mark whose
# frame checks is found again, so damage costs only the entries it hit. About 50 bytes a chunk in all: a day of
# 0.1 s chunks makes 40 MB, so nothing is ever compacted.

EntryKind: TypeAlias = Literal[
    "claimed",  # the stream's manifest (``detail``): a second copy of stream.json, which may be damaged
    "accepted",  # a chunk was taken
    "stored",  # the server has it
    "quarantined",  # it can't be delivered as it is; its record is kept aside
    "dropped",  # given up by the policy of ``on_full``, or lost with the memory of a process that died
    "purged",  # removed because a person or the retention asked for it
    "requeued",  # a quarantined chunk is to be tried again
    "finalizing",  # no more pushes; drain, then end (``detail``: the wishes)
    "ended",  # the server confirmed the end
    "reopened",  # finalizing or ended no longer holds: the stream goes on
]

_KINDS: Final[tuple[EntryKind, ...]] = get_args(EntryKind)
"""Their order is the format: new kinds go at the end."""

HEADER: Final = b"\x89ATJRN\x01\n"

_MARK: Final = b"\xa7J"

_FRAME = struct.Struct("<2sII")

_LENGTH = struct.Struct("<I")

_MAX_BODY_BYTES: Final = 1 << 20

_MAX_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that happened to a stream; ``index`` is the chunk's, -1 for the stream as a whole."""

    kind: EntryKind
    index: int = -1
    digest: bytes = b""
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class JournalScan(NamedTuple):
    """What a journal's bytes hold: its entries, where the last one ends, and how many gaps were passed over."""

    entries: list[JournalEntry]
    end: int
    gaps: int


def pack_entry(entry: JournalEntry) -> bytes:
    """The framed bytes of an entry."""
    values: list[Any] = [_KINDS.index(entry.kind), entry.index, entry.digest]
    if entry.reason or entry.detail:
        values += [entry.reason[:_MAX_REASON], dict(entry.detail)]
    body: bytes = msgpack.packb(values, unicode_errors="surrogatepass")
    if len(body) > _MAX_BODY_BYTES:
        raise ValueError(f"A journal entry of {len(body)} bytes is over the limit of {_MAX_BODY_BYTES}.")
    return _FRAME.pack(_MARK, len(body), _frame_crc(body)) + body


def scan(data: bytes) -> JournalScan:
    """All entries in a journal's bytes, whatever was torn or damaged."""
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
        # A kind of a newer format is passed over: an older atomstream may still deliver the records.
        return [JournalEntry(_KINDS[code], *rest)] if 0 <= code < len(_KINDS) else []
    except (ValueError, TypeError, msgpack.UnpackException):
        return []


class Journal:
    """A stream's journal, open for appending; safe from several threads. Its caller holds the stream's lock.

    Raises (every method that writes):
        SpoolFullError, SpoolError: the entry is not in the journal; those before it are.
    """

    def __init__(self, disk: FileSystem, path: Path) -> None:
        self.path = path
        self._disk = disk
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._end = 0
        self._synced = 0
        self._unsynced: list[bytes] = []  # what was appended since ``_synced``: for the fresh file
        self._torn = False
        self._suspect = False
        self._closed = False

    @classmethod
    def create(cls, disk: FileSystem, path: Path, first: JournalEntry) -> Journal:
        """Begin a journal with its first entry, durably."""
        with disk_errors("begin the journal", path):
            write_whole(disk, path, [HEADER, pack_entry(first)])
        return cls.open(disk, path)[0]

    @classmethod
    def open(cls, disk: FileSystem, path: Path) -> tuple[Journal, JournalScan]:
        """Open an existing journal, with what it holds; a torn tail is cut off."""
        journal = cls(disk, path)
        with disk_errors("open the journal", path, READ_REFUSED):
            data = _read_all(disk, path)
            found = scan(data)
            journal._end = found.end
            # What an earlier process left may stand in the page cache only, so none of it counts as synced.
            journal._unsynced = [data[: found.end].ljust(found.end, b"\0")]
            journal._descriptor()
        return journal, found

    def append(self, entry: JournalEntry) -> None:
        """Add an entry that survives this process."""
        with self._lock, disk_errors("write to the journal", self.path):
            self._write(pack_entry(entry))

    def append_durable(self, entry: JournalEntry) -> None:
        """Add an entry that survives a power cut, and with it all before it."""
        with self._lock, disk_errors("write to the journal", self.path):
            frame = pack_entry(entry)
            self._write(frame)
            self._sync()

    def sync(self) -> None:
        """Make all that was appended survive a power cut."""
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
        if self._suspect:
            self._write_anew()
        fd = self._descriptor()
        if self._torn:
            self._disk.cut(fd, self._end)
        self._torn = True
        self._disk.write(fd, [frame])
        self._torn = False
        self._end += len(frame)
        self._unsynced.append(frame)

    def _sync(self) -> None:
        try:
            self._disk.sync(self._descriptor())
        except BaseException:
            # The newest entry was not acknowledged, so it is not part of what is written anew.
            self._end -= len(self._unsynced.pop())
            self._suspect = True
            raise
        self._synced = self._end
        self._unsynced.clear()

    def _write_anew(self) -> None:
        # The part up to the last good fsync is on the disk itself, so it may be read back; the rest comes
        # from memory. Closed first, for Windows renames over no open file.
        kept = _read_all(self._disk, self.path)[: self._synced]
        if len(kept) != self._synced:
            raise OSError(None, "its earlier entries can't be read back")
        fd, self._fd = self._descriptor(), None  # let go of first: a close that fails has closed all the same
        self._disk.close(fd)
        write_whole(self._disk, self.path, [kept, *self._unsynced])
        self._suspect, self._torn = False, False
        self._synced = self._end
        self._unsynced.clear()

    def _descriptor(self) -> int:
        if self._closed:
            raise SpoolError(f"The journal {self.path} is closed; nothing more can be written to it.")
        if self._fd is None:
            self._fd = self._disk.open_at(self.path, self._end)
        return self._fd


def replay(disk: FileSystem, path: Path) -> JournalScan:
    """Read a journal's entries without touching it.

    Raises:
        SpoolError: the disk could not read it.
    """
    with disk_errors("read the journal", path, READ_REFUSED):
        return scan(_read_all(disk, path))


def _read_all(disk: FileSystem, path: Path) -> bytes:
    with disk.open_read(path) as file:
        return file.readall() or b""
