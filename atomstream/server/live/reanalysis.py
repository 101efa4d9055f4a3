"""Analysing the stored frames of a stream again: after late chunks, on request, or for new regions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from atomstream.index_ranges import IndexSet
from atomstream.results import Event
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.analyzer_client import AnalyzerClient
from atomstream.server.live.annotation_records import (
    AnalyzerEntry,
    CorrectedEvent,
    RegionsEntry,
    TimedEvent,
)
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.missing_chunks import CRASHED, UNREADABLE, MissingIndices
from atomstream.server.live.stream_parts import StreamParts
from atomstream.server.live.waterfall import Waterfall
from atomstream.server.live.worker_pool import JobFailedError, WorkerDiedError
from atomstream.server.streams.ingest import run_in
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
TRIES: Final = 3
DELAY_S: Final = 1.0
"""Time in s from the last of several late chunks until a finished stream is analysed again."""


class Reanalysis:
    """One re-analysis, chunk by chunk, beside the live analysis. It replaces columns and publishes nothing.

    ``only`` names the columns (and the lines' waterfalls) to replace, None means all. ``report`` receives the progress
    (0 to 1).
    """

    def __init__(
        self,
        parts: StreamParts[StreamArchive],
        report: Callable[[float], None],
        only: frozenset[str] | None = None,
    ) -> None:
        self._archive = parts.archive
        self._about = parts.metadata
        self._resources = parts.resources
        self._store = parts.store
        self._annotations = parts.annotations
        self._report = report
        self._only = only
        self._stopped = False
        self._waterfalls: dict[str, Waterfall] = {}
        self._last = AnalyzerBatch(0, 0, {})
        self._events: list[Event] = []
        self._left_out = {UNREADABLE: IndexSet(), CRASHED: IndexSet()}
        self.indices = IndexSet()
        """The chunks that are analysed; empty before :meth:`run`."""

    @property
    def missing(self) -> MissingIndices:
        """The chunks that could not be read or analysed."""
        missing = MissingIndices()
        for reason, indices in self._left_out.items():
            missing.add_all(indices, reason)
        return missing

    @property
    def is_whole(self) -> bool:
        """True if all results are replaced, not only those of some regions."""
        return self._only is None

    @property
    def stopped(self) -> bool:
        """True after :meth:`stop`."""
        return self._stopped

    def stop(self) -> None:
        """End at the next chunk; do not begin."""
        self._stopped = True

    async def run(self) -> AnalyzerBatch | None:
        """Analyse all chunks that are stored now. Returns the last batch with all events, None if it was stopped."""
        for _ in range(TRIES):
            try:
                return await self._run()
            except (WorkerDiedError, JobFailedError) as error:
                log.warning("stream %s: its re-analysis starts again: %s", self._about.data_id, error)
        log.error("stream %s could not be analysed again; its results are unchanged", self._about.data_id)
        return None

    async def _run(self) -> AnalyzerBatch | None:
        analyzer = AnalyzerClient(f"{self._about.data_id} again {id(self)}", self._archive, self._resources)
        self._waterfalls, self._events = {}, []
        try:
            await self._all_chunks(analyzer)
            if self._stopped:
                return None
            await analyzer.finish(self._keep)
        finally:
            await _close(analyzer)
        self._replace_waterfalls()
        return msgspec.structs.replace(self._last, events=self._events)

    def _replace_waterfalls(self) -> None:
        for name, waterfall in self._waterfalls.items():
            if self._only is None or name in self._only:
                known = self._store.waterfalls.get(name)
                if known is not None:  # the live analysis has added rows meanwhile
                    waterfall.follow(known)
                self._store.waterfalls[name] = waterfall

    async def _all_chunks(self, analyzer: AnalyzerClient) -> None:
        await analyzer.open(self._about, self._annotations.calibration)
        await analyzer.annotate(self._entries())
        indices = self.indices = self._archive.stored()
        count = len(indices)
        for done, index in enumerate(indices):
            if self._stopped:
                return
            await analyzer.skip(index)
            if not any(index in left_out for left_out in self._left_out.values()):
                await self._chunk(analyzer, index)
            self._report((done + 1) / count)

    def _entries(self) -> list[AnalyzerEntry]:
        # The newest regions and calibration are used from the first frame on; events keep their times.
        origin = self._archive.origin_unix_ms or 0.0
        entries = self._annotations.for_analysis(0, origin)
        regions = [entry for entry in entries if isinstance(entry, RegionsEntry)][-1:]
        return [*regions, *(entry for entry in entries if isinstance(entry, (TimedEvent, CorrectedEvent)))]

    async def _chunk(self, analyzer: AnalyzerClient, index: int) -> None:
        self._left_out[CRASHED].add(index)  # until it is analysed: the next attempt goes on without it
        try:
            await analyzer.chunk(index, None, self._keep)
        except JobFailedError as error:
            if error.kind != "shard":
                raise
            log.error("stream %s: chunk %d is left out: %s", self._about.data_id, index, error)
            self._left_out[UNREADABLE].add(index)
            self._archive.note_unreadable(index, str(error))
        self._left_out[CRASHED].discard(index)

    async def _keep(self, batch: AnalyzerBatch) -> None:
        self._last = batch
        self._events += batch.events
        await run_in(self._resources.threads, self._write, batch)

    def _write(self, batch: AnalyzerBatch) -> None:
        self._store.replace_columns(batch, self._only)
        self._store.share_columns(batch, self._only, replaces=True)
        self._store.note_profiles(batch, self._waterfalls)


async def _close(analyzer: AnalyzerClient) -> None:
    try:
        await analyzer.close()
    except (WorkerDiedError, JobFailedError):
        log.debug("the worker of a re-analysis has ended already")


class ReanalysisScheduler:
    """Runs the re-analyses of one stream, one at a time. Used in the server's loop.

    ``make`` creates one (``only`` as its argument); ``start`` is called when a scheduled one is due and returns False
    if it can't start yet; ``changed`` is called when :attr:`progress` or :attr:`pending` changes.
    """

    def __init__(
        self,
        make: Callable[[frozenset[str] | None], Reanalysis],
        start: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.progress: float | None = None
        """Progress of the one that runs, 0 to 1; None if none runs."""
        self._make = make
        self._start = start
        self._changed = changed
        self._current: Reanalysis | None = None
        self._waiting: list[Reanalysis] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()

    @property
    def scheduled(self) -> bool:
        """True between :meth:`schedule` and the start."""
        return self._timer is not None

    @property
    def running(self) -> bool:
        """True if one runs or is reserved, of the whole stream or of some regions."""
        return self._current is not None

    @property
    def running_whole(self) -> bool:
        """True if one of the whole stream runs or is reserved."""
        return self._current is not None and self._current.is_whole

    @property
    def pending(self) -> bool:
        """True if the whole stream is being analysed again, or is scheduled to be."""
        return self.scheduled or self.running_whole

    def schedule(self) -> None:
        """Start in ``DELAY_S``. Late chunks come in groups, so each call postpones the start."""
        if self._timer is not None:
            self._timer.cancel()
        else:
            self._changed()
        self._timer = asyncio.get_running_loop().call_later(DELAY_S, self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._start():
            self.schedule()

    def reserve(self) -> None:
        """Count a whole re-analysis as running from now on, so that a second request finds it."""
        self._current = self._make(None)

    def release(self) -> None:
        """End a reservation: nothing is analysed."""
        self._current = None
        self.report(None)

    async def run(self, only: frozenset[str] | None) -> tuple[Reanalysis, AnalyzerBatch | None]:
        """Run one; returns it with its last batch, None if it failed or was stopped."""
        reanalysis = self._make(only)
        running = self._current
        # Changed regions wait for a running re-analysis of the whole stream: stopping it would leave half of the
        # results from the old values and half from the new ones.
        if running is None or reanalysis.is_whole or not running.is_whole:
            if running is not None:
                running.stop()
            self._current = reanalysis
        for other in self._waiting:
            if reanalysis.is_whole or not other.is_whole:
                other.stop()
        self._waiting.append(reanalysis)
        async with self._turn:
            self._waiting.remove(reanalysis)
            if reanalysis.stopped:  # a later one replaces the same columns
                return reanalysis, None
            self._current = reanalysis
            try:
                return reanalysis, await reanalysis.run()
            finally:
                if self._current is reanalysis:
                    self._current = None
                    self.report(None)

    def report(self, progress: float | None) -> None:
        """Set the progress."""
        self.progress = progress
        self._changed()

    def cancel(self) -> None:
        """Cancel a scheduled start."""
        if self._timer is not None:
            self._timer.cancel()
