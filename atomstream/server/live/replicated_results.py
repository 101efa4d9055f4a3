"""The results of a stream on a server of a cluster, which does not analyse: it follows the shared logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from atomstream.errors import ConfigError
from atomstream.results import Event
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.disk_errors import log_unavailable
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.annotation_records import (
    AnnotationEntry,
    AzimuthChanges,
    AzimuthEntry,
    CalibrationEntry,
    CalibrationRecord,
    EventState,
    NewMark,
    RegionRecord,
    RegionsEntry,
    SettingEntry,
    check_regions,
)
from atomstream.server.live.event_history import EventChanges, EventConflictError, as_event
from atomstream.server.live.replica import Replica, SharedLogs
from atomstream.server.live.stream_parts import StreamParts, open_parts
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.ports.placement import Notice
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
RETRY_S: Final = 1.0
"""Time until a notice that the bus did not take is announced again."""

Announce = Callable[[Notice], Coroutine[Any, Any, None]]


class ReplicatedResults(StreamResults):
    """The results of one stream, equal to those of the process that analyses it; made by :meth:`open_replica`.

    What users add is stored in the shared log, for that process and for all servers. Methods that do so raise
    BusUnavailableError while it can't be reached: nothing was changed, as far as is known.
    """

    def __init__(self, parts: StreamParts[CachedArchive], logs: SharedLogs, announce: Announce) -> None:
        super().__init__(parts)
        self.replica = Replica(parts, logs, self._in_thread)
        self._announce = announce
        self._shared_archive = parts.archive
        self._following: list[asyncio.Task[None]] = []
        self._refreshing = asyncio.Lock()

    @classmethod
    async def open_replica(
        cls,
        archive: CachedArchive,
        metadata: StreamMetadata,
        resources: AnalysisResources,
        logs: SharedLogs,
        announce: Announce,
    ) -> ReplicatedResults:
        """Open the files and bring them up to the present; raises OSError and BusUnavailableError."""
        results = cls(await open_parts(archive, metadata, resources), logs, announce)
        try:
            await results.replica.open()
        except BaseException:
            await results.close()
            raise
        results._feed.seq = results._store.log.seq
        return results

    async def resume(self) -> None:
        """Follow the shared logs from now on."""
        for work in (self._follow_results(), self.replica.follow_inputs(self._inputs_changed)):
            self._following.append(asyncio.create_task(work, name=f"following {self.metadata.data_id}"))

    async def _follow_results(self) -> None:
        await self.replica.follow_results(self._feed.publish)

    async def _inputs_changed(self) -> None:
        self._feed.notify()

    def notice_change(self) -> None:
        """A chunk was stored here, or the status has changed: show it to readers."""
        self._feed.notify()

    def has_chunk(self, index: int) -> bool:
        """Whether this process knows that the chunk is stored."""
        return index in self._shared_archive.stored()

    async def refresh(self) -> None:
        """Another server has stored a chunk, or changed the description."""
        if self._refreshing.locked():
            return
        async with self._refreshing:
            with suppress(StoreUnavailableError, ArchiveDeletedError):
                await self._in_thread(self._shared_archive.follow)
        self._feed.notify()

    # -- status ------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``ended`` or ``none``."""
        if self._store.log.ended:
            return "ended"
        if self._store.log.analysed:
            return "running"
        return "waiting" if self.has_frames or self.metadata.status not in ENDED_STATUSES else "none"

    @property
    def is_over(self) -> bool:
        """True if the analysis has ended, and its last record is in the feed: a reader that has all of them may end."""
        return self._store.log.ended and self._feed.seq >= self._store.log.seq

    @property
    def is_idle(self) -> bool:
        """True: the files may be closed at any time, and are brought up to the present when they are opened."""
        return True

    @property
    def backlog(self) -> int:
        """Stored chunks without results, by the results that this server has read."""
        geometry = self._archive.geometry
        if geometry is None or self._store.log.ended:
            return 0
        return max(0, self._archive.stored().end - -(-self._store.log.analysed // geometry.chunk_size))

    # -- annotations of the user -------------------------------------------------------------------------

    async def _add(self, entry: AnnotationEntry, key: str = "") -> None:
        await self.replica.add_input(entry, key)
        self._feed.notify()
        await self._announce(Notice(data_id=self.metadata.data_id, kind="inputs"))

    async def mark(self, mark: NewMark) -> Event:
        """Store an event; the process that analyses the stream publishes it. A repeat of its id has no effect."""
        await self.replica.catch_up_inputs()
        book = self._annotations.book
        known = book.state(mark.id or "")
        if known is None:
            book.check_room()
            known = mark.entry()
            await self._add(known, known.id)
            known = book.state(known.id) or known
        return as_event(known, self._archive.origin_unix_ms)

    async def correct_mark(self, event_id: str, version: int, changes: EventChanges) -> EventState:
        """Correct or delete an event; the process that analyses the stream publishes it.

        Raises:
            EventMissingError, EventConflictError, ConfigError: as in :class:`StreamResults`.
        """
        await self.replica.catch_up_inputs()
        book = self._annotations.book
        entry = book.correction(event_id, version, changes)
        if entry is not None:
            await self._add(entry, entry.change_id)
            if not book.holds(entry):  # another server's correction came before it into the shared log
                raise EventConflictError(book.history(event_id)[-1])
        return book.history(event_id)[-1]

    async def set_regions(self, regions: list[RegionRecord]) -> None:
        """Replace the user's regions. Raises ConfigError: invalid regions, or too many names; nothing was changed."""
        if self.is_thinned:
            raise ConfigError("regions: frames of this stream were removed, so no trace can be made")
        await self._check_columns(regions)
        await self._set(RegionsEntry(check_regions(regions)))

    async def calibrate(self, calibration: CalibrationRecord) -> None:
        """Set the calibration: of a running analysis from now on; a finished stream is analysed again."""
        await self._set(CalibrationEntry(calibration))

    async def label_azimuth(self, view_id: str, changes: AzimuthChanges) -> None:
        """Change ``label`` or ``enabled`` of an azimuth's view."""
        await self._set(AzimuthEntry(view_id, changes))

    async def _set(self, entry: SettingEntry) -> None:
        await self.replica.catch_up_inputs()
        if self._annotations.changes_something(entry):
            await self._add(entry)

    # -- what only the process that analyses does --------------------------------------------------------

    def begin(self) -> None:
        """Nothing: another process analyses."""

    def end(self) -> None:
        """Nothing: another process analyses."""

    def needs_frames(self, index: int) -> bool:
        """False: decoded frames are of no use here."""
        return False

    def stored(self, index: int, decoded: DecodedChunk | None) -> None:
        """Chunk ``index`` is in the archive."""
        if decoded is not None:
            self._resources.frames.release(decoded.block)
        self._feed.notify()

    def reanalyse(self) -> bool:
        """Request a new analysis of all stored frames; False while an analysis runs."""
        if not self._store.log.ended or self.is_thinned:
            return False
        self._start(announce_again(self._announce, Notice(data_id=self.metadata.data_id, kind="reanalyse")))
        return True

    # -- the end -----------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop following."""
        for task in self._following:
            task.cancel()
        if self._following:
            await asyncio.wait(self._following)
        with suppress(OSError):
            await self._in_thread(self.replica.save)
        await super().close()


async def announce_again(announce: Announce, notice: Notice) -> None:
    """Announce a notice that no client's request waits for; repeated until the bus can be reached."""
    while True:
        try:
            await announce(notice)
            return
        except BusUnavailableError as error:
            log_unavailable(log, error)
            await asyncio.sleep(RETRY_S)
