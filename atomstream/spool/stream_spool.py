"""One stream's folder, open and locked: writes, reads and removes records, and updates the journal.

The order of the steps makes each change safe. A record is complete and synced before it gets its final name. The
journal entry of a resolved chunk is synced before its record is removed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

from atomstream.errors import ChunkConflictError, ClosedError, SpoolError, SpoolFullError
from atomstream.records import Shard
from atomstream.spool.disk_errors import disk_errors
from atomstream.spool.journal import Journal, JournalEntry, read_journal
from atomstream.spool.locks import RootLock, StreamLock
from atomstream.spool.paths import JOURNAL, LOCK, MANIFEST, QUARANTINE, USAGE
from atomstream.spool.record import WINDOW_BYTES, WriteTime
from atomstream.spool.record_store import RecordStore, SpooledChunk
from atomstream.spool.stream_state import JournalState, StreamManifest, write_manifest
from atomstream.system.files import FileSystem


@dataclass(frozen=True, slots=True)
class StreamFolderHandles:
    """The open parts of a stream's folder; ``lock`` is held, ``root_lock`` is not."""

    disk: FileSystem
    records: RecordStore
    journal: Journal
    lock: StreamLock
    root_lock: RootLock


class StreamSpool:
    """A stream's folder; thread-safe. All methods block on the disk.

    Raises (every method): SpoolFullError: no space. SpoolError: the disk failed; data acknowledged earlier is not
    affected. ClosedError: after :meth:`close`, or in a forked child.
    """

    def __init__(self, handles: StreamFolderHandles, manifest: StreamManifest, state: JournalState) -> None:
        self.manifest = manifest
        self.journal_state: Final = state
        """State when the folder was opened, after recovery; later entries are not applied to it."""
        self.journal: Final = handles.journal
        self.folder: Final = handles.records.folder
        self._handles = handles
        self._files = handles.records
        self._owner = os.getpid()
        self._closed = False
        self._records = {k: n for k, n in self._files.sizes().items() if state.states.get(k) == "pending"}
        self._busy: set[int] = set()
        self._idle = threading.Condition()
        self._uncertain: set[int] = set()  # chunks whose last journal entry failed, but may be in the file
        self._digests: dict[int, bytes] = {}
        self._resolved = bytearray()  # one byte for each chunk: a set would take 60
        for index, chunk_state in state.states.items():
            self._set_resolved(index, chunk_state != "pending")
        self.missing: Final = [index for index in state.pending() if index not in self._records]
        """Pending chunks without a record: their frames were only in the memory of a process that died."""

    @property
    def data_id(self) -> str:
        """The stream's id."""
        return self.manifest.spec.data_id

    def update_manifest(self, manifest: StreamManifest) -> None:
        """Write a changed manifest, durably: its geometry after the first chunk, or its rotation."""
        self._check_owner()
        write_manifest(self._handles.disk, self.folder / MANIFEST, manifest)
        self.journal.append_durable(JournalEntry("manifest", detail=manifest.to_fields()))
        self.manifest = manifest

    def put(self, shard: Shard) -> SpooledChunk | None:
        """Write a chunk's record durably.

        Returns None without writing if the chunk was resolved meanwhile (uploaded from memory, or dropped). A
        chunk that has a record is not written again.

        Raises:
            ChunkConflictError: the index has a record with other frames.
        """
        index = shard.info.index
        with self._exclusive(index):
            if self._is_resolved(index):
                with suppress(
                    SpoolError
                ):  # a later process uses the digest to detect other frames for this index
                    self.journal.append(JournalEntry("accepted", index, shard.info.digest))
                return None
            self._cancel_uncertain(index)
            if index in self._records:
                return self._existing(shard)
            chunk = self._files.write(shard)
            self._digests[index] = shard.info.digest
            self._add_record(index, chunk.nbytes)
            return chunk

    def pending(self) -> list[int]:
        """Indices of the chunks with a record that is to be uploaded, in increasing order."""
        with self._idle:
            return sorted(self._records)

    def has_record(self, index: int) -> bool:
        """True if chunk ``index`` has a record that is to be uploaded."""
        return index in self._records

    def pending_bytes(self) -> int:
        """Total file size of the records of :meth:`pending`."""
        with self._idle:
            return sum(self._records.values())

    def chunk(self, index: int) -> SpooledChunk:
        """A chunk on disk; reads and checks its header.

        Raises:
            RecordCorruptError: it is damaged; call :meth:`quarantine`.
        """
        self._check_owner()
        return self._files.chunk(index)

    def read_windows(self, index: int, window: int = WINDOW_BYTES) -> Iterator[bytes]:
        """The shard's bytes in windows of at most ``window`` bytes; the last one only if the CRC-32C matches.

        Raises:
            RecordCorruptError: it is damaged; call :meth:`quarantine`.
        """
        self._check_owner()
        return self._files.read_windows(index, window)

    def mark_stored(self, index: int) -> None:
        """Record in the journal, durably, that the server has the chunk; then remove its record."""
        self._resolve(JournalEntry("stored", index), self._files.recycle)

    def discard(self, index: int, kind: Literal["dropped", "purged"], reason: str) -> None:
        """Record in the journal, durably, why the chunk is discarded; then remove its record."""
        self._resolve(JournalEntry(kind, index, reason=reason), self._files.remove)

    def quarantine(self, index: int, reason: str) -> None:
        """Move the record of a chunk that can't be uploaded into the quarantine folder."""
        with self._exclusive(index):
            self._append_final(JournalEntry("quarantined", index, reason=reason))
            self._set_resolved(index, True)
            if self._drop_record(index):
                self._files.quarantine(index)

    def quarantined(self) -> list[int]:
        """Indices of the records in quarantine, in increasing order."""
        return list(self._files.quarantined())

    def requeue(self, index: int) -> None:
        """Move a record out of quarantine, to be uploaded again."""
        with self._exclusive(index):
            if index not in self._files.quarantined():
                raise SpoolError(f"Chunk {index} of stream {self.data_id} is not in quarantine.")
            self.journal.append_durable(JournalEntry("requeued", index))
            self._add_record(index, self._files.restore(index))
            self._set_resolved(index, False)

    def purge(self, reason: str) -> list[int]:
        """Remove all records, quarantined ones too, on a user's request; returns their indices."""
        indices = sorted({*self.pending(), *self.quarantined()})
        for index in indices:
            self.discard(index, "purged", reason)
        return indices

    def expire(self, retention_s: float) -> list[int]:
        """Purge records whose age is certainly at least ``retention_s`` seconds; returns their indices.

        It stops at the first record that is younger, so usually only one header is read.
        """
        expired = []
        for index in self.pending():
            if self.chunk(index).header.written.min_age_s(WriteTime.now()) < retention_s:
                break
            self.discard(index, "purged", f"older than spool_retention_s ({retention_s:g} s)")
            expired.append(index)
        return expired

    def remove_if_ended(self) -> bool:
        """Close the stream and remove its folder if the stream was ended and has no records left.

        Only files of the spool are removed. The folder stays if it contains other files.
        """
        self._check_owner()
        state = JournalState.from_entries(read_journal(self._handles.disk, self.journal.path).entries)
        if not state.ended or state.pending() or self.pending() or self.quarantined():
            return False
        self.remove()
        return True

    def remove(self) -> None:
        """Close the stream and remove the folder's files, regardless of the journal.

        Raises:
            SpoolError: there are records left; call :meth:`purge` first.
        """
        self._check_owner()
        if self._files.sizes() or self.quarantined():
            raise SpoolError(f"The spool folder {self.folder} still holds chunks; nothing was removed.")
        with self._handles.root_lock.held():
            self.close()
            with disk_errors("remove a finished stream's folder", self.folder):
                self._remove_own_files(self._handles.disk)

    def close(self) -> None:
        """Close the journal and release the lock; the files stay. Does nothing the second time."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        self._files.close()
        try:
            self.journal.close()
        finally:
            self._handles.lock.release()

    def _resolve(self, entry: JournalEntry, remove: Callable[[int], None]) -> None:
        index = entry.index
        with self._exclusive(index):
            try:
                self._append_final(entry)
            except SpoolFullError:
                # If the disk has no space for a journal entry, records must be removed without one, or the disk
                # would stay full. A marker file replaces the entry.
                if not self._files.add_marker(index, entry.kind):
                    raise
                with suppress(SpoolError):  # the marker is applied when the stream is opened again
                    self.journal.append_durable(entry)
                    self._files.remove_marker(index, entry.kind)
            self._set_resolved(index, True)
            self._drop_record(index)
            remove(index)

    def _append_final(self, entry: JournalEntry) -> None:
        # If this raises because of a failed fsync, the entry may be in the file nevertheless.
        self._uncertain.add(entry.index)
        self.journal.append_durable(replace(entry, digest=self._digests.get(entry.index, b"")))
        self._uncertain.discard(entry.index)
        self._digests.pop(entry.index, None)

    def _cancel_uncertain(self, index: int) -> None:
        # Before such a chunk is acknowledged as durable, the journal must list it as pending.
        if index in self._uncertain:
            self.journal.append_durable(JournalEntry("requeued", index))
            self._uncertain.discard(index)

    def _existing(self, shard: Shard) -> SpooledChunk:
        chunk = self._files.chunk(shard.info.index)
        if chunk.header.info.digest != shard.info.digest:
            raise ChunkConflictError(
                f"Chunk {shard.info.index} of stream {self.data_id} is on disk already, with other frames.",
                data_id=self.data_id,
                index=shard.info.index,
            )
        return chunk

    def _remove_own_files(self, disk: FileSystem) -> None:
        self._files.remove_leftovers()
        disk.unlink(self.folder / MANIFEST)
        disk.sync_folder(self.folder)
        # The journal is removed after stream.json: it has a copy of it, and the entry that the stream ended.
        for name in (JOURNAL, USAGE, LOCK):
            disk.unlink(self.folder / name)
        for folder in (self.folder / QUARANTINE, self.folder, self.folder.parent):
            disk.remove_folder(folder)

    def _add_record(self, index: int, nbytes: int) -> None:
        with self._idle:
            self._records[index] = nbytes

    def _drop_record(self, index: int) -> bool:
        with self._idle:
            return self._records.pop(index, None) is not None

    def _is_resolved(self, index: int) -> bool:
        return index < len(self._resolved) and bool(self._resolved[index])

    def _set_resolved(self, index: int, resolved: bool) -> None:
        with self._idle:
            missing = index + 1 - len(self._resolved)
            if missing > 0:
                self._resolved.extend(bytes(max(missing, len(self._resolved))))
            self._resolved[index] = resolved

    @contextmanager
    def _exclusive(self, index: int) -> Iterator[None]:
        # One change at a time for each chunk: an upload from memory may end while the record is being written.
        self._check_owner()
        with self._idle:
            self._idle.wait_for(lambda: index not in self._busy)
            self._busy.add(index)
        try:
            yield
        finally:
            with self._idle:
                self._busy.discard(index)
                self._idle.notify_all()

    def _check_owner(self) -> None:
        if os.getpid() != self._owner:
            raise ClosedError(
                f"The spool of stream {self.data_id} belongs to process {self._owner}, and this process is a fork of "
                "it. The parent process continues. Open a new streamer in the child process."
            )
        if self._closed:
            raise ClosedError(f"The spool of stream {self.data_id} is closed.")
