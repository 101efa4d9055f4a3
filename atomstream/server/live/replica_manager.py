"""The results of all streams on a server of a cluster, which does not analyse."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.live.manager import ResultsManager
from atomstream.server.live.replica import SharedLogs
from atomstream.server.live.replicated_results import Announce, ReplicatedResults, announce_again
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.ports.placement import Notice
from atomstream.server.streams.signals import ChunkStored, Followed, StatusChanged


class ReplicaManager(ResultsManager):
    """Opens the results of a stream when a request needs them, and follows the shared logs while they are open.

    The arguments are those of :class:`ResultsManager`; :attr:`logs` and :attr:`announce` are set before the first use.
    """

    logs: SharedLogs
    announce: Announce

    async def _make_results(self, archive: StreamArchive, about: StreamMetadata) -> StreamResults:
        assert isinstance(archive, CachedArchive), "a cluster has a store"
        return await ReplicatedResults.open_replica(archive, about, self._resources, self.logs, self.announce)

    async def resume(self) -> None:
        """Nothing is analysed here, so nothing is continued."""

    def noticed(self, notice: Notice) -> None:
        """A server of the cluster has announced that a stream has changed."""
        results = self._open.get(notice.data_id)
        if not isinstance(results, ReplicatedResults):
            return
        if notice.kind == "chunk" and results.has_chunk(notice.index):  # it was stored here, as most are
            results.notice_change()
        elif notice.kind in ("chunk", "end"):
            self._start(results.refresh(), f"new chunks of {notice.data_id}")

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._tasks: set[asyncio.Task[None]] = set()

    async def _created(self, _data_id: str) -> None:
        """No worker is needed."""

    async def _followed(self, followed: Followed) -> None:
        results = self._open.get(followed.data_id)
        if isinstance(results, ReplicatedResults):
            results.notice_change()

    async def _status_changed(self, changed: StatusChanged) -> None:
        # An end by a client has its own notice. This one is for an end by timeout, for late chunks, and for streams
        # of a server that has stopped.
        if changed.status in ENDED_STATUSES:
            notice = Notice(data_id=changed.data_id, kind="end")
            self._start(announce_again(self.announce, notice), f"end of {changed.data_id}")
        results = self._open.get(changed.data_id)
        if isinstance(results, ReplicatedResults):
            results.notice_change()

    async def _chunk_stored(self, stored: ChunkStored) -> None:
        results = self._open.get(stored.ticket.data_id)
        if isinstance(results, ReplicatedResults):
            results.notice_change()

    async def close(self) -> None:
        """Close all results."""
        for task in self._tasks:
            task.cancel()
        await super().close()
