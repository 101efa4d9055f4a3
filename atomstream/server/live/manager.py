"""The results of all streams of a server, and the signals that drive them."""

from __future__ import annotations

import asyncio
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
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
WARM_UP_S: Final = 1.5
"""Delay before a spare worker is started, so that a server which stops at once starts none."""
MAX_IDLE: Final = 64
"""Number of streams without a running analysis whose results stay open for the next request."""


class ResultsManager:
    """The results of all streams. Used in the server's loop."""

    def __init__(self, settings: ServerSettings, streams: StreamRegistry, events: ServerSignals) -> None:
        self._streams = streams
        self._dir = settings.streams_dir
        self._frames = SharedFrames(settings.analysis_shared_bytes)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="atomstream-results")
        self._pool = WorkerPool(settings.analysis_workers)
        self._resources = AnalysisResources(self._pool, self._frames, self._threads, settings.gap_wait_s)
        self._open: dict[str, StreamResults] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._warming: asyncio.Task[None] | None = None
        events.created.subscribe(self._created)
        events.chunk_stored.subscribe(self._chunk_stored)
        events.status_changed.subscribe(self._status_changed)

    async def resume(self) -> None:
        """After a start of the server: continue the analyses that had not ended."""
        for data_id in await asyncio.to_thread(_unfinished, self._dir):
            try:
                await self.of(data_id)
            except Exception:  # its folder is damaged; the others are resumed
                log.exception("the analysis of stream %s could not be resumed", data_id)
        self._prepare_worker()

    def _prepare_worker(self) -> None:
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._warm_up(), name="atomstream analysis warm-up")

    async def _warm_up(self) -> None:
        await asyncio.sleep(WARM_UP_S)
        try:
            await self._pool.warm_up()
        except OSError:  # the stream that needs it reports it
            log.exception("a worker for the analysis could not be started")

    async def of(self, data_id: str) -> StreamResults:
        """The results of a stream; raises HttpError 404 if there is none.

        An analysis that an earlier process did not finish is resumed before anyone else gets the results. A request
        may be faster than :meth:`resume`: without this, a subscriber would receive ``end``, and a new chunk would
        start a re-analysis.
        """
        known = self._open.get(data_id)
        if known is not None:
            return known
        lock = self._opening.setdefault(checked_id(data_id), asyncio.Lock())
        async with lock:
            if data_id not in self._open:
                archive = await self._streams.archive(data_id)
                about = await self._streams.about(data_id)
                results = await StreamResults.open(archive, about, self._resources)
                await self._resume(results)
                self._open[data_id] = results
        self._opening.pop(data_id, None)
        await self._close_idle()
        return self._open[data_id]

    async def _resume(self, results: StreamResults) -> None:
        try:
            await results.resume()
        except BaseException:
            await results.close()
            raise
        if results.metadata.status in ("success", "stream_error"):
            results.end()

    async def _close_idle(self) -> None:
        idle = [
            data_id for data_id, results in self._open.items() if results.is_over and results.followers == 0
        ]
        for data_id in idle[: max(0, len(idle) - MAX_IDLE)]:
            await self._open.pop(data_id).close()

    # -- signals -------------------------------------------------------------------------

    async def _created(self, data_id: str) -> None:
        (await self.of(data_id)).begin()
        self._prepare_worker()

    async def _status_changed(self, changed: StatusChanged) -> None:
        if changed.status in ("success", "stream_error"):
            (await self.of(changed.data_id)).end()

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        claims = stored.ticket
        results = await self.of(claims.data_id)
        if stored.committed.repeated:
            return
        tap = stored.decoded
        block = tap.take() if isinstance(tap, UploadTap) else None
        results.stored(
            claims.index, DecodedChunk(block, stored.committed.stamps) if block is not None else None
        )

    @contextmanager
    def tap(self, claims: UploadClaims) -> Iterator[UploadTap]:
        """Copy the decoded frames of an upload for the analysis, if its chunk is among the next to be analysed."""
        tap = UploadTap(self._frames, self._block_for(claims), claims.dims[0])
        try:
            yield tap
        finally:
            tap.close()

    def _block_for(self, claims: UploadClaims) -> SharedBlock | None:
        results = self._open.get(claims.data_id)
        if results is None or not results.wants(claims.index):
            return None
        return self._frames.acquire(claims.dims[0] * frame_nbytes(claims.dims, claims.dtype))

    # -- the end -----------------------------------------------------------------------------------------

    def close_feeds(self) -> None:
        """End all readers of feeds: the server stops."""
        for results in self._open.values():
            results.close_feed()

    async def close(self) -> None:
        """Stop all analyses. The next start of the server continues them."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])
        for results in self._open.values():
            await results.close()
        await self._pool.close()
        await self._frames.close()
        await asyncio.to_thread(self._threads.shutdown)


def _unfinished(streams_dir: Path) -> list[str]:
    return sorted(path.parents[1].name for path in streams_dir.glob("*/analysis/running"))
