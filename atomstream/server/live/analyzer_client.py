"""Client of one analyzer in a worker process: describes jobs as messages for the pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from atomstream.errors import ShardError
from atomstream.results import packed
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.records import ChunkTimes
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.annotation_records import AnalyzerEntry, CalibrationRecord
from atomstream.server.live.messages import AnalyzerBatch
from atomstream.server.live.shared_frames import SharedBlock, SharedFrames
from atomstream.server.live.worker_messages import (
    AnalyzerState,
    AnnotateJob,
    AnyJob,
    ChunkFrames,
    ChunkJob,
    CloseJob,
    DoneReply,
    FinishJob,
    GapJob,
    LateJob,
    OpenJob,
    StreamSettings,
)
from atomstream.server.live.worker_pool import JobFailedError, WorkerPool, WorkerProcess
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.streams.ingest import run_in
from atomstream.system.log_privacy import get_logger
from atomstream.system.tracing import OpenSpans

log = get_logger("atomstream.server")
STORE_PAUSE_S: Final = 0.5

OnBatch: TypeAlias = Callable[[AnalyzerBatch], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AnalysisResources:
    """Resources of all streams: workers, shared memory, threads, and the wait for a missing chunk (s).

    ``threads`` write results; ``readers`` read them for subscribers that are behind, who must not delay the writing.
    """

    pool: WorkerPool
    frames: SharedFrames
    threads: ThreadPoolExecutor
    gap_wait_s: float
    readers: ThreadPoolExecutor
    note_delay: Callable[[float], None] = lambda _delay_s: None
    """Called with the seconds from the storing of a chunk until its last results were published."""
    spans: OpenSpans = field(default_factory=lambda: OpenSpans("atomstream.analyse"))
    """Open tracing spans by stream and index, each from the storing of a chunk until its last results were
    published."""


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """The decoded frames of a chunk that was just stored, and their times. The owner releases ``block``."""

    block: SharedBlock
    stamps: ChunkTimes


class AnalyzerClient:
    """The analyzer of one stream, which a worker holds under ``key``. One job at a time.

    Every method raises WorkerDiedError if the worker died, and JobFailedError of kind "analysis" if the analysis
    failed. After both, call :meth:`open` again.
    """

    def __init__(self, key: str, archive: StreamArchive, resources: AnalysisResources) -> None:
        self._key = key
        self._archive = archive
        self._resources = resources
        self._worker: WorkerProcess = resources.pool.acquire()
        self._life = -1

    async def open(
        self, about: StreamMetadata, calibration: CalibrationRecord, state: bytes | None = None
    ) -> None:
        """Start the analyzer, from ``state`` if given."""
        chunk_size = about.geometry.chunk_size if about.geometry else 0
        settings = StreamSettings(about.fps, about.rotations_per_min, chunk_size, calibration, state)
        await self._worker.do(OpenJob(self._key, settings))
        self._life = self._worker.life

    async def annotate(self, entries: Sequence[AnalyzerEntry]) -> None:
        """Send entries of the user. Events take effect at their time."""
        if entries:
            await self._do(AnnotateJob(self._key, list(entries)))

    async def chunk(
        self, index: int, decoded: DecodedChunk | None, on_batch: OnBatch, *, state: bool = False
    ) -> AnalyzerState | None:
        """Analyse a stored chunk; returns the analyzer's state after it if ``state`` is set.

        Raises:
            JobFailedError: also of kind "shard": the chunk can't be read.
        """
        job = ChunkJob(self._key, await self._frames(index, decoded), state)
        return (await self._do(job, on_batch)).state

    async def late(self, index: int, on_batch: OnBatch) -> None:
        """Measure the frames of a late chunk, without fits; raises as :meth:`chunk`."""
        await self._do(LateJob(self._key, await self._frames(index, None)), on_batch)

    async def skip(self, next_index: int) -> None:
        """Skip the frames before chunk ``next_index`` that were not sent."""
        geometry = self._archive.geometry
        if geometry is not None:
            await self._do(GapJob(self._key, next_index * geometry.chunk_size))

    async def finish(self, on_batch: OnBatch) -> None:
        """End the analysis: the last fits and segments."""
        await self._do(FinishJob(self._key), on_batch)

    async def close(self) -> None:
        """Release the worker."""
        self._resources.pool.release(self._worker)
        if self._life == self._worker.life:
            await self._worker.do(CloseJob(self._key), self._life)

    async def _do(self, job: AnyJob, on_batch: OnBatch | None = None) -> DoneReply:
        return await self._worker.do(job, self._life, on_batch)

    async def _stamps(self, index: int) -> ChunkTimes | None:
        try:
            return await run_in(self._resources.threads, self._archive.stamps, index)
        except StoreUnavailableError as error:
            raise OSError(str(error)) from error
        except (ShardError, OSError) as error:
            raise JobFailedError("shard", str(error)) from error

    async def _shard(self, index: int) -> Path:
        """The file of a stored chunk; fetched if the folder is a cache. Waits while the store can't be reached."""
        if not self._archive.is_cache:
            return self._archive.shard_file(index)
        while True:
            try:
                return await run_in(self._resources.threads, self._archive.local_shard, index)
            except (ShardError, OSError) as error:
                raise JobFailedError("shard", str(error)) from error
            except StoreUnavailableError as error:
                log.warning("chunk %d of %s can't be fetched now: %s", index, self._key, error)
                await asyncio.sleep(STORE_PAUSE_S)

    async def _frames(self, index: int, decoded: DecodedChunk | None) -> ChunkFrames:
        """Where the frames of a chunk are."""
        path = self._archive.shard_file(index) if decoded else await self._shard(index)
        stamps = decoded.stamps if decoded else await self._stamps(index)
        geometry, origin = self._archive.geometry, self._archive.origin_unix_ms
        if geometry is None or stamps is None or origin is None:
            raise JobFailedError("shard", "it is not in the archive")
        return ChunkFrames(
            start=index * geometry.chunk_size,
            times=packed((stamps.times_unix_ms() - origin) / 1000.0, "<f8"),
            dims=stamps.dims,
            dtype=geometry.dtype,
            slots=geometry.chunk_size,
            path=str(path),
            map=str(decoded.block.path) if decoded else None,
            ids=b"" if stamps.meta.ids is None else packed(stamps.meta.ids, "<i8"),
        )
