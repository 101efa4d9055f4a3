"""The results of a stream in the process of a cluster that analyses it: each record goes to the shared log first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final

from atomstream.errors import StreamError
from atomstream.index_ranges import IndexSet
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.live.analyzer_client import AnalysisResources
from atomstream.server.live.annotation_records import (
    CalibrationEntry,
    EventChangeEntry,
    EventEntry,
    EventState,
    RegionsEntry,
)
from atomstream.server.live.annotations import event_message
from atomstream.server.live.event_history import matters
from atomstream.server.live.live_analysis import LiveAnalysis
from atomstream.server.live.replica import Objects, Replica, SharedLogs
from atomstream.server.live.result_store import REANALYSIS, RUNNING
from atomstream.server.live.shared_records import SharedWriter
from atomstream.server.live.stream_parts import StreamParts, open_parts
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.ports.stream_log import BusUnavailableError, OutdatedWriterError
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")

SNAPSHOT_S: Final = 5.0
"""Interval of snapshots, in s: the longest part of the analysis that the next owner repeats."""
STATE: Final = "analysis/state"
KEPT: Final = ("profiles", "inputs.log", "results.log", "checkpoint", "position")
"""Files of an analysis that are stored for processes that have none; each one after those that it refers to."""
COPY_RECORDS: Final = 120
"""Number of new records after which the files of a growing stream are stored. Reading as many again takes 0.4 s."""
COPY_PART: Final = 20
"""In a long stream the files are stored each time the records have grown by 1/20. So all copies together are 20 times
as large as the files at the end."""
COPY_S: Final = 4.0
"""Time between two copies of a stream's columns and documents to the store."""


