"""The process that analyses streams, driven by notices: deletions, and what the store has after the end (issue 18)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atomstream.index_ranges import IndexSet
from atomstream.server.archive.damage import DamageLog
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.live.owning_manager import OwningManager
from atomstream.server.ports.placement import Notice
from atomstream.server.ports.stream_log import BusUnavailableError
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.archives import SharedArchives
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals
from tests.live_helpers import growth
from tests.live_server import Serve
from tests.server.live.cluster_parts import ID, ClusterParts, cluster_parts
from tests.wire_client import WireClient

DELETED = Notice(data_id=ID, kind="deleted")


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[ClusterParts]:
    async with cluster_parts(tmp_path) as opened:
        yield opened


@pytest.fixture
async def analyst(made: ClusterParts) -> AsyncIterator[OwningManager]:
    """A process that analyses the stream."""
    settings = ServerSettings(made.folder / "analyst", gap_wait_s=30.0)
    settings.streams_dir.mkdir(parents=True)
    database = await Database.open(settings.data_dir)
    archives = SharedArchives(made.store)
    streams = StreamRegistry(settings.streams_dir, StreamsTable(database), 64, DamageLog(), archives)
    manager = OwningManager(settings, streams, ServerSignals(), 64)
    manager.logs = made.logs
    yield manager
    await manager.close()
    await streams.close()
    await database.close()


def _chunk(index: int) -> Notice:
    return Notice(data_id=ID, kind="chunk", index=index)


async def _nothing_is_left(made: ClusterParts, analyst: OwningManager) -> None:
    assert list(made.store.keys("")) == []
    assert await made.results_log.last(ID) is None
    assert not analyst._open
    streams = made.folder / "analyst" / "streams"
    assert not [path for path in streams.rglob("*") if path.is_file()]


async def test_a_list_of_lost_chunks_after_the_end_is_copied(
    made: ClusterParts, analyst: OwningManager
) -> None:
    """The client ends the stream once more: the arrays in the store name the chunks that it has lost."""
    end = Notice(data_id=ID, kind="end")
    await made.send(growth(), 0)
    for lost in ("", "3"):
        await asyncio.to_thread(made.server.mark_lost, IndexSet.parse(lost, max_index=9))
        await asyncio.to_thread(lambda: made.server.update_about(status="success"))
        await analyst.handle(end)
        group = json.loads(made.store.fetch(f"streams/{ID}/frames.zarr/zarr.json"))
        assert group["attributes"]["lost_chunks"] == lost
        assert group["attributes"]["status"] == "success"


async def test_notices_that_wait_do_not_bring_it_back(made: ClusterParts, analyst: OwningManager) -> None:
    """The owner has it open; chunks, the end and a second notice of the deletion come after it."""
    await made.send(growth(), 0, 1)
    await analyst.handle(_chunk(0))
    await made.send(growth(), 2)
    await asyncio.to_thread(made.server.delete, made.folder / "server" / ".deleted" / ID)
    await analyst.handle(DELETED)
    late = (_chunk(1), _chunk(2), Notice(data_id=ID, kind="inputs"), Notice(data_id=ID, kind="end"), DELETED)
    for notice in late:
        await analyst.handle(notice)
        await _nothing_is_left(made, analyst)


async def test_what_was_written_during_the_deletion_is_removed(
    made: ClusterParts, analyst: OwningManager
) -> None:
    """Another server has stored a chunk, and the owner a snapshot, after the first server had listed the objects."""
    await made.send(growth(), 0)
    await analyst.handle(_chunk(0))
    await asyncio.to_thread(made.server.delete, made.folder / "server" / ".deleted" / ID)
    for name in ("frames.zarr/frames/c/7/0/0", "analysis/state"):
        made.store.put(f"streams/{ID}/{name}", b"late")
    await analyst.handle(DELETED)
    await _nothing_is_left(made, analyst)


async def test_an_owner_that_never_had_it_open_removes_it_too(
    made: ClusterParts, analyst: OwningManager
) -> None:
    """The first owner was killed: the next one gets the notice of the deletion, and removes objects that the first one
    left in the store."""
    made.server.shared.delete()
    made.store.put(f"streams/{ID}/frames.zarr/frames/c/7/0/0", b"late")
    await analyst.handle(DELETED)
    await _nothing_is_left(made, analyst)


async def test_an_earlier_owner_does_not_begin_it_again(made: ClusterParts, analyst: OwningManager) -> None:
    """It lost the partition, and so has no notice of the deletion; its archive is still open when it gets a chunk's."""
    await made.send(growth(), 0)
    await analyst.handle(_chunk(0))
    await analyst._drop(ID)
    await made.send(growth(), 1)
    await asyncio.to_thread(analyst._streams.shared()[ID].follow)
    await asyncio.to_thread(analyst._streams.shared()[ID].local_shard, 1)
    await asyncio.to_thread(made.server.delete, made.folder / "server" / ".deleted" / ID)
    await made.results_log.delete(ID)
    await analyst.handle(_chunk(1))
    await analyst.handle(Notice(data_id=ID, kind="end"))
    assert list(made.store.keys("")) == []
    assert await made.results_log.last(ID) is None
    assert not analyst._open


class _FailsOnce:
    """A placement whose bus is unreachable at the first notice."""

    def __init__(self) -> None:
        self.tried = 0
        self.notices: list[Notice] = []

    async def announce(self, notice: Notice) -> None:
        self.tried += 1
        if self.tried == 1:
            raise BusUnavailableError("no answer")
        self.notices.append(notice)


async def test_a_deletion_is_announced_by_the_next_attempt(tmp_path: Path, serve: Serve) -> None:
    """The bus was unreachable when a stream was deleted: the client sends the request again, and the owner is
    notified.
    """
    server = await serve(store=str(tmp_path / "store"))
    placement = _FailsOnce()
    async with WireClient(server) as client:
        data_id = await client.create()
        object.__setattr__(server.context, "announcer", placement)
        assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 503
        assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 410
    assert placement.notices == [Notice(data_id=data_id, kind="deleted")]


async def test_a_stream_whose_frames_are_removed_is_not_analysed_again(
    made: ClusterParts, analyst: OwningManager
) -> None:
    """A server has noted that it removes frames, just before the request arrives here: results and files stay."""
    await made.send(growth(), 0)
    await asyncio.to_thread(lambda: made.server.update_about(status="success"))
    await analyst.handle(Notice(data_id=ID, kind="end"))
    results = await analyst.of(ID)
    before = results.seq
    thinning = {"every": 5, "around_s": 0.0, "since": "2026-01-01T00:00:00Z"}
    await asyncio.to_thread(lambda: made.server.update_about(thinning=thinning))
    await analyst.handle(Notice(data_id=ID, kind="reanalyse"))
    async with asyncio.timeout(60):
        while not results.is_over:
            await results.changed.wait()
    assert results.seq == before
    assert list(made.store.keys(f"streams/{ID}/analysis/running")) == []
