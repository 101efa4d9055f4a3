"""The results of streams as one process makes them that nobody disturbs, from the same stored chunks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from atomstream.server.archive.damage import DamageLog
from atomstream.server.archive.shared_stream import STREAMS
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.cluster import StreamObjects
from atomstream.server.live.owning_manager import OwningManager
from atomstream.server.live.replica import SharedLogs
from atomstream.server.live.shared_records import SharedEntry, decoded
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.local_stream_log import LocalStreamLog
from atomstream.server.ports.placement import Notice
from atomstream.server.ports.store import Store
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.archives import SharedArchives
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals
from tests.worker_template import use_template


async def undisturbed(store: Store, data_ids: Sequence[str], folder: Path) -> dict[str, list[SharedEntry]]:
    """The entries of the results of ended streams, by id. Their chunks are copied from ``store`` to ``folder``."""
    use_template()
    copy = LocalStore(folder / "store")
    await asyncio.to_thread(_copy, store, copy, data_ids)
    results_log, inputs_log = LocalStreamLog(folder / "results"), LocalStreamLog(folder / "inputs")
    logs = SharedLogs(results_log, inputs_log, lambda data_id: StreamObjects(copy, data_id))
    settings = ServerSettings(folder / "cache", gap_wait_s=30.0, analysis_workers=1)
    settings.streams_dir.mkdir(parents=True)
    database = await Database.open(settings.data_dir)
    streams = StreamRegistry(
        settings.streams_dir, StreamsTable(database), 64, DamageLog(), SharedArchives(copy)
    )
    manager = OwningManager(settings, streams, ServerSignals(), 64)
    manager.logs = logs
    try:
        for data_id in data_ids:
            await manager.handle(Notice(data_id=data_id, kind="end"))
        return {
            data_id: [decoded(entry.payload) for entry in await results_log.read(data_id, 0, 1 << 20)]
            for data_id in data_ids
        }
    finally:
        await manager.close()
        await streams.close()
        await database.close()
        for log in (results_log, inputs_log):
            await log.close()


def _copy(store: Store, copy: Store, data_ids: Sequence[str]) -> None:
    for data_id in data_ids:
        for key in store.keys(f"{STREAMS}/{data_id}"):
            if key.endswith("/stream.json") or "/frames.zarr/frames/c" in key or "/incomplete/" in key:
                copy.put(key, store.fetch(key))
