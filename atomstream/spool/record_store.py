"""The records in a stream's folder as files: written, read, set aside, removed, and counted while at it."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.records import Shard
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.paths import (
    QUARANTINE,
    mark_name,
    marks_in,
    record_name,
    records_in,
    spare_name,
    temporaries_in,
)
from atomstream.spool.quota import Quota, Usage
from atomstream.spool.record import RecordHeader, checked_header, read_windows, record_nbytes, write_record
from atomstream.system.files import FileSystem, temporary_path

# Files of delivered records, kept for the next ones to be written over them.
#
# Room that a file has need not be found, cleared and freed again: a third of a record's processor time in memory,
# half of the time on a disk, whose journal then has nothing to say either [measured, tmpfs and ext4]. Safe, for a
# file changes only after the journal says, durably, that its chunk is stored: whatever a crash leaves under the old
# name is removed at the next opening, as is what lies under a temporary one. Spare files stay charged to the stream,
# so the spool's bounds hold with them; they are kept only where at least half of the room is free, and given up
# before a record of this process is refused. Not on Windows, where a virus scanner may hold any file for a while.

MOST: Final = 2
"""Two records may be delivered before the next one is written."""


@dataclass(frozen=True, slots=True)
class RecycledFile:
    """A file that nobody reads any more, and its size."""

    path: Path
    nbytes: int


class RecycledFiles:
    """A stream's spare files; all methods may be called from any thread."""

    def __init__(self, disk: FileSystem, folder: Path, account: Usage) -> None:
        self._disk = disk
        self._folder = folder
        self._account = account
        self._numbers = count()
        self._free: deque[RecycledFile] = deque()

    def keep(self, path: Path) -> None:
        """Take over the file of a record that is stored; it stays where it is if that can't be done."""
        if sys.platform == "win32" or len(self._free) >= MOST:
            return
        spare = self._folder / spare_name(next(self._numbers))
        try:
            nbytes = path.stat().st_size
            self._disk.rename(path, spare)
        except OSError:  # it is gone, or on Windows somebody reads it
            self.discard(spare)
        else:
            self._free.append(RecycledFile(spare, nbytes))

    def take(self) -> RecycledFile | None:
        """A file to write over, the caller's from now on; None where there is none."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def discard(self, path: Path) -> None:
        """Remove a file and credit its bytes, if it is there. What the disk refuses goes at the next opening."""
        with suppress(OSError):
            nbytes = path.stat().st_size
            self._disk.unlink(path)
            self._account.credit(nbytes)

    def clear(self) -> None:
        """Remove all that is kept."""
        while (spare := self.take()) is not None:
            self.discard(spare.path)


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SpooledChunk:
    """A chunk on disk: ``nbytes`` is its file's size in bytes, header included."""

    index: int
    nbytes: int
    path: Path
    header: RecordHeader


