"""Opening a stream's folder: lock, manifest, journal, crash recovery, and verification of its records.

Recovery brings the files into the state that the journal describes. Each step may be interrupted and is repeated
when the folder is opened again. Only records of resolved chunks are removed. A damaged record is moved into
quarantine, with the reason in the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from atomstream.errors import RecordCorruptError, SpoolError, SpoolLockedError
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.journal import EntryKind, Journal, JournalEntry, read_journal
from atomstream.spool.locks import StreamLock
from atomstream.spool.paths import (
    JOURNAL,
    LOCK,
    MANIFEST,
    QUARANTINE,
    endpoint_folder,
    marker_name,
    markers_in,
    record_name,
    records_in,
    stream_folder,
    temporaries_in,
)
from atomstream.spool.quota import Quota, Usage
from atomstream.spool.record import checked_header
from atomstream.spool.record_store import RecordStore, SpooledChunk
from atomstream.spool.stream_spool import StreamFolderHandles, StreamSpool
from atomstream.spool.stream_state import JournalState, StreamManifest, read_manifest, write_manifest
from atomstream.system.files import FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import refuse_linked_folders, remove_unless_plain

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Result for a record that is damaged or can't be read; it was moved into quarantine."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class DiskFailed:
    """Result if a record could be neither read nor moved: the disk fails. The next step tries it again."""


VerifyResult: TypeAlias = SpooledChunk | Quarantined | DiskFailed
"""Result for one record; a :class:`SpooledChunk` is valid."""


def create_stream_folder(
    disk: FileSystem, folder: Path, quota: Quota, manifest: StreamManifest
) -> StreamSpool:
    """Create the folder of a new stream and hold its lock. The caller must hold the root lock.

    Raises:
        SpoolError: the stream exists, or the disk failed. SpoolLockedError: another owner holds it.
    """
    with disk_errors("make a stream's folder", folder):
        disk.make_folder(folder, inside=quota.root)
    with ExitStack() as undo:
        lock = _acquire_lock(folder, manifest.spec.data_id, undo)
        if (folder / MANIFEST).exists() or (folder / JOURNAL).exists():
            raise SpoolError(f"Stream {manifest.spec.data_id} is in the spool already ({folder}); resume it.")
        write_manifest(disk, folder / MANIFEST, manifest)
        return _open(disk, folder, quota, manifest, lock, undo)


def open_stream_folder(disk: FileSystem, folder: Path, quota: Quota) -> StreamSpool:
    """Open the folder of a stream that an earlier process created. The caller must hold the root lock.

    Raises:
        SpoolLockedError: another owner holds it. SpoolError: it can't be read.
    """
    with disk_errors("open a stream's folder", folder, READ_REFUSED):
        refuse_linked_folders(folder, quota.root)
    with ExitStack() as undo:
        lock = _acquire_lock(folder, folder.name, undo)
        manifest = load_manifest(disk, folder)
        _repair_manifest(disk, folder, manifest)
        return _open(disk, folder, quota, manifest, lock, undo)


def is_unlocked(folder: Path) -> bool:
    """True if no process holds the stream's lock. The caller must hold the root lock."""
    lock = StreamLock(folder / LOCK)
    unlocked = lock.acquire()
    lock.release()
    return unlocked


def load_manifest(disk: FileSystem, folder: Path) -> StreamManifest:
    """Read ``stream.json``, or its copy in the journal if the file is damaged.

    Raises:
        SpoolError: neither can be read.
    """
    try:
        return _of_folder(read_manifest(disk, folder / MANIFEST), folder)
    except SpoolError as error:
        with suppress(SpoolError):
            manifest = StreamManifest.from_fields(load_journal_state(disk, folder).manifest)
            return _of_folder(manifest, folder)
        raise SpoolError(
            f"{error} The journal has no copy of it. The records in {folder} were not changed."
        ) from error


def _of_folder(manifest: StreamManifest, folder: Path) -> StreamManifest:
    """The manifest, if it is that of this folder: the API key and the frames go to the server that it names."""
    expected = (endpoint_folder(manifest.endpoint), stream_folder(manifest.spec.data_id))
    if expected != (folder.parent.name, folder.name):
        raise SpoolError(
            f"The stream's description in {folder} names another server or stream: it was copied there."
        )
    return manifest


def load_journal_state(disk: FileSystem, folder: Path) -> JournalState:
    """Read the stream's journal; the state is empty if there is no journal. Raises SpoolError."""
    if not (folder / JOURNAL).exists():
        return JournalState()
    return JournalState.from_entries(read_journal(disk, folder / JOURNAL).entries)


def verify_records(stream: StreamSpool) -> Iterator[VerifyResult | None]:
    """Read and check all records that are pending now, lowest index first.

    Yields None after each window and a result after each record, so the caller can run other disk work in between.
    A damaged record is in quarantine, in the journal and in the log when its result is returned. Records that are
    resolved meanwhile are skipped.
    """
    for index in stream.pending():
        yield from _verify_record(stream, index)


