"""The live results of all streams of a server: what happens to streams goes to their desks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from atomstream.server.archive.records import UploadClaims
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.shared_frames import SharedBlock, SharedFrames, UploadTap
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.live.worker_pool import WorkerPool
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.registry import StreamRegistry, checked_id
from atomstream.server.streams.signals import ChunkStored, ServerSignals, StatusChanged
from atomstream.shard import frame_nbytes

log = logging.getLogger("atomstream.server")
WARM_UP_S: Final = 1.5
"""After a start or a new stream, before a worker is made ready for the next: what lives no longer needs none."""
KEPT_DESKS: Final = 64
"""Streams without an analysis under way whose results stay open, for whoever asks next."""


class ResultsManager:
    """All desks. Belongs to the server's loop."""

    def __init__(self, settings: ServerSettings, streams: StreamRegistry, events: ServerSignals) -> None:
        self._streams = streams
        self._dir = settings.streams_dir
        self._frames = SharedFrames(settings.analysis_shared_bytes)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="atomstream-results")
        self._pool = WorkerPool(settings.analysis_workers)
        self._means = AnalysisResources(self._pool, self._frames, self._threads, settings.gap_wait_s)
        self._desks: dict[str, StreamResults] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._warming: asyncio.Task[None] | None = None
        events.created.subscribe(self._created)
        events.chunk_stored.subscribe(self._chunk_stored)
        events.status_changed.subscribe(self._status_changed)

    async def resume(self) -> None:
        """After a start: take up the analyses that had not ended."""
        for data_id in await asyncio.to_thread(_left_running, self._dir):
            try:
                desk = await self.desk(data_id)
            except Exception:  # its folder is damaged: that is no reason to leave the others
                log.exception("the analysis of stream %s can't be taken up", data_id)
                continue
            await desk.take_up()
            self._end_if_over(desk)
        self._prepare_worker()

    def _prepare_worker(self) -> None:
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._warm_up(), name="atomstream analysis warm-up")

    async def _warm_up(self) -> None:
        await asyncio.sleep(WARM_UP_S)
        try:
            await self._pool.warm_up()
        except OSError:  # then the stream that needs it says so
            log.exception("a worker for the analysis can't be started")

    async def desk(self, data_id: str) -> StreamResults:
        """The results of a stream; raises HttpError 404 where there is none."""
        known = self._desks.get(data_id)
        if known is not None:
            return known
        lock = self._opening.setdefault(checked_id(data_id), asyncio.Lock())
        async with lock:
            if data_id not in self._desks:
                archive = await self._streams.archive(data_id)
                about = await self._streams.about(data_id)
                self._desks[data_id] = await StreamResults.open(archive, about, self._means)
        self._opening.pop(data_id, None)
        await self._forget_some()
        return self._desks[data_id]

    async def _forget_some(self) -> None:
        idle = [data_id for data_id, desk in self._desks.items() if desk.is_over and desk.readers == 0]
        for data_id in idle[: max(0, len(idle) - KEPT_DESKS)]:
            await self._desks.pop(data_id).close()

    # -- what happens to streams -------------------------------------------------------------------------

    async def _created(self, data_id: str) -> None:
        (await self.desk(data_id)).begin()
        self._prepare_worker()

    async def _status_changed(self, changed: StatusChanged) -> None:
        if changed.status in ("success", "stream_error"):
            (await self.desk(changed.data_id)).end()

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        claims = stored.ticket
        desk = await self.desk(claims.data_id)
        if stored.committed.repeated:
            return
        tap = stored.decoded
        block = tap.take() if isinstance(tap, UploadTap) else None
        desk.stored(claims.index, DecodedChunk(block, stored.committed.stamps) if block is not None else None)

    def _end_if_over(self, desk: StreamResults) -> None:
        if desk.about.status in ("success", "stream_error"):
            desk.end()

    @contextmanager
    def tap(self, claims: UploadClaims) -> Iterator[UploadTap]:
        """Copy the decoded frames of an upload for the analysis, if its chunk is among the next to be analysed."""
        tap = UploadTap(self._frames, self._block_for(claims), claims.dims[0])
        try:
            yield tap
        finally:
            tap.close()

    def _block_for(self, claims: UploadClaims) -> SharedBlock | None:
        desk = self._desks.get(claims.data_id)
        if desk is None or not desk.wants(claims.index):
            return None
        return self._frames.acquire(claims.dims[0] * frame_nbytes(claims.dims, claims.dtype))

    # -- the end -----------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """The server stops: all readers of feeds go."""
        for desk in self._desks.values():
            desk.feed.close()

    async def close(self) -> None:
        """Stop all analyses where they are; the next start takes them up."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])
        for desk in self._desks.values():
            await desk.close()
        await self._pool.close()
        await self._frames.close()
        await asyncio.to_thread(self._threads.shutdown)


def _left_running(streams_dir: Path) -> list[str]:
    return sorted(path.parents[1].name for path in streams_dir.glob("*/analysis/running"))