class RecordStore:
    """A stream's record files. Knows nothing of the journal; the stream's lock is held."""

    def __init__(self, disk: FileSystem, folder: Path, data_id: str, bounds: Quota, account: Usage) -> None:
        self.folder: Final = folder
        self._aside: Final = folder / QUARANTINE
        self._disk = disk
        self._data_id = data_id
        self._bounds = bounds
        self._account = account
        self._spares = RecycledFiles(disk, folder, account)
        bounds.ask_when_full(self._spares.clear)

    def sizes(self) -> dict[int, int]:
        """Index and file size of each record that is not in quarantine."""
        return records_in(self.folder)

    def quarantined(self) -> dict[int, int]:
        """Index and file size of each record in quarantine."""
        return records_in(self._aside)

    def write(self, shard: Shard) -> SpooledChunk:
        """Charge for a record and write it, durably.

        Raises:
            SpoolFullError: no room. SpoolError: the disk failed; what may be there does not count as written.
        """
        if shard.info.data_id != self._data_id:
            raise ValueError(f"A chunk of stream {shard.info.data_id!r} in the spool of {self._data_id!r}.")
        header = RecordHeader.of(shard)
        chunk = SpooledChunk(shard.info.index, record_nbytes(header), self.path(shard.info.index), header)
        spare = self._charge(chunk)
        before = spare.nbytes if spare else 0
        try:
            with disk_errors(f"write chunk {shard.info.index} of stream {self._data_id}", chunk.path):
                write_record(self._disk, chunk.path, header, shard.pieces, over=spare.path if spare else None)
        except BaseException:
            self._withdraw(
                chunk, max(before, chunk.nbytes), spare.path if spare else temporary_path(chunk.path)
            )
            raise
        if before > chunk.nbytes:
            self._account.credit(before - chunk.nbytes)
        return chunk

    def _charge(self, chunk: SpooledChunk) -> RecycledFile | None:
        """Charge for what a record takes beyond the spare file that it gets, if there is one."""
        spare = self._spares.take()
        if spare is not None:
            try:
                self._bounds.charge(self._account, max(0, chunk.nbytes - spare.nbytes))
            except SpoolFullError:  # it may be what the room is missing for
                self._spares.discard(spare.path)
            except BaseException:
                self._spares.discard(spare.path)
                raise
            else:
                return spare
        self._bounds.charge(self._account, chunk.nbytes)
        return None

    def chunk(self, index: int) -> SpooledChunk:
        """The record of chunk ``index``, its header checked. Raises RecordCorruptError, SpoolError."""
        header = checked_header(self._disk, self.path(index), self._data_id, index)
        return SpooledChunk(index, record_nbytes(header), self.path(index), header)

    def read_windows(self, index: int, window: int) -> Iterator[bytes]:
        """The payload of chunk ``index``, see :func:`~atomstream.spool.record.read_windows`."""
        return read_windows(self._disk, self.path(index), window)

    def remove(self, index: int) -> None:
        """Remove the record, wherever it is. Its end is in the journal, so a refusal is only logged."""
        for path in (self.path(index), self._aside / record_name(index)):
            self._remove(path)

    def recycle(self, index: int) -> None:
        """Remove a stored record, and keep its file for the next one where there is plenty of room.

        Not for one that somebody may still be sending: its bytes will change.
        """
        if self._bounds.roomy:
            self._spares.keep(self.path(index))
        self.remove(index)

    def close(self) -> None:
        """Remove what was only kept for further records."""
        self._bounds.ask_no_more(self._spares.clear)
        self._spares.clear()

    def mark(self, index: int, kind: str) -> bool:
        """Say on a full disk what became of a record, durably, and free its bytes.

        Renaming takes no room: the new name says it, and then the bytes may go. False: there is no record.

        Raises:
            SpoolError: the disk refused; the record is still there.
        """
        path = self.path(index) if self.path(index).exists() else self._aside / record_name(index)
        if not path.exists():
            return False
        mark = self.folder / mark_name(index, kind)
        with disk_errors("settle a chunk on a full disk", path):
            nbytes = path.stat().st_size
            if not self._rename_synced(path, mark):
                return True  # not synced, so its bytes stay: a power cut may bring the record back whole
        with suppress(OSError):
            self._disk.close(self._disk.open_truncated(mark, 0))
            self._account.credit(nbytes)
        return True

    def _rename_synced(self, path: Path, mark: Path) -> bool:
        try:
            self._disk.rename(path, mark)
            self._disk.sync_folder(self.folder)
        except OSError:
            with suppress(OSError):
                self._disk.rename(mark, path)
            if path.exists():
                raise
            return False
        return True

    def unmark(self, index: int, kind: str) -> None:
        """Remove the mark, now that the journal has it."""
        with suppress(OSError):
            self._disk.unlink(self.folder / mark_name(index, kind))

    def set_aside(self, index: int) -> None:
        """Move the record into quarantine. The journal says so, so a refusal is only logged."""
        try:
            self._move(self.path(index), self._aside)
        except SpoolError as error:
            _log.warning("%s The next opening tries again.", error)

    def take_back(self, index: int) -> int:
        """Move the record out of quarantine; returns its size."""
        self._move(self._aside / record_name(index), self.folder)
        return self.path(index).stat().st_size

    def remove_rest(self) -> None:
        """Remove half-written files and marks: for a stream of which nothing is wanted any more.

        Raises:
            OSError: what the disk said.
        """
        marks = [self.folder / mark_name(index, kind) for index, kind in marks_in(self.folder)]
        for path in [*marks, *temporaries_in(self.folder), *temporaries_in(self._aside)]:
            self._disk.unlink(path)

    def path(self, index: int) -> Path:
        """Where the record of chunk ``index`` is, or would be."""
        return self.folder / record_name(index)

    def _withdraw(self, chunk: SpooledChunk, charged: int, temporary: Path) -> None:
        # It may have its name while its folder could not be synced: then it is not durable, and must not
        # come back later as a chunk that its owner meanwhile gave up.
        with suppress(OSError):
            self._disk.unlink(chunk.path)
            self._disk.unlink(temporary)
            self._account.credit(charged)

    def _remove(self, path: Path) -> None:
        try:
            nbytes = path.stat().st_size
            self._disk.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:  # on Windows somebody may be reading it: the next opening removes it
            _log.warning("The settled record %s could not be removed yet: %s", path, error)
        else:
            self._account.credit(nbytes)

    def _move(self, path: Path, folder: Path) -> None:
        with disk_errors("move a record", path):
            self._disk.make_folder(folder)
            self._disk.rename(path, folder / path.name)
            self._disk.sync_folder(folder)
            self._disk.sync_folder(path.parent)
