"""One analyser in a worker, as the server sees it: what it is given, in words that a pipe takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from atomstream.results import Plain, packed
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.records import ChunkTimes
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.shared_frames import SharedBlock, SharedFrames
from atomstream.server.live.worker_pool import JobFailedError, WorkerPool, WorkerProcess
from atomstream.server.streams.ingest import run_in

Take: TypeAlias = Callable[[Plain], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AnalysisResources:
    """What all streams share: workers, frames in shared memory, threads for the disk, and the wait for a gap (s)."""

    pool: WorkerPool
    frames: SharedFrames
    threads: ThreadPoolExecutor
    gap_wait_s: float


@dataclass(frozen=True, slots=True)
class DecodedChunk:
    """What the ingest knows of a chunk that it has just stored: its frames, decoded, and its stamps."""

    block: SharedBlock
    stamps: ChunkTimes


class AnalyzerClient:
    """An analyser of one stream under a key of its own. One job at a time.

    Every method raises WorkerDiedError where the worker died, after which only :meth:`open` helps; and
    JobFailedError, of kind "analysis" with the same consequence.
    """

    def __init__(self, key: str, archive: StreamArchive, means: AnalysisResources) -> None:
        self._key = key
        self._archive = archive
        self._means = means
        self._worker: WorkerProcess = means.pool.give()
        self._life = -1

    async def open(self, about: StreamMetadata, calibration: Plain, state: bytes | None = None) -> None:
        """Have it begin, or go on from ``state``."""
        told = {
            "fps": about.fps,
            "rpm": about.rotations_per_min,
            "chunk_size": about.geometry.chunk_size if about.geometry else 0,
            "calibration": calibration,
            "state": state,
        }
        await self._worker.do({"job": "open", "key": self._key, "about": told})
        self._life = self._worker.life

    async def tell(self, words: list[Plain]) -> None:
        """Pass on what the user said; events wait for their time."""
        if words:
            await self._do({"job": "tell", "words": words})

    async def chunk(
        self, index: int, given: DecodedChunk | None, take: Take, *, state: bool = False
    ) -> Plain | None:
        """Analyse a stored chunk; returns a snapshot where ``state`` asks for one.

        Raises:
            JobFailedError: also of kind "shard": the chunk can't be read.
        """
        job = await self._describe(index, given)
        return (await self._do({"job": "chunk", "state": state, **job}, take)).get("snapshot")

    async def late(self, index: int, take: Take) -> None:
        """Measure a chunk whose turn is over; raises as :meth:`chunk`."""
        await self._do({"job": "late", **await self._describe(index, None)}, take)

    async def skip(self, next_index: int) -> None:
        """Pass all frames before chunk ``next_index`` that were not given."""
        geometry = self._archive.geometry
        if geometry is not None:
            await self._do({"job": "gap", "until": next_index * geometry.chunk_size})

    async def finish(self, take: Take) -> None:
        """Have it close what is open."""
        await self._do({"job": "finish"}, take)

    async def close(self) -> None:
        """Let it go."""
        self._means.pool.give_back(self._worker)
        if self._life == self._worker.life:
            await self._worker.do({"job": "close", "key": self._key}, self._life)

    async def _do(self, job: Plain, take: Take | None = None) -> Plain:
        return await self._worker.do({"key": self._key, **job}, self._life, take)

    async def _stamps(self, index: int) -> ChunkTimes | None:
        try:
            return await run_in(self._means.threads, self._archive.stamps, index)
        except (ValueError, OSError) as error:
            raise JobFailedError("shard", str(error)) from error

    async def _describe(self, index: int, given: DecodedChunk | None) -> Plain:
        """What a worker has to know of a chunk."""
        stamps = given.stamps if given else await self._stamps(index)
        geometry, origin = self._archive.geometry, self._archive.origin_unix_ms
        if geometry is None or stamps is None or origin is None:
            raise JobFailedError("shard", "it is not in the archive")
        return {
            "start": index * geometry.chunk_size,
            "times": packed((stamps.times_unix_ms() - origin) / 1000.0, "<f8"),
            "dims": list(stamps.dims),
            "dtype": geometry.dtype,
            "slots": geometry.chunk_size,
            "path": str(self._archive.shard_file(index)),
            "map": str(given.block.path) if given else None,
        }
