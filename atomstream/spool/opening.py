"""Taking a stream's folder: lock, description, journal, repairs. The caller holds the root's lock."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path

from atomstream.errors import SpoolError, SpoolLockedError
from atomstream.spool.bounds import Account, Bounds
from atomstream.spool.disk import Disk, disk_errors
from atomstream.spool.entries import Entry
from atomstream.spool.history import StreamHistory
from atomstream.spool.journal import Journal, replay
from atomstream.spool.locks import StreamLock
from atomstream.spool.manifest import StreamManifest, read_manifest, write_manifest
from atomstream.spool.names import JOURNAL, LOCK, MANIFEST
from atomstream.spool.record_folder import RecordFolder
from atomstream.spool.repair import Repair
from atomstream.spool.stream_spool import StreamSpool, Tenancy


def begin(disk: Disk, folder: Path, bounds: Bounds, manifest: StreamManifest) -> StreamSpool:
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


def enter(disk: Disk, folder: Path, bounds: Bounds) -> StreamSpool:
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


def manifest_of(disk: Disk, folder: Path) -> StreamManifest:
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


def history_of(disk: Disk, folder: Path) -> StreamHistory:
    """What the stream's journal holds; an empty history where there is none. Raises SpoolError."""
    if not (folder / JOURNAL).exists():
        return StreamHistory()
    return StreamHistory.of(replay(disk, folder / JOURNAL).entries)


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


def _mend_manifest(disk: Disk, folder: Path, manifest: StreamManifest) -> None:
    try:
        read_manifest(disk, folder / MANIFEST)
    except SpoolError:
        with suppress(SpoolError):  # the copy in the journal will do
            write_manifest(disk, folder / MANIFEST, manifest)


def _enter(
    disk: Disk, folder: Path, bounds: Bounds, manifest: StreamManifest, lock: StreamLock, undo: ExitStack
) -> StreamSpool:
    journal, history = _journal(disk, folder, manifest)
    undo.callback(journal.close)
    data_id = manifest.spec.data_id
    Repair(disk, folder, data_id, journal, history).run()
    account = Account(disk, folder)
    account.recount()
    records = RecordFolder(disk, folder, data_id, bounds, account)
    stream = StreamSpool(Tenancy(disk, records, journal, lock, bounds.lock), manifest, history)
    undo.pop_all()  # taken: the lock and the journal are now the stream's
    return stream


def _journal(disk: Disk, folder: Path, manifest: StreamManifest) -> tuple[Journal, StreamHistory]:
    path = folder / JOURNAL
    if not path.exists():  # a new stream; or somebody removed it: then the records tell what was accepted
        first = Entry("claimed", detail=manifest.to_fields())
        return Journal.create(disk, path, first), StreamHistory.of([first])
    journal, found = Journal.open(disk, path)
    return journal, StreamHistory.of(found.entries)
