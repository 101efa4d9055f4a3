"""The ends of streams reach the process that analyses them, also between failures and late chunks (issue 18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from atomstream.server.archive.metadata import Status
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.live.manager import ResultsManager
from atomstream.server.live.owning_manager import OwningManager
from atomstream.server.live.replica_manager import ReplicaManager
from atomstream.server.ports.placement import Notice
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.archives import SharedArchives
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals, StatusChanged
from tests.live_helpers import growth
from tests.server.live.cluster_parts import ID, ClusterParts, cluster_parts

M = TypeVar("M", bound=ResultsManager)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[ClusterParts]:
    async with cluster_parts(tmp_path) as opened:
        yield opened


@asynccontextmanager
async def managing(made: ClusterParts, kind: type[M], signals: ServerSignals) -> AsyncIterator[M]:
    """A manager as in a separate process, over the store of ``made``."""
    settings = ServerSettings(data_dir=made.folder / "managed", analysis_workers=1)
    settings.streams_dir.mkdir(parents=True)
    async with AsyncExitStack() as stack:
        database = await Database.open(settings.data_dir)
        stack.push_async_callback(database.close)
        streams = StreamRegistry(
            settings.streams_dir, StreamsTable(database), archives=SharedArchives(made.store)
        )
        stack.push_async_callback(streams.close)
        manager = kind(settings, streams, signals)
        stack.push_async_callback(manager.close)
        yield manager


async def test_a_late_chunk_does_not_undo_the_end(made: ClusterParts) -> None:
    """The notice of the end comes while a late chunk has put the status back: the analysis ends nevertheless."""
    await made.send(growth(), 0, 1)
    async with managing(made, OwningManager, ServerSignals()) as manager:
        manager.logs = made.logs
        await manager.handle(Notice(data_id=ID, kind="chunk", index=1))
        await asyncio.to_thread(made.server.update_about, status="stream_finalizing")
        await manager.handle(Notice(data_id=ID, kind="end"))
        assert (await manager.of(ID)).state == "ended"


@pytest.mark.parametrize("status", ["success", "stream_error"])
async def test_an_end_is_announced_once_the_bus_is_there(
    made: ClusterParts, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    """A stream without data for long, or one that was finished later: the bus was unreachable just then."""
    monkeypatch.setattr("atomstream.server.live.replicated_results.RETRY_S", 0.0)
    tries: asyncio.Queue[Notice] = asyncio.Queue()

    async def announce(notice: Notice) -> None:
        tries.put_nowait(notice)
        if tries.qsize() < 3:
            raise BusUnavailableError("The message bus (NATS) does not answer.")

    signals = ServerSignals()
    async with managing(made, ReplicaManager, signals) as manager:
        manager.logs, manager.announce = made.logs, announce
        await signals.status_changed.send(StatusChanged(ID, status))
        async with asyncio.timeout(60):
            while tries.qsize() < 3:
                await asyncio.sleep(0)
    assert {tries.get_nowait() for _ in range(3)} == {Notice(data_id=ID, kind="end")}
