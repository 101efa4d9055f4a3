"""The results of the streams that this process of a cluster analyses, driven by notices."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.responses import HttpError
from atomstream.server.live.manager import ResultsManager
from atomstream.server.live.owned_results import OwnedResults
from atomstream.server.live.replica import SharedLogs
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.ports.placement import Notice, partition_of
from atomstream.server.ports.stream_log import OutdatedWriterError
from atomstream.server.streams.cache_limit import remove_folder
from atomstream.server.streams.registry import DELETED
from atomstream.server.streams.signals import ChunkStored, StatusChanged
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
_ENDING: Final = frozenset({*ENDED_STATUSES, "stream_finalizing"})
"""Statuses of a stream whose client has sent everything; a late or repeated chunk sets the last one for a moment."""


class OwningManager(ResultsManager):
    """Analyses the streams of the partitions that :class:`~.Placement` gives to this process.

    The arguments are those of :class:`ResultsManager`; :attr:`logs` is set before the first use. A notice is done when
    what it is about is recorded in the shared log. A notice only starts the work: each time, all new chunks in the
    store are read.
    """

    logs: SharedLogs

    async def _make_results(self, archive: StreamArchive, about: StreamMetadata) -> StreamResults:
        assert isinstance(archive, CachedArchive), "a cluster has a store"
        # The archive may be open since an earlier ownership, and its stream deleted meanwhile.
        await asyncio.to_thread(archive.refresh_about)
        await asyncio.to_thread(archive.follow, all_chunks=True)
        return await OwnedResults.open_owned(archive, about, self._resources, self.logs)

    async def resume(self) -> None:
        """Nothing before the first notice."""
        self._prepare_worker()

    async def handle(self, notice: Notice) -> None:
        """Carry out a notice; returns when its effect is recorded.

        Raises:
            OutdatedWriterError: another process analyses the stream by now.
        """
        try:
            await self._handle(notice)
        except HttpError as error:
            if error.status not in (404, 410):
                raise
            log.info("stream %s: a notice is left out: %s", notice.data_id, error)
        except ArchiveDeletedError:
            self._streams.deleted.add(notice.data_id)  # so that no later notice opens it again
            await self.remove(notice.data_id)
        except OutdatedWriterError:
            await self._drop(notice.data_id)
            raise

    async def _handle(self, notice: Notice) -> None:
        if notice.kind == "deleted":
            await self._delete(notice.data_id)
            return
        results = await self.of(notice.data_id)
        assert isinstance(results, OwnedResults)
        if notice.kind == "chunk":
            await self._follow(notice, results)
            await results.analysed(notice.index)
        elif notice.kind == "end":
            await self._follow(notice, results)
            await results.ended()
            await results.copy_rest()
        elif notice.kind == "inputs":
            await results.catch_up_inputs()
        else:
            results.reanalyse()

    async def _delete(self, data_id: str) -> None:
        """Remove all that this process has of a stream, and has written into the store since the deletion began."""
        archive = self._streams.shared().get(data_id)
        self._streams.deleted.add(data_id)  # so that no notice that waits opens it again
        await self.remove(data_id)  # from here on nothing is written
        moved = self._streams.folder / DELETED / data_id
        await asyncio.to_thread(remove_folder, moved)  # of an earlier attempt
        if archive is None:
            await self._streams.delete_stored(data_id)
        await self._streams.delete(data_id, archive)
        await asyncio.to_thread(remove_folder, moved)
        await self.logs.results.delete(data_id)
        await self.logs.inputs.delete(data_id)

    async def _follow(self, notice: Notice, results: OwnedResults) -> None:
        """Analyse all chunks that were stored since."""
        archive = await self._streams.archive(notice.data_id)
        if not isinstance(archive, CachedArchive):
            return
        known = notice.kind == "chunk" and notice.index in archive.stored()
        if not known:
            # Of a chunk's notice only those up to it: each later one has its own.
            last = notice.index if notice.kind == "chunk" else MAX_CHUNK_INDEX
            await asyncio.to_thread(archive.follow, all_chunks=notice.kind == "end", last=last)
            if notice.kind == "chunk" and notice.index not in archive.stored():
                # It does not follow the last known one.
                await asyncio.to_thread(archive.follow, all_chunks=True)
        results.analyse_stored()
        if notice.kind == "end":
            await asyncio.to_thread(archive.refresh_about)
            if (await self._streams.about(notice.data_id)).status in _ENDING:
                results.end()

    async def lost(self, partition: int) -> None:
        """Another process owns the partition: close its streams."""
        for data_id in [data_id for data_id in self._open if partition_of(data_id) == partition]:
            await self._drop(data_id)

    async def _drop(self, data_id: str) -> None:
        async with self._locks.hold(data_id):
            results = self._open.pop(data_id, None)
            self._used_at.pop(data_id, None)
            if results is not None:
                try:
                    await results.park()
                except Exception as error:
                    log_failure(log, error, "the analysis of stream %s could not be closed", data_id)

    # -- signals within this process: there are none -----------------------------------------------------

    async def _created(self, _data_id: str) -> None:
        """Streams are created elsewhere."""

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        """Chunks are stored elsewhere."""

    async def _status_changed(self, changed: StatusChanged) -> None:
        """Statuses are changed elsewhere."""

    def _is_unused(
        self, data_id: str, results: StreamResults, idle_s: float, *, even_read: bool = False
    ) -> bool:
        outdated = isinstance(results, OwnedResults) and results.outdated.is_set()
        return outdated or super()._is_unused(data_id, results, idle_s, even_read=even_read)

    async def of(self, data_id: str) -> Any:
        """The results of a stream; those that another process has taken over are opened again. Raises as in the base
        class."""
        results = await self._of(data_id, self._most_open, even_read=False)
        if isinstance(results, OwnedResults) and results.outdated.is_set():
            await self._drop(data_id)
            results = await self._of(data_id, self._most_open, even_read=False)
        return results
