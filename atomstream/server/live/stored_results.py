"""The results of one stream as readers get them: status, values, events, series, and the messages of the feed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from atomstream.results import SIGNAL, Event, column_name, unit_of
from atomstream.server.archive.metadata import read_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import ABOUT_KEY
from atomstream.server.live.annotation_records import BoxRecord, CalibrationRecord, EventState, RegionRecord
from atomstream.server.live.feed import Feed, Message
from atomstream.server.live.growth_summary import GrowthSummary, summary_of
from atomstream.server.live.messages import (
    AnalysisProgress,
    AnalysisStatus,
    AngleSeries,
    AzimuthView,
    HelloMessage,
    MeasurementRecord,
    MissingMessage,
    RegionsReport,
)
from atomstream.server.live.stream_parts import StreamParts
from atomstream.server.live.timeseries import SeriesQuery, azimuths, series_by_angle
from atomstream.server.live.view_tracks import why_no_views
from atomstream.server.live.waterfall import Waterfall
from atomstream.server.streams.ingest import run_in

T = TypeVar("T")


class StoredResults(ABC):
    """What readers get of a stream, from its files and its feed. Used in the server's loop.

    Its subclasses know how far the analysis is: they analyse, or they follow the process that does.
    """

    def __init__(self, parts: StreamParts[StreamArchive]) -> None:
        self.metadata = parts.metadata
        self.followers = 0
        """Number of readers of the feed at present."""
        self._parts = parts
        self._archive = parts.archive
        self._resources = parts.resources
        self._store = parts.store
        self._annotations = parts.annotations
        self._feed = Feed(parts.store.log.seq)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await run_in(self._resources.threads, call)

    # -- what the analysis does at present ---------------------------------------------------------------

    @property
    @abstractmethod
    def state(self) -> str:
        """``waiting``, ``running``, ``ended`` or ``none``."""

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """True if no analysis is running or scheduled, and the feed has all records."""

    @property
    @abstractmethod
    def progress(self) -> float | None:
        """Progress of a re-analysis, 0 to 1; None if none runs."""

    @property
    @abstractmethod
    def backlog(self) -> int:
        """Stored chunks that wait for the live analysis."""

    @property
    @abstractmethod
    def trouble(self) -> str:
        """Why the live analysis can't go on; empty if it can."""

    @property
    @abstractmethod
    def is_reanalysed(self) -> bool:
        """True if a re-analysis of the whole stream runs."""

    @abstractmethod
    def missing_report(self) -> MissingMessage:
        """The stored chunks that are not in the results, by reason, and whether a re-analysis runs or is scheduled."""

    # -- status ------------------------------------------------------------------------------------------

    @property
    def has_frames(self) -> bool:
        """True if a chunk of the stream is stored."""
        return bool(self._archive.stored())

    @property
    def is_thinned(self) -> bool:
        """True if frames were removed, so that an analysis of the others would replace results by worse ones."""
        return self._archive.thinned.exists or bool(self._archive.description.get(ABOUT_KEY))

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
            why=self.trouble or ("" if self.has_frames else "no chunk is stored yet"),
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
            reanalysis=self.is_reanalysed,
            frames_stored=self._archive.frames_stored(),
            frames_analysed=self._archive.frame_runs().rank(records.analysed),
            newest_s=newest_s,
            newest_stored_s=newest_stored_s,
            newest_unix_ms=records.made_unix_ms,
        )

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

    def mark_history(self, event_id: str) -> list[EventState]:
        """All contents of the user's event, up to the present one; empty if there is none with this id."""
        return self._annotations.book.history(event_id)

    @property
    def origin_unix_ms(self) -> float | None:
        """The time of the stream's first frame, UTC ms; None before it."""
        return self._archive.origin_unix_ms

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

    def close_feed(self) -> None:
        """End all readers: the server stops."""
        self._feed.close()
