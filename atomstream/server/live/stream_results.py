"""All results of one stream: the live analysis, re-analyses, and the annotations of the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from atomstream.errors import ConfigError
from atomstream.index_ranges import IndexSet
from atomstream.results import SIGNAL, Event, column_name, unit_of
from atomstream.server.archive.metadata import StreamMetadata, read_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import ABOUT_KEY
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
    RegionRecord,
)
from atomstream.server.live.annotations import Annotations, AnnotationWriter
from atomstream.server.live.archive_annotations import Annotated, ArchiveAnnotations
from atomstream.server.live.event_book import EventChanges
from atomstream.server.live.feed import Feed, Message
from atomstream.server.live.growth_summary import GrowthSummary, summary_of
from atomstream.server.live.live_analysis import LiveAnalysis
from atomstream.server.live.messages import (
    AnalysisProgress,
    AnalysisStatus,
    AngleSeries,
    AzimuthView,
    EndMessage,
    EventMessage,
    HelloMessage,
    MeasurementRecord,
    MissingMessage,
    RegionsMessage,
    RegionsReport,
)
from atomstream.server.live.missing_chunks import LATE, MissingIndices
from atomstream.server.live.reanalysis import Reanalysis, ReanalysisScheduler
from atomstream.server.live.result_store import REANALYSIS, ResultStore
from atomstream.server.live.timeseries import SeriesQuery, azimuths, series_by_angle
from atomstream.server.live.view_tracks import why_no_views
from atomstream.server.live.waterfall import Waterfall
from atomstream.server.streams.ingest import run_in
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
T = TypeVar("T")
ENDED_STATUSES: Final = frozenset({"success", "stream_error"})
"""Statuses of streams that have ended: no more chunks are expected."""
MAX_ARRAYS: Final = 512
"""Arrays of results of one stream."""
SPECULAR: Final = ("intensity", "background", "x", "y")


class StreamResults:
    """The results of one stream. Used in the server's loop; made by :meth:`open`.

    All methods that write raise OSError for an error of the disk; then nothing was changed.
    """

    def __init__(
        self,
        archive: StreamArchive,
        metadata: StreamMetadata,
        resources: AnalysisResources,
        store: ResultStore,
        annotations: Annotations,
    ) -> None:
        self.metadata = metadata
        self.followers = 0
        """Number of readers of the feed at present."""
        self._archive = archive
        self._resources = resources
        self._store = store
        self._annotations = annotations
        self._feed = Feed(store.log.seq)
        self._live: LiveAnalysis | None = None
        self._late = IndexSet()  # chunks stored after the end of the analysis
        self._tasks: set[asyncio.Task[None]] = set()
        self._reanalyses = ReanalysisScheduler(self._make_reanalysis, self.reanalyse, self._feed.notify)
        self._writer = AnnotationWriter(
            annotations, lambda: archive.origin_unix_ms, self._publish, self._in_thread, self._annotated
        )
        self._copy = ArchiveAnnotations(archive, self._known, self._in_thread)

    @classmethod
    async def open(
        cls, archive: StreamArchive, metadata: StreamMetadata, resources: AnalysisResources
    ) -> StreamResults:
        """Open what is on disk; raises OSError."""

        def files() -> tuple[ResultStore, Annotations]:
            store = ResultStore(archive, metadata.fps)
            path = store.folder / "inputs.log"
            try:
                return store, Annotations(
                    path, archive.files.file_system, partial(archive.files.note_damage, path)
                )
            except BaseException:
                store.close()
                raise

        return cls(archive, metadata, resources, *await run_in(resources.threads, files))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await run_in(self._resources.threads, call)

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
    def has_frames(self) -> bool:
        """True if a chunk of the stream is stored."""
        return bool(self._archive.stored())

    @property
    def is_thinned(self) -> bool:
        """True if frames were removed, so that an analysis of the others would replace results by worse ones."""
        return self._archive.thinned.exists or bool(self._archive.description.get(ABOUT_KEY))

    @property
    def progress(self) -> float | None:
        """Progress of a re-analysis, 0 to 1; None if none runs."""
        return self._reanalyses.progress

    @property
    def backlog(self) -> int:
        """Stored chunks that wait for the live analysis."""
        return self._live.order.backlog if self._live is not None else 0

    def newest(self) -> tuple[dict[str, MeasurementRecord], float | None]:
        """The newest values, and when they were made in Unix ms; None if there are none."""
        records = self._store.log
        return records.newest.values, records.made_unix_ms

    async def status(self) -> AnalysisStatus:
        """The status of the analysis and its newest results."""
        metadata, archive, records = self.metadata, self._archive, self._store.log
        geometry = archive.geometry
        columns = await asyncio.to_thread(archive.results.names)
        progress = await self.analysis_progress()
        missing = self.missing_report()
        return AnalysisStatus(
            data_id=metadata.data_id,
            status=self.state,
            why=self._why(),
            seq=self.seq,
            origin_unix_ms=archive.origin_unix_ms,
            fps=metadata.fps,
            rpm=metadata.rotations_per_min,
            chunk_size=geometry.chunk_size if geometry else None,
            height=geometry.height if geometry else None,
            width=geometry.width if geometry else None,
            dtype=geometry.dtype if geometry else None,
            n_frames=archive.n_frames(),
            frames_stored=progress.frames_stored,
            frames_analysed=progress.frames_analysed,
            backlog_chunks=self.backlog,
            progress=self.progress,
            reanalysis=missing.reanalysis,
            missing=missing.missing,
            newest_unix_ms=records.made_unix_ms,
            newest_s=progress.newest_s,
            values=records.newest.values,
            segments=records.newest.segments,
            views=records.newest.views,
            detected_regions=records.newest.detected_regions,
            views_why=self.why_no_views(),
            events=self.events(),
            columns={name: columns[name] if name.startswith(SIGNAL) else unit_of(name) for name in columns},
            regions=self._annotations.regions,
            calibration=self._annotations.calibration,
            thinning=read_about(archive.description).thinning,
        )

    async def analysis_progress(self) -> AnalysisProgress:
        """How many of the stored frames have results, and how old the newest are."""
        return await asyncio.to_thread(self._analysis_progress)

    def _analysis_progress(self) -> AnalysisProgress:
        records = self._store.log
        newest_s, newest_stored_s = self._store.newest_times()
        return AnalysisProgress(
            status=self.state,
            reanalysis=self._reanalyses.running_whole,
            frames_stored=self._archive.frames_stored(),
            frames_analysed=self._archive.frame_runs().rank(records.analysed),
            newest_s=newest_s,
            newest_stored_s=newest_stored_s,
            newest_unix_ms=records.made_unix_ms,
        )

    def _why(self) -> str:
        """Why there are no new results; empty if there are, or will be."""
        if self._live is not None and self._live.trouble:
            return self._live.trouble
        return "" if self.has_frames else "no chunk is stored yet"

    def missing_report(self) -> MissingMessage:
        """The stored chunks that are not in the results, by reason, and whether a re-analysis runs or is scheduled."""
        return MissingMessage(reanalysis=self._reanalyses.pending, missing=self._missing().parts())

    def _missing(self) -> MissingIndices:
        missing = (self._store.log.missing if self._live is None else self._live.missing).copy()
        missing.add_all(self._late, LATE)
        return missing

    def why_no_views(self) -> str:
        """Why a rotating sample has no views; empty if it has views or does not rotate."""
        newest, metadata = self._store.log.newest, self.metadata
        refined = newest.values.get("rotation_rpm")
        rpm = metadata.rotations_per_min if refined is None or refined.value is None else refined.value
        return why_no_views(metadata.fps, rpm, self._store.log.analysed, len(newest.views))

    def events(self) -> list[Event]:
        """Events of the user and of the analysis, by time."""
        events = [*self._store.log.events, *self._user_events()]
        return sorted(events, key=lambda event: event.time_ms_utc or 0.0)

    def summary(self) -> GrowthSummary:
        """The few numbers that lists show."""
        return summary_of(self._store.log.newest)

    def _user_events(self) -> list[Event]:
        return self._annotations.events(self._archive.origin_unix_ms)

    def regions(self) -> RegionsReport:
        """The user's regions, the detected ones, and the columns of the boxes' traces."""
        regions = self._annotations.regions
        boxes = [region.name for region in regions if isinstance(region, BoxRecord)]
        return RegionsReport(
            regions=regions,
            detected_regions=self._detected_regions,
            columns={name: column_name(f"region:{name}") for name in boxes},
            progress=self.progress,
        )

    @property
    def _detected_regions(self) -> list[RegionRecord]:
        return self._store.log.newest.detected_regions

    def calibration(self) -> CalibrationRecord:
        """The calibration of the stream, empty if there is none."""
        return self._annotations.calibration

    # -- series ------------------------------------------------------------------------------------------

    def series_reader(self, query: SeriesQuery) -> Callable[[], list[AngleSeries]]:
        """A function that returns ``series_by_angle`` of the hosted service's protocol. It blocks."""
        metadata, labels = self.metadata, self._annotations.labels()
        return partial(
            series_by_angle, self._store, query, metadata.rotations_per_min, metadata.azimuth_label, labels
        )

    async def azimuths(self) -> list[AzimuthView]:
        """The views of the stream, as the hosted service lists them."""
        metadata, labels = self.metadata, self._annotations.labels()
        rpm, label = metadata.rotations_per_min, metadata.azimuth_label
        return await asyncio.to_thread(azimuths, self._store, metadata.data_id, rpm, label, labels)

    def waterfall(self, line: str) -> Waterfall | None:
        """The profiles of a line over time; None if there are none (yet)."""
        return self._store.waterfalls.get(line)

    # -- feed --------------------------------------------------------------------------------------------

    @property
    def seq(self) -> int:
        """Number of the newest message."""
        return self._feed.seq

    @property
    def closed(self) -> bool:
        """True if the server stops, so that readers must end."""
        return self._feed.closed

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Get it before you look at the state, so that no change is missed."""
        return self._feed.changed

    def hello(self) -> HelloMessage:
        """The first message of the feed."""
        metadata, geometry = self.metadata, self._archive.geometry
        return HelloMessage(
            data_id=metadata.data_id,
            seq=self.seq,
            status=self.state,
            origin_unix_ms=self._archive.origin_unix_ms,
            fps=metadata.fps,
            rpm=metadata.rotations_per_min,
            chunk_size=geometry.chunk_size if geometry else None,
        )

    async def message(self, seq: int, columns: frozenset[str] | None) -> Message:
        """The message of that number, from memory or from disk."""
        recent = self._feed.recent(seq)
        if recent is not None:
            return recent
        return Message(await run_in(self._resources.readers, self._store.message, seq, columns))

    async def _publish(self, record: EventMessage | RegionsMessage | EndMessage) -> None:
        self._feed.publish(await self._in_thread(lambda: self._store.log.add(record)))

    def close_feed(self) -> None:
        """End all readers: the server stops."""
        self._feed.close()

    # -- annotations of the user -------------------------------------------------------------------------

    async def mark(
        self,
        kind: str,
        label: str,
        time_ms_utc: float | None,
        value: float | None,
        event_id: str | None,
        unit: str = "",
    ) -> Event:
        """Store an event, send it to readers and to the analysis; returns it. A repeat of its id changes nothing."""
        return await self._writer.mark(kind, label, time_ms_utc, value, event_id, unit)

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
            self._analyse_corrected()
        return state

    def _analyse_corrected(self) -> None:
        if self._reanalyses.running_whole or (self._live is None and self._store.log.ended):
            self._schedule()

    def mark_history(self, event_id: str) -> list[EventState]:
        """All contents of the user's event, up to the present one; empty if there is none with this id."""
        return self._annotations.book.history(event_id)

    @property
    def origin_unix_ms(self) -> float | None:
        """The time of the stream's first frame, UTC ms; None before it."""
        return self._archive.origin_unix_ms

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
        _, batch = await self._reanalyses.run(_columns_of(regions))
        # Regions that were changed in the meantime are not published: a page would show what its user has removed.
        if batch is not None and self._annotations.regions == regions:
            await self._writer.publish_regions(regions, self._detected_regions, complete=True)

    async def calibrate(self, calibration: CalibrationRecord) -> None:
        """Set the calibration: of a running analysis from now on; a finished stream is analysed again."""
        await self._writer.append(CalibrationEntry(calibration))
        if self._reanalyses.running_whole or (self._live is None and self._store.log.ended):
            self._schedule()

    async def label_azimuth(self, view_id: str, changes: AzimuthChanges) -> None:
        """Change ``label`` or ``enabled`` of an azimuth's view."""
        await self._writer.append(AzimuthEntry(view_id, changes))

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
        elif left is not None or (not self._store.log.ended and (is_open or not self.has_frames)):
            self.begin()
        if not is_open:
            self.end()
        if self._annotations.book.n_changes or self._archive.small_rows("mark_time") != len(self.events()):
            self._copy.note()  # a server before this one ended too early, or made no copy

    def begin(self) -> None:
        """Start the live analysis, from the last snapshot of an earlier process if there is one."""
        if self._live is None:
            self._live = LiveAnalysis(
                self._archive, self.metadata, self._resources, self._store, self._annotations, self._feed
            )
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
        if self._reanalyses.scheduled:  # noted on disk, in case the server is killed now
            await self._note_reanalysis()

    async def _end_files(self) -> None:
        await self._in_thread(self._store.end)

    def wants(self, index: int) -> bool:
        """True if decoded frames of the chunk are useful at present."""
        return self._live is not None and self._live.wants(index)

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
        await self._finish(await self._run_whole(self._missing()))

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
        return Reanalysis(
            self._archive,
            self.metadata,
            self._resources,
            self._store,
            self._annotations,
            self._reanalyses.report,
            only,
        )

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

        When it is opened again, it continues from the last snapshot.
        """
        live = self._live
        await self.close()
        if live is not None:
            await live.close()


def _columns_of(regions: list[RegionRecord]) -> frozenset[str]:
    """The columns and lines that these regions have."""
    names: set[str] = set()
    for region in regions:
        if isinstance(region, LineRecord):
            names.add(region.name)
        elif region.name == "specular":
            names.update(f"specular_{part}" for part in SPECULAR)
        else:
            names.add(column_name(f"region:{region.name}"))
    return frozenset(names)
