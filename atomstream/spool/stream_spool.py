"""One stream's folder, held by its one owner: records in, records out, and never a step that can lose one.

The order of each change is what makes it safe: a record is whole and synced before it has its name, and its
end is in the journal, synced, before it loses it.
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
    """What holding a stream's folder consists of: ``lock`` is held, ``root_lock`` is not."""

    disk: FileSystem
    records: RecordStore
    journal: Journal
    lock: StreamLock
    root_lock: RootLock


class StreamSpool:
    """A stream's folder, open; all methods may be called from any thread and block on the disk.

    ``history`` is what the journal held when the folder was opened, after repairs; later entries are not added
    to it. ``missing`` lists chunks accepted before that, not settled, whose frames were in memory only when
    their process died.

    Raises (every method): SpoolFullError: no room. SpoolError: the disk failed. Nothing that was acknowledged
    before is affected. ClosedError: after :meth:`close`, or in a forked child.
    """

    def __init__(self, tenancy: StreamFolderHandles, manifest: StreamManifest, history: JournalState) -> None:
        self.manifest = manifest
        self.journal_state: Final = history
        self.journal: Final = tenancy.journal
        self.folder: Final = tenancy.records.folder
        self._tenancy = tenancy
        self._files = tenancy.records
        self._owner = os.getpid()
        self._closed = False
        self._records = {k: n for k, n in self._files.sizes().items() if history.states.get(k) == "pending"}
        self._busy: set[int] = set()
        self._idle = threading.Condition()
        self._unsure: set[int] = set()
        self._digests: dict[int, bytes] = {}
        self._settled = bytearray()  # a byte a chunk: a set would take 60
        for index, state in history.states.items():
            self._set_settled(index, state != "pending")
        self.missing: Final = [index for index in history.pending() if index not in self._records]

    @property
    def data_id(self) -> str:
        """The stream's id."""
        return self.manifest.spec.data_id

    def update_manifest(self, manifest: StreamManifest) -> None:
        """Write down a changed description of the stream (its geometry, once known; its rotation)."""
        self._check_owner()
        write_manifest(self._tenancy.disk, self.folder / MANIFEST, manifest)
        self.journal.append_durable(JournalEntry("manifest", detail=manifest.to_fields()))
        self.manifest = manifest

    def put(self, shard: Shard) -> SpooledChunk | None:
        """Write a chunk's record; once this returns it survives a power cut.

        None where the chunk was settled meanwhile (sent from memory, dropped): then nothing is written. A chunk
        that is there already is not written again.

        Raises:
            ChunkConflictError: another content is there under that index.
        """
        with self._alone_with(shard.info.index):
            if self._is_settled(shard.info.index):
                with suppress(SpoolError):  # so that a later process knows other frames under its index (P5)
                    self.journal.append(JournalEntry("accepted", shard.info.index, shard.info.digest))
                return None
            self._make_sure(shard.info.index)
            if shard.info.index in self._records:
                return self._there_already(shard)
            chunk = self._files.write(shard)
            self._digests[chunk.index] = shard.info.digest
            self._note_record(chunk.index, chunk.nbytes)
            return chunk

    def pending(self) -> list[int]:
        """Indices of the chunks on disk that are to be delivered, in order."""
        with self._idle:
            return sorted(self._records)

    def holds(self, index: int) -> bool:
        """Whether chunk ``index`` is on disk, to be delivered."""
        return index in self._records

    def pending_bytes(self) -> int:
        """What the files of :meth:`pending` take."""
        with self._idle:
            return sum(self._records.values())

    def chunk(self, index: int) -> SpooledChunk:
        """A chunk that is on disk, its header read and checked.

        Raises:
            RecordCorruptError: it is damaged: :meth:`quarantine` it.
        """
        self._check_owner()
        return self._files.chunk(index)

    def read_windows(self, index: int, window: int = WINDOW_BYTES) -> Iterator[bytes]:
        """The shard's bytes, at most ``window`` at a time, the last window only once its CRC-32C matches.

        Raises:
            RecordCorruptError: it is damaged: :meth:`quarantine` it.
        """
        self._check_owner()
        return self._files.read_windows(index, window)

    def mark_stored(self, index: int) -> None:
        """The server has the chunk: say so in the journal, durably, then remove its record."""
        self._settle(JournalEntry("stored", index), self._files.recycle)

    def discard(self, index: int, kind: Literal["dropped", "purged"], reason: str) -> None:
        """Give the chunk up: the journal says why, durably, then its record goes."""
        self._settle(JournalEntry(kind, index, reason=reason), self._files.remove)

    def quarantine(self, index: int, reason: str) -> None:
        """Put the chunk's record aside under its name: it can't be delivered as it is."""
        with self._alone_with(index):
            self._note_end(JournalEntry("quarantined", index, reason=reason))
            self._set_settled(index, True)
            if self._drop_record(index):
                self._files.set_aside(index)

    def quarantined(self) -> list[int]:
        """Indices of the records in quarantine, in order."""
        return list(self._files.quarantined())

    def requeue(self, index: int) -> None:
        """Take a record back out of quarantine, to be delivered again."""
        with self._alone_with(index):
            if index not in self._files.quarantined():
                raise SpoolError(f"Chunk {index} of stream {self.data_id} is not in quarantine.")
            self.journal.append_durable(JournalEntry("requeued", index))
            self._note_record(index, self._files.take_back(index))
            self._set_settled(index, False)

    def purge(self, reason: str) -> list[int]:
        """Remove all records, those in quarantine too, because a person asked for it; returns their indices."""
        doomed = sorted({*self.pending(), *self.quarantined()})
        for index in doomed:
            self.discard(index, "purged", reason)
        return doomed

    def expire(self, retention_s: float) -> list[int]:
        """Purge what is certainly older than ``retention_s``; returns the indices.

        Lowest index first, up to the first that is young enough: so a look at one header nearly always does.
        """
        expired = []
        for index in self.pending():
            if self.chunk(index).header.written.min_age_s(WriteTime.now()) < retention_s:
                break
            self.discard(index, "purged", f"older than spool_retention_s ({retention_s:g} s)")
            expired.append(index)
        return expired

    def remove_if_ended(self) -> bool:
        """Remove the folder if the stream was ended and nothing of it is left; closes it then.

        Only our own files go, and the folder only if nothing else is in it.
        """
        self._check_owner()
        history = JournalState.from_entries(read_journal(self._tenancy.disk, self.journal.path).entries)
        if not history.ended or history.pending() or self.pending() or self.quarantined():
            return False
        self.remove()
        return True

    def remove(self) -> None:
        """Close and remove the folder's own files, whatever the journal says.

        Raises:
            SpoolError: there are records left; :meth:`purge` them first.
        """
        self._check_owner()
        if self._files.sizes() or self.quarantined():
            raise SpoolError(f"The spool folder {self.folder} still holds chunks; nothing was removed.")
        with self._tenancy.root_lock.held():
            self.close()
            with disk_errors("remove a finished stream's folder", self.folder):
                self._remove_own_files(self._tenancy.disk)

    def close(self) -> None:
        """Close the folder and let go of its lock; what is on disk stays. Nothing the second time."""
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        self._files.close()
        try:
            self.journal.close()
        finally:
            self._tenancy.lock.release()

    def _settle(self, entry: JournalEntry, remove: Callable[[int], None]) -> None:
        index = entry.index
        with self._alone_with(index):
            try:
                self._note_end(entry)
            except SpoolFullError:
                # A disk too full for an entry of the journal would stay so for ever if records could not go.
                if not self._files.mark(index, entry.kind):
                    raise
                with suppress(SpoolError):  # the mark says it until the next opening
                    self.journal.append_durable(entry)
                    self._files.unmark(index, entry.kind)
            self._set_settled(index, True)
            self._drop_record(index)
            remove(index)

    def _note_end(self, entry: JournalEntry) -> None:
        # An entry that was refused may stand in the file all the same (its fsync failed, not its write).
        self._unsure.add(entry.index)
        self.journal.append_durable(replace(entry, digest=self._digests.get(entry.index, b"")))
        self._unsure.discard(entry.index)
        self._digests.pop(entry.index, None)

    def _make_sure(self, index: int) -> None:
        # So before such a chunk is acknowledged as safe, the journal says that it has not ended.
        if index in self._unsure:
            self.journal.append_durable(JournalEntry("requeued", index))
            self._unsure.discard(index)

    def _there_already(self, shard: Shard) -> SpooledChunk:
        chunk = self._files.chunk(shard.info.index)
        if chunk.header.info.digest != shard.info.digest:
            raise ChunkConflictError(
                f"Chunk {shard.info.index} of stream {self.data_id} is on disk already, with other frames.",
                data_id=self.data_id,
                index=shard.info.index,
            )
        return chunk

    def _remove_own_files(self, disk: FileSystem) -> None:
        self._files.remove_rest()
        disk.unlink(self.folder / MANIFEST)
        disk.sync_folder(self.folder)
        # The journal goes after stream.json, for it tells the same and that all is done.
        for name in (JOURNAL, USAGE, LOCK):
            disk.unlink(self.folder / name)
        for folder in (self.folder / QUARANTINE, self.folder, self.folder.parent):
            disk.remove_folder(folder)

    def _note_record(self, index: int, nbytes: int) -> None:
        with self._idle:
            self._records[index] = nbytes

    def _drop_record(self, index: int) -> bool:
        with self._idle:
            return self._records.pop(index, None) is not None

    def _is_settled(self, index: int) -> bool:
        return index < len(self._settled) and bool(self._settled[index])

    def _set_settled(self, index: int, settled: bool) -> None:
        with self._idle:
            missing = index + 1 - len(self._settled)
            if missing > 0:
                self._settled.extend(bytes(max(missing, len(self._settled))))
            self._settled[index] = settled

    @contextmanager
    def _alone_with(self, index: int) -> Iterator[None]:
        # One change a chunk at a time: an upload from memory may end while its record is being written.
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
                f"The spool of stream {self.data_id} belongs to process {self._owner}, and this is a fork of it. "
                "The parent goes on; open a streamer of its own in the child."
            )
        if self._closed:
            raise ClosedError(f"The spool of stream {self.data_id} is closed.")
