"""Opening a stream's folder after whatever happened: the files are brought where the journal says.

Every step may be cut short and is repeated at the next opening. Nothing that is not settled is removed, and a
damaged record is put aside under its name, with the reason in the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from atomstream.errors import RecordCorruptError, SpoolError, SpoolLockedError
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.journal import EntryKind, Journal, JournalEntry, read_journal
from atomstream.spool.locks import StreamLock
from atomstream.spool.paths import (
    JOURNAL,
    LOCK,
    MANIFEST,
    QUARANTINE,
    mark_name,
    marks_in,
    record_name,
    records_in,
    temporaries_in,
)
from atomstream.spool.quota import Quota, Usage
from atomstream.spool.record import checked_header
from atomstream.spool.record_store import RecordStore, SpooledChunk
from atomstream.spool.stream_spool import StreamFolderHandles, StreamSpool
from atomstream.spool.stream_state import JournalState, StreamManifest, read_manifest, write_manifest
from atomstream.system.files import FileSystem

_log = logging.getLogger(__name__)


class FolderRecovery:
    """One pass over a stream's folder; its lock must be held."""

    def __init__(
        self, disk: FileSystem, folder: Path, data_id: str, journal: Journal, history: JournalState
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._data_id = data_id
        self._journal = journal
        self._history = history
        self._may_remove = False

    def run(self) -> None:
        """Do all of it. What the disk refuses is left for the next time."""
        with suppress(SpoolError):
            # "stored" may so far stand in the page cache only: it must be safe before its record goes.
            self._journal.sync()
            self._may_remove = True
        for path in [*temporaries_in(self._folder), *temporaries_in(self._folder / QUARANTINE)]:
            self._unlink(path)  # never acknowledged
        for index, kind in marks_in(self._folder):
            self._take_mark(index, cast("EntryKind", kind))
        for index in records_in(self._folder):
            self._settle_record(index)
        for index in records_in(self._folder / QUARANTINE):
            self._settle_quarantined(index)

    def _take_mark(self, index: int, kind: EntryKind) -> None:
        entry = JournalEntry(kind, index, reason="" if kind == "stored" else "noted while the disk was full")
        self._history.apply(entry)
        with suppress(SpoolError):  # still full: the mark stays, and says the same again next time
            self._journal.append_durable(entry)
            self._unlink(self._folder / mark_name(index, kind))

    def _settle_record(self, index: int) -> None:
        path = self._folder / record_name(index)
        state = self._history.states.get(index, "pending")
        if state == "quarantined":
            self._move(path, self._folder / QUARANTINE)
        elif state != "pending":
            self._remove(path)
        else:
            self._check(path, index)

    def _check(self, path: Path, index: int) -> None:
        try:
            header = checked_header(self._disk, path, self._data_id, index)
        except RecordCorruptError as error:
            _log.warning("%s It is kept in %s.", error, self._folder / QUARANTINE)
            self._note(JournalEntry("quarantined", index, reason=str(error)))
            self._move(path, self._folder / QUARANTINE)
        except SpoolError as error:  # perhaps it can be read later: it stays pending
            _log.warning("%s", error)
            self._note(JournalEntry("accepted", index))
        else:
            if index not in self._history.digests:
                self._note(JournalEntry("accepted", index, header.info.digest))

    def _settle_quarantined(self, index: int) -> None:
        path = self._folder / QUARANTINE / record_name(index)
        state = self._history.states.get(index)
        if state is None:
            self._note(
                JournalEntry("quarantined", index, reason="found in quarantine; the reason is not known")
            )
        elif state == "pending":
            self._move(path, self._folder)
        elif state != "quarantined":
            self._remove(path)

    def _note(self, entry: JournalEntry) -> None:
        self._history.apply(entry)
        with suppress(SpoolError):  # the files tell the same again at the next opening
            self._journal.append(entry)

    def _move(self, path: Path, folder: Path) -> None:
        with suppress(OSError):
            self._disk.make_folder(folder)
            self._disk.rename(path, folder / path.name)

    def _remove(self, path: Path) -> None:
        if self._may_remove:
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(OSError):
            self._disk.unlink(path)


# Taking a stream's folder: lock, description, journal, repairs. The caller holds the root's lock.


def begin(disk: FileSystem, folder: Path, bounds: Quota, manifest: StreamManifest) -> StreamSpool:
    """Make the folder of a new stream.

    Raises:
        SpoolError: the stream is there already, or the disk refused. SpoolLockedError: and somebody holds it.
    """
    with disk_errors("make a stream's folder", folder):
        disk.make_folder(folder)
    with ExitStack() as undo:
        lock = _taken(folder, manifest.spec.data_id, undo)
        if (folder / MANIFEST).exists() or (folder / JOURNAL).exists():
            raise SpoolError(f"Stream {manifest.spec.data_id} is in the spool already ({folder}); resume it.")
        write_manifest(disk, folder / MANIFEST, manifest)
        return _enter(disk, folder, bounds, manifest, lock, undo)


def enter(disk: FileSystem, folder: Path, bounds: Quota) -> StreamSpool:
    """Take over a stream's folder as an earlier process left it.

    Raises:
        SpoolLockedError: somebody holds it. SpoolError: it can't be read.
    """
    with ExitStack() as undo:
        lock = _taken(folder, folder.name, undo)
        manifest = manifest_of(disk, folder)
        _mend_manifest(disk, folder, manifest)
        return _enter(disk, folder, bounds, manifest, lock, undo)


def is_free(folder: Path) -> bool:
    """Whether nobody holds the stream's folder."""
    lock = StreamLock(folder / LOCK)
    free = lock.acquire()
    lock.release()
    return free


def manifest_of(disk: FileSystem, folder: Path) -> StreamManifest:
    """The stream's description: ``stream.json``, or where it is damaged the copy in the journal.

    Raises:
        SpoolError: neither can be read.
    """
    try:
        return read_manifest(disk, folder / MANIFEST)
    except SpoolError as error:
        with suppress(SpoolError):
            return StreamManifest.from_fields(history_of(disk, folder).manifest)
        raise SpoolError(
            f"{error} Nor has its journal a copy. The records in {folder} were left as they are."
        ) from error


def history_of(disk: FileSystem, folder: Path) -> JournalState:
    """What the stream's journal holds; an empty history where there is none. Raises SpoolError."""
    if not (folder / JOURNAL).exists():
        return JournalState()
    return JournalState.from_entries(read_journal(disk, folder / JOURNAL).entries)


def _taken(folder: Path, data_id: str, undo: ExitStack) -> StreamLock:
    lock = StreamLock(folder / LOCK)
    if not lock.acquire():
        raise SpoolLockedError(
            f"Another process (or another streamer of this one) holds the spool of stream {data_id} ({folder}). "
            "Nothing was changed; it is free once that process ends.",
            data_id=data_id,
        )
    undo.callback(lock.release)
    return lock


def _mend_manifest(disk: FileSystem, folder: Path, manifest: StreamManifest) -> None:
    try:
        read_manifest(disk, folder / MANIFEST)
    except SpoolError:
        with suppress(SpoolError):  # the copy in the journal will do
            write_manifest(disk, folder / MANIFEST, manifest)


def _enter(
    disk: FileSystem, folder: Path, bounds: Quota, manifest: StreamManifest, lock: StreamLock, undo: ExitStack
) -> StreamSpool:
    journal, history = _journal(disk, folder, manifest)
    undo.callback(journal.close)
    data_id = manifest.spec.data_id
    FolderRecovery(disk, folder, data_id, journal, history).run()
    account = Usage(disk, folder)
    account.recount()
    records = RecordStore(disk, folder, data_id, bounds, account)
    stream = StreamSpool(StreamFolderHandles(disk, records, journal, lock, bounds.lock), manifest, history)
    undo.pop_all()  # taken: the lock and the journal are now the stream's
    return stream


def _journal(disk: FileSystem, folder: Path, manifest: StreamManifest) -> tuple[Journal, JournalState]:
    path = folder / JOURNAL
    if not path.exists():  # a new stream; or somebody removed it: then the records tell what was accepted
        first = JournalEntry("manifest", detail=manifest.to_fields())
        return Journal.create(disk, path, first), JournalState.from_entries([first])
    journal, found = Journal.open(disk, path)
    return journal, JournalState.from_entries(found.entries)


# The check of what an earlier process left: every record read whole before it is handed on (promise P11).
#
# A generator, so that whoever drives it lets others have the disk after each window.


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that is damaged or can't be read; it is in quarantine."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """A record could be neither read nor put aside, so it is the disk that fails; asking on tries it again."""


VerifyResult: TypeAlias = SpooledChunk | Quarantined | DiskFailed
"""What became of one record; a :class:`SpooledChunk` is whole."""


def verify_records(stream: StreamSpool) -> Iterator[VerifyResult | None]:
    """Check the records that wait now, lowest index first, both checksums of each.

    Yields None after each window read, so holds one window, and a finding after each record; a damaged record
    is in quarantine by then, and in the journal and the log. Records that are settled meanwhile are passed over.
    """
    for index in stream.pending():
        yield from _checked(stream, index)


def _checked(stream: StreamSpool, index: int) -> Iterator[VerifyResult | None]:
    while stream.holds(index):
        try:
            chunk = stream.chunk(index)
            for _ in stream.read_windows(index):
                yield None
        except SpoolError as error:
            if stream.holds(index):
                yield _put_aside(stream, index, str(error))
        else:
            yield chunk
            return


def _put_aside(stream: StreamSpool, index: int, reason: str) -> Quarantined | DiskFailed:
    try:
        stream.quarantine(index, reason)
    except SpoolError as error:
        _log.warning("%s Chunk %d of stream %s is tried again.", error, index, stream.data_id)
        return DiskFailed()
    _log.error("Stream %s: chunk %d was put into quarantine: %s", stream.data_id, index, reason)
    return Quarantined(index, reason)
