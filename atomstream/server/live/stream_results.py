"""The analyses of one stream (live, and again after late chunks or corrections), and the annotations of its user."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import msgspec

from atomstream.errors import ConfigError
from atomstream.index_ranges import IndexSet
from atomstream.results import Event, column_name
from atomstream.server.archive.analysis_note import RENEW_S
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.annotation_records import (
    AzimuthChanges,
    AzimuthEntry,
    BoxRecord,
    CalibrationEntry,
    CalibrationRecord,
    EventState,
    LineRecord,
    NewMark,
    RegionRecord,
)
from atomstream.server.live.annotations import AnnotationWriter
from atomstream.server.live.archive_annotations import Annotated, ArchiveAnnotations
from atomstream.server.live.event_history import EventChanges
from atomstream.server.live.live_analysis import LiveAnalysis
from atomstream.server.live.messages import EndMessage, EventMessage, MissingMessage, RegionsMessage
from atomstream.server.live.missing_chunks import LATE, MissingIndices
from atomstream.server.live.reanalysis import Reanalysis, ReanalysisScheduler
from atomstream.server.live.result_store import IDLE, REANALYSIS
from atomstream.server.live.stored_results import StoredResults
from atomstream.server.live.stream_parts import StreamParts, open_parts
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
RETRY_S: Final = 1.0
MAX_ARRAYS: Final = 512
"""Arrays of results of one stream."""
SPECULAR: Final = ("intensity", "background", "x", "y")


class StreamResults(StoredResults):
    """The results of one stream, which this process analyses. Used in the server's loop; made by :meth:`open`.

    All methods that write raise OSError for an error of the disk; then nothing was changed.
    """

    def __init__(self, parts: StreamParts[StreamArchive]) -> None:
        super().__init__(parts)
        self._live: LiveAnalysis | None = None
        self._late = IndexSet()  # chunks stored after the end of the analysis
        self._tasks: set[asyncio.Task[None]] = set()
        self._reanalyses = ReanalysisScheduler(self._make_reanalysis, self.reanalyse, self._feed.notify)
        self._writer = AnnotationWriter(
            parts.annotations,
            lambda: parts.archive.origin_unix_ms,
            self._publish,
            self._in_thread,
            self._annotated,
        )
        self._copy = ArchiveAnnotations(parts.archive, self._known, self._in_thread)

    @classmethod
    async def open(
        cls, archive: StreamArchive, metadata: StreamMetadata, resources: AnalysisResources
    ) -> StreamResults:
        """Open what is on disk; raises OSError."""
        return cls(await open_parts(archive, metadata, resources))

    # -- status ------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``ended`` or ``none``."""
        if self._live is not None or self._reanalyses.running_whole:
            return "running" if self._store.log.analysed else "waiting"
        return "ended" if self._store.log.ended else "none"

    @property
    def is_over(self) -> bool:
        """True if no analysis is running or scheduled."""
        return not self._tasks and not self._reanalyses.scheduled

    @property
    def is_idle(self) -> bool:
        """True if the live analysis waits for the next chunk, and nothing else is to be done."""
        return (
            self._live is not None
            and self._live.idle
            and len(self._tasks) == 1
            and not (self._reanalyses.scheduled or self._reanalyses.running)
        )

    @property
    def progress(self) -> float | None:
        """Progress of a re-analysis, 0 to 1; None if none runs."""
        return self._reanalyses.progress

    @property
    def backlog(self) -> int:
        """Stored chunks that wait for the live analysis."""
        return self._live.order.backlog if self._live is not None else 0

    @property
    def trouble(self) -> str:
        """Why the live analysis can't go on; empty if it can."""
        return self._live.trouble if self._live is not None else ""

    @property
    def is_reanalysed(self) -> bool:
        """True if a re-analysis of the whole stream runs."""
        return self._reanalyses.running_whole

    def missing_report(self) -> MissingMessage:
        """The stored chunks that are not in the results, by reason, and whether a re-analysis runs or is scheduled."""
        return MissingMessage(reanalysis=self._reanalyses.pending, missing=self._missing().parts())

    def _missing(self) -> MissingIndices:
        missing = (self._store.log.missing if self._live is None else self._live.missing).copy()
        missing.add_all(self._late, LATE)
        return missing

    # -- annotations of the user -------------------------------------------------------------------------

    async def mark(self, mark: NewMark) -> Event:
        """Store an event, send it to readers and to the analysis; returns it. A repeat of its id changes nothing."""
        return await self._writer.mark(mark)

    async def correct_mark(self, event_id: str, version: int, changes: EventChanges) -> EventState:
        """Correct or delete version ``version`` of the user's event; returns what it is then.

        Segments and counts of a running analysis follow at once, as well as they can without the earlier frames; when
        the stream has ended, it is analysed again. A finished stream is analysed again.

        Raises:
            EventMissingError: there is no such event. EventConflictError: it was corrected meanwhile.
            ConfigError: too many corrections. After all of these nothing was changed.
        """
        state, matters = await self._writer.correct(event_id, version, changes)
        if matters:
            self._reanalyse_ended()
        return state

    def _reanalyse_ended(self) -> None:
        """Analyse a stream again whose analysis has ended; a live analysis uses the change from now on."""
        if self._reanalyses.running_whole or (self._live is None and self._store.log.ended):
            self._schedule()

    async def set_regions(self, regions: list[RegionRecord]) -> None:
        """Replace the user's regions. Their traces are computed back to the first frame in the background.

        Raises:
            ConfigError: invalid regions, or too many different names in this stream; nothing was changed.
        """
        if self.is_thinned:
            raise ConfigError("regions: frames of this stream were removed, so no trace can be made")
        await self._check_columns(regions)
        checked = await self._writer.set_regions(regions, self._detected_regions)
        if checked and self.has_frames:
            self._start(self._trace_regions(checked))

    async def _check_columns(self, regions: list[RegionRecord]) -> None:
        """Each name that a region ever had is an array of the archive, whose metadata are written for each chunk."""
        known = set(await self._in_thread(self._archive.results.names))
        boxes = [region for region in regions if isinstance(region, BoxRecord)]
        if len(known | {column_name(f"region:{box.name}") for box in boxes}) > MAX_ARRAYS:
            raise ConfigError(
                f"regions: this stream has {len(known)} arrays of results; at most {MAX_ARRAYS} are "
                "allowed. Use earlier names again"
            )

    async def _trace_regions(self, regions: list[RegionRecord]) -> None:
        async with self._noted_for_others() as allowed:
            batch = (await self._reanalyses.run(_columns_of(regions)))[1] if allowed else None
        # Regions that were changed in the meantime are not published: a page would show what its user has removed.
        if batch is not None and self._annotations.regions == regions:
            await self._writer.publish_regions(regions, self._detected_regions, complete=True)

    async def calibrate(self, calibration: CalibrationRecord) -> None:
        """Set the calibration: of a running analysis from now on; a finished stream is analysed again."""
        if await self._writer.append(CalibrationEntry(calibration)):
            self._reanalyse_ended()

    async def label_azimuth(self, view_id: str, changes: AzimuthChanges) -> None:
        """Change ``label`` or ``enabled`` of an azimuth's view."""
        await self._writer.append(AzimuthEntry(view_id, changes))

    async def _publish(self, record: EventMessage | RegionsMessage | EndMessage) -> None:
        self._feed.publish(await self._in_thread(lambda: self._store.log.add(record)))

    def _annotated(self) -> None:
        if self._live is not None:
            self._live.notify()
        self._copy.note()

    def _known(self) -> Annotated:
        newest, annotations = self._store.log.newest, self._annotations
        return Annotated(
            self.events(),
            newest.segments,
            annotations.regions,
            newest.detected_regions,
            annotations.calibration,
        )

    # -- live analysis -----------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Begin the analysis of a stream that is not ended, or continue what an earlier process did not finish."""
        left = await self._in_thread(self._store.left_running)
        is_open = self.metadata.status not in ENDED_STATUSES
        if left == REANALYSIS:
            self.reanalyse()
        elif left is not None or (not self._store.log.ended and (is_open or self._is_unfinished)):
            self.begin()
        if not is_open:
            self.end()
        if self._annotations.book.n_changes or self._archive.small_rows("mark_time") != len(self.events()):
            self._copy.note()  # a server before this one ended too early, or made no copy

    @property
    def _is_unfinished(self) -> bool:
        """True if an ended stream is to be analysed, although no process before this one has left a beginning here.

        In a cache: the server that received the chunks may not have finished, and its results are not in the store
        yet. They are the same as those of this server.
        """
        return not self.has_frames or (self._archive.is_cache and not self.is_thinned)

    def begin(self) -> None:
        """Start the live analysis, from the last snapshot of an earlier process if there is one."""
        if self._live is None:
            self._live = LiveAnalysis(self._parts, self._feed)
            self._live.saved = self._copy.note
            self._start(self._run_live(self._live))

    async def _run_live(self, live: LiveAnalysis) -> None:
        await live.first_need()
        await self._in_thread(self._store.begin)
        await live.run()
        self._add_late(live.order.waiting)  # stored just as the analysis ended
        missing = live.missing
        if live.filled_late or live.calibrated_late or (live.was_corrected and not self.is_thinned):
            missing = await self._run_whole(missing)
        await live.close()
        self._live = None
        await self._finish(missing)

    async def _finish(self, missing: MissingIndices) -> None:
        await self._copy.flush()
        await self._end_files()
        await self._publish(EndMessage(missing=missing.parts()))
        if self._archive.is_cache:  # other servers that open the stream find the record of the end, too
            await self._stored(self._archive.finish)
        if self._reanalyses.scheduled:  # noted on disk, in case the server is killed now
            await self._note_reanalysis()

    async def _end_files(self) -> None:
        await self._in_thread(self._store.end)

    def needs_frames(self, index: int) -> bool:
        """True if decoded frames of the chunk are useful at present."""
        return self._live is not None and self._live.needs_frames(index)

    def stored(self, index: int, decoded: DecodedChunk | None) -> None:
        """Analyse chunk ``index``, which is in the archive. The analysis owns ``decoded`` from now on."""
        if self._live is not None and not self._live.done:
            self._live.stored(index, decoded)
            return
        if decoded is not None:
            self._resources.frames.release(decoded.block)
        self._add_late(IndexSet([index]))

    def end(self) -> None:
        """Finish the live analysis after the stored chunks: no more are uploaded."""
        if self._live is not None:
            self._live.end()

    # -- re-analyses -------------------------------------------------------------------------------------

    def reanalyse(self) -> bool:
        """Analyse the stored frames again from the first; False if an analysis runs already."""
        if self._live is not None or self._reanalyses.running or self.is_thinned:
            return False
        self._reanalyses.reserve()
        self._start(self._run_reanalysis())
        return True

    async def _run_reanalysis(self) -> None:
        await self._note_reanalysis()
        async with self._noted_for_others() as allowed:
            if allowed:
                await self._finish(await self._run_whole(self._missing()))
                return
        self._reanalyses.release()
        await self._end_files()

    @asynccontextmanager
    async def _noted_for_others(self) -> AsyncIterator[bool]:
        """Context manager: servers that remove frames know that they are read in this block.

        False if frames are being removed. A server that removes frames looks for the note after it has noted its own
        work in the description, so one of the two leaves the stream to the other. A note that stays, of a process that
        has ended, gets stale.
        """
        renewing = asyncio.create_task(self._renew_note(), name=f"note about {self.metadata.data_id}")
        try:
            await self._stored(self._archive.note_analysed_again)
            await self._stored(self._archive.refresh_about)
            if self.is_thinned:
                log.info(
                    "stream %s: it is not analysed again, because frames are removed", self.metadata.data_id
                )
            yield not self.is_thinned
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
        with suppress(StoreUnavailableError):
            await self._in_thread(self._archive.remove_analysis_note)

    async def _renew_note(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with suppress(StoreUnavailableError):
                await self._in_thread(self._archive.note_analysed_again)

    async def _stored(self, put: Callable[[], object]) -> None:
        """Repeat until the store is there."""
        while not self._feed.closed:
            try:
                await self._in_thread(put)
                return
            except (StoreUnavailableError, BusUnavailableError) as error:
                log.warning("stream %s: a write failed and is tried again: %s", self.metadata.data_id, error)
                await asyncio.sleep(RETRY_S)

    async def _run_whole(self, missing: MissingIndices) -> MissingIndices:
        """Analyse everything again. Returns the chunks that are missing after it: ``missing`` if it fails."""
        reanalysis, batch = await self._reanalyses.run(None)
        if batch is None:
            return missing
        frames = self._archive.n_frames()
        final = msgspec.structs.replace(batch, start=frames, count=0, columns={}, frames_received=frames)
        events = self._annotations.book.names()
        message = await self._in_thread(
            lambda: self._store.add_batch(final, events, chunk=None, final=True, reanalysis=True)
        )
        if message is not None:
            self._feed.publish(message)
        self._late -= reanalysis.indices
        return reanalysis.missing

    def _add_late(self, indices: IndexSet) -> None:
        self._late |= indices
        if indices:
            self._schedule()

    def _schedule(self) -> None:
        if self.is_thinned:
            return
        if not self._reanalyses.scheduled:
            self._start(self._note_reanalysis())
        self._reanalyses.schedule()

    async def _note_reanalysis(self) -> None:
        await self._in_thread(lambda: self._store.begin(REANALYSIS))

    def _make_reanalysis(self, only: frozenset[str] | None) -> Reanalysis:
        return Reanalysis(self._parts, self._reanalyses.report, only)

    # -- tasks -------------------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"results of {self.metadata.data_id}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._feed.notify()
        if not task.cancelled() and (error := task.exception()) is not None:
            log_failure(log, error, "the analysis of stream %s failed", self.metadata.data_id)

    async def close(self) -> None:
        """Stop all work. The next start of the server continues from the last snapshot."""
        self._feed.close()
        self._reanalyses.cancel()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._copy.close()
        try:
            self._store.close()
        finally:
            self._annotations.close()

    async def park(self) -> None:
        """Stop an idle analysis, and release its worker and files.

        When it is opened again, it continues from the last snapshot. Until then it has nothing to do: this is noted, so
        that a start of the server does not open all streams that nobody ends.
        """
        live = self._live
        if self.is_idle:
            await self._in_thread(lambda: self._store.begin(IDLE))
        await self.close()
        if live is not None:
            await live.close()


def _columns_of(regions: list[RegionRecord]) -> frozenset[str]:
    """The names of the result columns and line profiles that the analysis makes for these regions."""
    names: set[str] = set()
    for region in regions:
        if isinstance(region, LineRecord):
            names.add(region.name)
        elif region.name == "specular":
            names.update(f"specular_{part}" for part in SPECULAR)
        else:
            names.add(column_name(f"region:{region.name}"))
    return frozenset(names)