class OwnedResults(StreamResults):
    """The results of one stream that this process analyses; made by :meth:`open_owned`.

    It begins with what earlier owners have recorded, and with the last snapshot that one of them has stored.
    :attr:`outdated` is set when another process has appended: then this object is of no use any more.
    """

    def __init__(self, parts: StreamParts[CachedArchive], logs: SharedLogs, shared: SharedWriter) -> None:
        super().__init__(parts)
        self.outdated = asyncio.Event()
        self._shared = shared
        self._objects: Objects = logs.objects(parts.metadata.data_id)
        self._replica = Replica(parts, logs, self._in_thread)
        self._publishing = asyncio.Lock()
        self._handed = IndexSet()
        self._copied_records = 0
        self._shared_archive = parts.archive
        self._following: list[asyncio.Task[None]] = []
        parts.store.saved = self._snapshot_saved
        parts.archive.store_copies.may_replace = shared.check
        parts.archive.reads_all = True

    @classmethod
    async def open_owned(
        cls, archive: CachedArchive, metadata: StreamMetadata, resources: AnalysisResources, logs: SharedLogs
    ) -> OwnedResults:
        """Bring the files up to the present; raises OSError, BusUnavailableError and StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        shared = SharedWriter(logs.results, metadata.data_id, loop)
        results = cls(await open_parts(archive, metadata, resources, shared), logs, shared)
        try:
            await results._take_over()
        except BaseException:
            await results.close()
            raise
        return results

    async def _take_over(self) -> None:
        await self._replica.open()
        self._shared.begin(self._replica.position.results_entry, self._store.log.seq)
        self._shared.published_inputs = self._replica.published_inputs
        self._feed.seq = self._store.log.seq
        await self._in_thread(self._read_state)

    def _read_state(self) -> None:
        """The snapshot and the note of an earlier owner, which this process may not have."""
        disk = self._archive.files.file_system
        for name in (STATE, f"analysis/{RUNNING}"):
            content = self._objects.get(name)
            if content is not None:
                disk.write_atomic(self._archive.folder / name, [content])

    async def resume(self) -> None:
        """Begin the analysis, or continue that of an earlier owner."""
        self._handed = self._archive.stored()
        geometry = self._archive.geometry
        if self._store.log.ended and geometry is not None:  # chunks that came after the end are late
            self._handed.discard_range(-(-self._store.log.analysed // geometry.chunk_size), self._handed.end)
        left = await self._in_thread(self._store.left_running)
        if left == REANALYSIS:
            self.reanalyse()
        elif not self._store.log.ended:
            self.begin()
        if self.metadata.status in ENDED_STATUSES:
            self.end()
        await self._publish_inputs()
        for work in (self._follow_inputs(), self._copy_to_store()):
            self._following.append(asyncio.create_task(work, name=f"sharing {self.metadata.data_id}"))

    def begin(self) -> None:
        """Start the live analysis, from the last snapshot."""
        super().begin()
        if self._live is not None:
            self._live.snapshot_s = SNAPSHOT_S

    async def _run_live(self, live: LiveAnalysis) -> None:
        try:
            await super()._run_live(live)
        except OutdatedWriterError:
            self._set_outdated()  # before anybody who waits for a chunk goes on
            raise

    # -- inputs of users ---------------------------------------------------------------------------------

    async def _copy_to_store(self) -> None:
        """Copy columns and documents to the store while they grow, for readers there."""
        copied = -1
        while True:
            await asyncio.sleep(COPY_S)
            is_new = copied != self.seq or self._shared_archive.store_copies.results_left
            if not is_new or self._store.log.ended:
                continue
            seq = self.seq
            try:
                await self._in_thread(self._shared_archive.mirror)
                copied = seq
            except OutdatedWriterError:
                self._set_outdated()
                return
            except (
                StoreUnavailableError, BusUnavailableError, StreamError, ArchiveDeletedError, OSError
            ) as error:  # fmt: skip
                log.debug("stream %s is copied to the store later: %s", self.metadata.data_id, error)

    async def _follow_inputs(self) -> None:
        with suppress(OutdatedWriterError):
            await self._replica.follow_inputs(self._publish_inputs)
        self._set_outdated()

    async def catch_up_inputs(self) -> None:
        """Publish and use all inputs up to the present."""
        await self._replica.catch_up_inputs()
        await self._publish_inputs()

    async def _publish_inputs(self) -> None:
        async with self._publishing:
            entries = self._annotations.entries
            while self._shared.published_inputs < len(entries):
                entry = entries[self._shared.published_inputs]
                self._shared.published_inputs += 1
                if isinstance(entry, (EventEntry, EventChangeEntry)):
                    await self._publish_event(entry)
                elif isinstance(entry, RegionsEntry):
                    await self._writer.publish_regions(entry.regions, self._detected_regions, complete=False)
                    if self.has_frames and not self.is_thinned:
                        self._start(self._trace_regions(entry.regions))
                elif isinstance(entry, CalibrationEntry):
                    self._reanalyse_ended()
        self._annotated()

    async def _publish_event(self, entry: EventState) -> None:
        book = self._annotations.book
        if not book.holds(entry):
            return
        await self._publish(event_message(entry, self._archive.origin_unix_ms))
        before = book.before(entry)
        if before is not None and matters(before, entry):
            self._reanalyse_ended()

    def analyse_stored(self) -> None:
        """Analyse all chunks that came into the archive since, by whatever way: the copying to the store may add some,
        too.
        """
        for index in self._archive.stored() - self._handed:
            self._handed.add(index)
            self.stored(index, None)

    # -- progress ----------------------------------------------------------------------------------------

    async def analysed(self, index: int) -> None:
        """Return once the results of a stored chunk are recorded, or it was left out.

        Raises:
            OutdatedWriterError: another process owns the stream.
        """
        if self._live is not None:
            await self._live.handled(index)
        self._check()

    async def ended(self) -> None:
        """Return once the analysis has ended, if it ends; raises OutdatedWriterError."""
        while self._live is not None or not self.is_over:
            changed = self._feed.changed
            self._check()
            if self._live is None and self.is_over:
                break
            if self._live is not None and not self._live.order.ended:
                return  # new chunks have arrived: the analysis continues
            await changed.wait()
        self._check()

    async def copy_rest(self) -> None:
        """Copy to the store what has changed after the end of the analysis, such as the list of lost chunks.

        Raises:
            StoreUnavailableError, BusUnavailableError: the service can't be reached; the call may be repeated.
            OutdatedWriterError: another process owns the stream.
        """
        await self._in_thread(self._shared_archive.flush_metadata)
        await self._in_thread(partial(self._shared_archive.mirror, everything=True))

    def _check(self) -> None:
        if self.outdated.is_set() or self._feed.closed:
            raise OutdatedWriterError(f"Stream {self.metadata.data_id} is analysed elsewhere.")

    def _set_outdated(self) -> None:
        self.outdated.set()
        self._feed.notify()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(task.exception(), OutdatedWriterError):
            self._tasks.discard(task)
            log.info("stream %s: another process analyses it now", self.metadata.data_id)
            self._set_outdated()
        else:
            super()._task_ended(task)

    # -- what the next owner needs -----------------------------------------------------------------------

    def _snapshot_saved(self) -> None:
        """Called in a thread after each snapshot."""
        with suppress(OutdatedWriterError):  # noticed at the next record
            self._share_state()

    def _share_state(self) -> None:
        """Store what the next owner needs. Raises OutdatedWriterError."""
        self._replica.note_own()
        self._replica.save()
        try:
            with suppress(FileNotFoundError):
                content = read_plain(self._store.folder / "state")
                self._objects.put(STATE, content, self._shared.check)
            records = self._replica.position.records
            if records - self._copied_records >= max(COPY_RECORDS, records // COPY_PART):
                self._share_growing()
                self._copied_records = records
        except (StoreUnavailableError, BusUnavailableError, StreamError) as error:
            log.debug("stream %s: its snapshot is not stored: %s", self.metadata.data_id, error)

    def _share_growing(self) -> None:
        """Copy the result files to the store while they grow, so that the next process to open the stream reads only
        the records after the copy. That process does not compute the columns of the copied records again, so these
        are copied first.

        They are read from the oldest to the newest, and stored in the reverse order. So an object in the store never
        refers to data that is not stored yet.
        """
        found: dict[str, bytes] = {}
        for name in reversed(KEPT):
            if name == "profiles":
                self._store.save_profiles()
            with suppress(FileNotFoundError):
                path = self._store.folder / name
                found[name] = self._store.log.copy() if name == "results.log" else read_plain(path)
        self._shared_archive.mirror(everything=True)
        for name in KEPT:
            if name in found:
                self._objects.put(f"analysis/{name}", found[name], self._shared.check)

    async def _note_reanalysis(self) -> None:
        await super()._note_reanalysis()
        await self._stored(
            lambda: self._objects.put(f"analysis/{RUNNING}", REANALYSIS.encode(), self._shared.check)
        )

    async def _end_files(self) -> None:
        await self._stored(self._store.end)
        await self._stored(self._share_files)

    def _share_files(self) -> None:
        self._replica.note_own()
        self._replica.save()
        for name in KEPT:
            with suppress(FileNotFoundError):
                content = read_plain(self._store.folder / name)
                self._objects.put(f"analysis/{name}", content, self._shared.check)
        self._shared.check()
        for name in (STATE, f"analysis/{RUNNING}"):
            self._objects.remove(name)

    async def close(self) -> None:
        """Stop all work; the next owner continues from the last snapshot."""
        self._shared.close()
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)
        await super().close()