class FolderRecovery:
    """Brings the files of a stream's folder into the state of its journal. The caller must hold the stream's lock."""

    def __init__(
        self, disk: FileSystem, folder: Path, data_id: str, journal: Journal, state: JournalState
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._data_id = data_id
        self._journal = journal
        self._state = state
        self._may_remove = False

    def run(self) -> None:
        """Run all steps. Steps that fail are repeated when the folder is opened again."""
        with suppress(SpoolError):
            # "stored" entries may be in the page cache only. They must be durable before records are removed.
            self._journal.sync()
            self._may_remove = True
        for path in [*temporaries_in(self._folder), *temporaries_in(self._folder / QUARANTINE)]:
            self._unlink(path)  # these were never acknowledged
        for index, kind in markers_in(self._folder):
            self._apply_marker(index, cast("EntryKind", kind))
        for index in records_in(self._folder):
            self._recover_record(index)
        for index in records_in(self._folder / QUARANTINE):
            self._recover_quarantined(index)

    def _apply_marker(self, index: int, kind: EntryKind) -> None:
        entry = JournalEntry(
            kind, index, reason="" if kind == "stored" else "recorded while the disk was full"
        )
        self._state.apply(entry)
        with suppress(SpoolError):  # the disk is still full: the marker stays for the next time
            self._journal.append_durable(entry)
            self._unlink(self._folder / marker_name(index, kind))

    def _recover_record(self, index: int) -> None:
        path = self._folder / record_name(index)
        state = self._state.states.get(index, "pending")
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
            self._append(JournalEntry("quarantined", index, reason=str(error)))
            self._move(path, self._folder / QUARANTINE)
        except SpoolError as error:  # it may be readable later, so it stays pending
            _log.warning("%s", error)
            self._append(JournalEntry("accepted", index))
        else:
            if index not in self._state.digests:
                self._append(JournalEntry("accepted", index, header.info.digest))

    def _recover_quarantined(self, index: int) -> None:
        path = self._folder / QUARANTINE / record_name(index)
        state = self._state.states.get(index)
        if state is None:
            self._append(
                JournalEntry("quarantined", index, reason="found in quarantine; the reason is not known")
            )
        elif state == "pending":
            self._move(path, self._folder)
        elif state != "quarantined":
            self._remove(path)

    def _append(self, entry: JournalEntry) -> None:
        self._state.apply(entry)
        with suppress(SpoolError):  # the next recovery derives the same entry from the files
            self._journal.append(entry)

    def _move(self, path: Path, folder: Path) -> None:
        with suppress(OSError):
            self._disk.make_folder(folder, inside=self._folder.parent)
            self._disk.rename(path, folder / path.name)

    def _remove(self, path: Path) -> None:
        if self._may_remove:
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(OSError):
            self._disk.unlink(path)


def _acquire_lock(folder: Path, data_id: str, undo: ExitStack) -> StreamLock:
    lock = StreamLock(folder / LOCK)
    if not lock.acquire():
        raise SpoolLockedError(
            f"Another process (or another streamer of this process) holds the spool of stream {data_id} ({folder}). "
            "Nothing was changed. The stream can be opened when that process has ended.",
            data_id=data_id,
        )
    undo.callback(lock.release)
    return lock


def _repair_manifest(disk: FileSystem, folder: Path, manifest: StreamManifest) -> None:
    try:
        _of_folder(read_manifest(disk, folder / MANIFEST), folder)
    except SpoolError:
        with suppress(SpoolError):  # the copy in the journal is sufficient
            write_manifest(disk, folder / MANIFEST, manifest)


def _open(
    disk: FileSystem, folder: Path, quota: Quota, manifest: StreamManifest, lock: StreamLock, undo: ExitStack
) -> StreamSpool:
    journal, state = _open_journal(disk, folder, manifest)
    undo.callback(journal.close)
    data_id = manifest.spec.data_id
    FolderRecovery(disk, folder, data_id, journal, state).run()
    usage = Usage(disk, folder)
    usage.recount()
    records = RecordStore(disk, folder, data_id, quota, usage)
    stream = StreamSpool(StreamFolderHandles(disk, records, journal, lock, quota.lock), manifest, state)
    undo.pop_all()  # the stream now owns the lock and the journal
    return stream


def _open_journal(disk: FileSystem, folder: Path, manifest: StreamManifest) -> tuple[Journal, JournalState]:
    path = folder / JOURNAL
    with disk_errors("remove what is in place of the journal", path):
        if remove_unless_plain(path):
            _log.warning("The journal %s was a link, or not a file; the stream's records are used.", path)
    if not path.exists():  # a new stream, or the journal was deleted: then recovery uses the records
        first = JournalEntry("manifest", detail=manifest.to_fields())
        return Journal.create(disk, path, first), JournalState.from_entries([first])
    journal, found = Journal.open(disk, path)
    return journal, JournalState.from_entries(found.entries)


def _verify_record(stream: StreamSpool, index: int) -> Iterator[VerifyResult | None]:
    while stream.has_record(index):
        try:
            chunk = stream.chunk(index)
            for _ in stream.read_windows(index):
                yield None
        except SpoolError as error:
            if stream.has_record(index):
                yield _quarantine(stream, index, str(error))
        else:
            yield chunk
            return


def _quarantine(stream: StreamSpool, index: int, reason: str) -> Quarantined | DiskFailed:
    try:
        stream.quarantine(index, reason)
    except SpoolError as error:
        _log.warning("%s Chunk %d of stream %s is tried again.", error, index, stream.data_id)
        return DiskFailed()
    _log.error("Stream %s: chunk %d was moved into quarantine: %s", stream.data_id, index, reason)
    return Quarantined(index, reason)
