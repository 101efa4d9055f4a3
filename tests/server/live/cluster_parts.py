"""One stream of a cluster in a test process: a store, shared logs, a server, and processes that analyse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import StreamMetadata, read_about, write_about
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.live.analyzer_client import AnalysisResources
from atomstream.server.live.messages import BatchMessage, NumberedMessage
from atomstream.server.live.owned_results import OwnedResults
from atomstream.server.live.replica import Objects, SharedLogs
from atomstream.server.live.replicated_results import ReplicatedResults
from atomstream.server.live.shared_frames import SharedFrames
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.live.worker_pool import WorkerPool
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.local_stream_log import LocalStreamLog
from atomstream.server.ports.placement import Notice
from tests.live_helpers import CHUNK, FPS, Frames
from tests.server.archive.archive_helpers import body_of, claims_of, commit_body
from tests.worker_template import use_template

ID = "0f6d1a52-5c0f-4d0e-9a39-6c1b4d0c7e11"
ABOUT = StreamMetadata(ID, "Growth 1", FPS, 0.0, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z")


class FolderObjects:
    """The objects of the stream in a store."""

    def __init__(self, store: LocalStore) -> None:
        from atomstream.server.cluster import StreamObjects

        self._objects: Objects = StreamObjects(store, ID)

    def __call__(self, _data_id: str) -> Objects:
        return self._objects


class ClusterParts:
    """The parts of a small cluster with one stream; made by :func:`cluster_parts`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "store")
        self.results_log = LocalStreamLog(folder / "results")
        self.inputs_log = LocalStreamLog(folder / "inputs")
        self.logs = SharedLogs(self.results_log, self.inputs_log, FolderObjects(self.store))
        self.notices: list[Notice] = []
        self.threads = ThreadPoolExecutor(2)
        self.pools: list[WorkerPool] = []
        self.frames = SharedFrames(0)
        self.server = CachedArchive.create_shared(
            folder / "server" / ID, write_about(ABOUT), SharedStream(self.store, ID)
        )
        self.opened: list[StreamResults] = []

    def resources(self) -> AnalysisResources:
        self.pools.append(WorkerPool(1, 0))
        return AnalysisResources(
            self.pools[-1], self.frames, self.threads, 30.0, self.threads, lambda _delay: None
        )

    async def _announce(self, notice: Notice) -> None:
        self.notices.append(notice)

    async def send(self, frames: Frames, *indices: int) -> None:
        """Store chunks of ``frames`` on the server."""
        for index in indices:
            part = frames[index * CHUNK : (index + 1) * CHUNK]
            start = 1_735_689_600_000.0 + index * CHUNK * 1000 / FPS
            claims = claims_of(
                index,
                part,
                CHUNK,
                data_id=ID,
                fps=FPS,
                start_unix_ms=start,
                end_unix_ms=start + len(part) * 1000 / FPS,
            )
            await asyncio.to_thread(commit_body, self.server, claims, body_of(part))

    def archive(self, name: str) -> CachedArchive:
        """The archive as the process ``name`` has it, in a separate folder."""
        return CachedArchive.open_shared(self.folder / name / ID, SharedStream(self.store, ID))

    async def owner(self, name: str) -> OwnedResults:
        """The results in the process ``name``, which analyses all chunks that are stored now."""
        archive = await asyncio.to_thread(self.archive, name)
        about = read_about(archive.description)
        results = await OwnedResults.open_owned(archive, about, self.resources(), self.logs)
        self.opened.append(results)
        await results.resume()
        return results

    async def replica(self, name: str) -> ReplicatedResults:
        """The results on the server ``name``, which follows."""
        archive = await asyncio.to_thread(self.archive, name)
        about = read_about(archive.description)
        results = await ReplicatedResults.open_replica(
            archive, about, self.resources(), self.logs, self._announce
        )
        self.opened.append(results)
        await results.resume()
        return results

    async def analyse(self, owner: OwnedResults, *indices: int) -> None:
        """Let an owner analyse further chunks; returns when they are recorded."""
        await asyncio.to_thread(owner._archive.follow)
        owner.analyse_stored()
        for index in indices:
            await owner.analysed(index)

    async def close(self, results: StreamResults) -> None:
        self.opened.remove(results)
        await results.park()


@asynccontextmanager
async def cluster_parts(folder: Path) -> AsyncIterator[ClusterParts]:
    use_template()
    made = ClusterParts(folder)
    try:
        yield made
    finally:
        for results in tuple(made.opened):
            await made.close(results)
        for pool in made.pools:
            await pool.close()
        await made.frames.close()
        for log in (made.results_log, made.inputs_log):
            await log.close()
        await asyncio.to_thread(made.threads.shutdown)


async def until(results: StreamResults, seq: int) -> None:
    """Wait until the results have the record of that number."""
    async with asyncio.timeout(60):
        while results.seq < seq:
            changed = results.changed
            if results.seq < seq:
                await changed.wait()


async def until_over(results: StreamResults) -> None:
    """Wait until the analysis has ended."""
    async with asyncio.timeout(60):
        while not results.is_over:
            changed = results.changed
            if not results.is_over:
                await changed.wait()


async def records(results: StreamResults) -> list[NumberedMessage]:
    """All records as the disk has them, with their columns."""
    return [results._store.message(seq) for seq in range(1, results.seq + 1)]


def plain(messages: list[NumberedMessage]) -> list[Any]:
    """The batches without what depends on the clock and on the process."""
    found = []
    for message in messages:
        if isinstance(message, BatchMessage):
            kept: dict[str, Any] = msgspec.to_builtins(message)
            found.append(
                {
                    name: value
                    for name, value in kept.items()
                    if name not in ("made_unix_ms", "stored_unix_ms", "seq")
                }
            )
    return found
