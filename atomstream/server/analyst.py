"""An analysis process of a cluster: owns partitions of the streams, and records their results for all servers.

It has no state that must be kept. Its folder is a cache of the store, and may be empty at each start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from atomstream.errors import ConfigError
from atomstream.server.archive.damage import DamageLog
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.closing import cancel_task, set_at_signals
from atomstream.server.cluster import ClusterParts, joined_cluster
from atomstream.server.data_dir import own_data_dir
from atomstream.server.disk_errors import log_failure
from atomstream.server.listening import handle_shares
from atomstream.server.live.owning_manager import OwningManager
from atomstream.server.ports.store_url import check_store, open_store
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.archives import SharedArchives
from atomstream.server.streams.cache_limit import cached_streams, shrink
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals
from atomstream.system.log_privacy import get_logger, protect_libraries

log = get_logger("atomstream.server")
SHRINK_S: Final = 60.0
"""Interval, in s, at which the size of the cache is checked."""


@dataclass(frozen=True, slots=True)
class RunningAnalyst:
    """The parts of an analysis process.

    ``work`` handles the notices. It runs until the end of the block, unless an error ends it.
    """

    results: OwningManager
    cluster: ClusterParts
    work: asyncio.Task[None]


@asynccontextmanager
async def running_analyst(settings: ServerSettings) -> AsyncIterator[RunningAnalyst]:
    """Analyse streams of the cluster for as long as the block lasts.

    ``settings`` need ``store`` and ``bus``; ``data_dir`` is a folder of this process alone. An error of the work is
    raised at the end of the block.

    Raises:
        ConfigError: the folder, the store or the bus can't be used.
    """
    protect_libraries()
    if settings.store is None or settings.bus is None:
        raise ConfigError("An analysis process needs the services of the cluster: --store URL and --bus URL.")
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(open_store, settings.store)
        stack.callback(store.close)
        await asyncio.to_thread(check_store, store)
        stack.enter_context(own_data_dir(settings.data_dir, store=store.name))
        cluster = await stack.enter_async_context(joined_cluster(settings, store))
        # Its own small catalogue: that of the cluster is not needed here, and may be unreachable.
        database = await Database.open(settings.data_dir)
        stack.push_async_callback(database.close)
        shares = handle_shares(settings)
        streams = StreamRegistry(
            settings.streams_dir,
            StreamsTable(database),
            settings.max_open_streams,
            DamageLog(),
            SharedArchives(store),
        )
        stack.push_async_callback(streams.close)
        results = OwningManager(settings, streams, ServerSignals(), shares.streams)
        results.logs = cluster.logs
        stack.push_async_callback(results.close)
        await results.resume()
        work = asyncio.create_task(
            cluster.placement.work(results.handle, results.lost), name="atomstream analysis"
        )
        stack.push_async_callback(cancel_task, work)
        shrinking = asyncio.create_task(_keep_small(streams, settings.cache_bytes), name="atomstream cache")
        stack.push_async_callback(cancel_task, shrinking)
        yield RunningAnalyst(results, cluster, work)


async def _keep_small(streams: StreamRegistry, most_bytes: int) -> None:
    """Keep the cache below its limit."""
    while True:
        await asyncio.sleep(SHRINK_S)
        try:
            await streams.refresh_shared()
            found = await asyncio.to_thread(cached_streams, streams.folder)
            await shrink(found, most_bytes, streams.uncache)
        except Exception as error:  # it is tried again
            log_failure(log, error, "the cache can't be made smaller")


async def run_analyst(
    settings: ServerSettings, on_ready: Callable[[RunningAnalyst], None] | None = None
) -> None:
    """Analyse until SIGINT or SIGTERM; ``on_ready`` is called once notices are received.

    An error that ends the work is raised. A service manager, such as systemd or Kubernetes, then restarts the process.
    """
    stop = asyncio.Event()
    with set_at_signals(stop):
        async with running_analyst(settings) as analyst:
            if on_ready is not None:
                on_ready(analyst)
            stopping = asyncio.create_task(stop.wait(), name="atomstream stop")
            await asyncio.wait({stopping, analyst.work}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if not stop.is_set():
                log.error("the analysis has ended by an error; this process ends, and others continue")
                return
            log.info("stopping: other analysis processes continue with the streams of this one")
