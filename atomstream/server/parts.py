"""Opens the parts of a server: catalogue, store, documents, streams, results, signals, retention."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from atomstream.errors import ConfigError
from atomstream.server.alarms.watch import AlarmWatch
from atomstream.server.alarms.webhooks import Webhooks
from atomstream.server.archive.damage import DamageLog
from atomstream.server.catalogue.opening import open_catalogue
from atomstream.server.catalogue.reindex import NameIndex, Unread, catch_up, catch_up_later
from atomstream.server.catalogue_errors import CatalogueBusyError, CatalogueUnavailableError
from atomstream.server.closing import at_the_end, cancel_task
from atomstream.server.context import ServerContext
from atomstream.server.data_dir import set_aside_foreign
from atomstream.server.disk_errors import DiskState
from atomstream.server.documents import Documents, FolderDocuments
from atomstream.server.http.certificate import ServerCertificate
from atomstream.server.http.measurements import Measurements
from atomstream.server.http.read_pools import ReadPools
from atomstream.server.http.upload_urls import SECRET_FILE, UrlSigner, shared_secret
from atomstream.server.listening import handle_shares
from atomstream.server.live.manager import ResultsManager
from atomstream.server.retention.facts import FolderFacts
from atomstream.server.retention.report import FolderRecord
from atomstream.server.retention.retention import Retention
from atomstream.server.retention_rules import RetentionSettings
from atomstream.server.settings import ServerSettings
from atomstream.server.signals.beside_frames import BesideFrames
from atomstream.server.signals.registry import SignalRegistry
from atomstream.server.streams.archives import SharedArchives
from atomstream.server.streams.deletion import Deletion, read_deletions
from atomstream.server.streams.ingest import Ingest
from atomstream.server.streams.lifecycle import Lifecycle
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals
from atomstream.system.files import load_or_make_secret
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    from atomstream.server.ports.deferred_announcer import DeferredAnnouncer
    from atomstream.server.ports.store import Store
    from atomstream.server.postgres.postgres import Postgres

log = get_logger("atomstream.server")

READ_AT_START = 64
"""Streams whose files are read before the server listens, if they may differ from the catalogue; others follow then."""


async def open_postgres(
    settings: ServerSettings, stack: AsyncExitStack, store: Store | None
) -> Postgres | None:
    """The connections to the catalogue that servers share, with its tables; None without one.

    Raises:
        ConfigError: it can't be reached or used, or ``store`` belongs to another cluster; nothing was changed.
    """
    if settings.catalogue is None:
        return None
    # Imported here: a server with its own data folder needs none of it.
    from atomstream.server.cluster_id import prepare_cluster
    from atomstream.server.postgres.postgres import opened, require_drivers

    require_drivers()
    postgres = await stack.enter_async_context(opened(settings.catalogue))
    try:
        await asyncio.to_thread(prepare_cluster, postgres, store)
    except CatalogueBusyError as error:
        raise ConfigError(str(error)) from error
    except CatalogueUnavailableError as error:
        raise ConfigError(
            f"The catalogue {settings.catalogue.text} can't be reached: {postgres.reachability.cause}. "
            "Check host, port, user and password, or run: atomstream cluster check"
        ) from error
    return postgres


def documents_of(settings: ServerSettings, postgres: Postgres | None) -> Documents:
    """The small documents (keys, secret, projects): files of the data folder, or rows of the shared catalogue."""
    if postgres is None:
        return FolderDocuments(settings.data_dir)
    from atomstream.server.postgres.documents import TableDocuments

    return TableDocuments(postgres)


def _signing_secret(settings: ServerSettings, documents: Documents) -> bytes:
    return (
        shared_secret(documents)
        if documents.is_shared
        else load_or_make_secret(settings.data_dir / SECRET_FILE)
    )


async def open_shared_store(settings: ServerSettings, stack: AsyncExitStack) -> Store | None:
    """The store that servers share, checked; None without one."""
    if settings.store is None:
        return None
    # Imported here: a server with its own data folder needs none of it.
    from atomstream.server.ports.store_url import check_store, open_store

    store = await asyncio.to_thread(open_store, settings.store)
    stack.callback(store.close)
    await asyncio.to_thread(check_store, store)
    return store


async def _open_results(
    settings: ServerSettings,
    stack: AsyncExitStack,
    streams: StreamRegistry,
    signals: ServerSignals,
    measurements: Measurements,
    store: Store | None,
) -> tuple[ResultsManager, DeferredAnnouncer | None]:
    """The results of all streams; with a message bus those that other processes make."""
    most, note = handle_shares(settings).streams, measurements.result_delay.note
    if settings.bus is None:
        return ResultsManager(settings, streams, signals, most, note_delay=note), None
    # Imported here: a server that analyses itself needs none of it.
    from atomstream.server.cluster import joined_cluster
    from atomstream.server.live.replica_manager import ReplicaManager
    from atomstream.server.ports.deferred_announcer import DeferredAnnouncer

    assert store is not None
    cluster = await stack.enter_async_context(joined_cluster(settings, store))
    results = ReplicaManager(settings, streams, signals, most, note_delay=note)
    results.logs, results.announce = cluster.logs, cluster.placement.announce
    stack.callback(cluster.placement.listen(results.noticed))
    announcer = DeferredAnnouncer(cluster.placement)
    at_the_end(stack, "announcing chunks", announcer.close)
    return results, announcer


def _signals(settings: ServerSettings, store: Store | None) -> SignalRegistry:
    if store is None:
        return SignalRegistry(settings.data_dir)
    from atomstream.server.signals.shared_registry import SharedSignalRegistry

    return SharedSignalRegistry(settings.data_dir, store)


def _retention(
    settings: ServerSettings, streams: StreamRegistry, results: ResultsManager, store: Store | None
) -> Retention:
    rules = settings.retention or RetentionSettings()
    if store is None:
        return Retention(rules, FolderRecord(settings.data_dir), FolderFacts(streams), streams, results)
    from atomstream.server.retention.shared_facts import StoreFacts
    from atomstream.server.retention.shared_report import StoreRecord

    return Retention(rules, StoreRecord(store), StoreFacts(store), streams, results)


async def open_parts(
    settings: ServerSettings,
    stack: AsyncExitStack,
    certificate: ServerCertificate | None,
    postgres: Postgres | None,
    store: Store | None,
) -> ServerContext:
    """The parts that request handlers need; they are closed with ``stack``, in reverse order."""
    damage, documents = DamageLog(), documents_of(settings, postgres)
    await asyncio.to_thread(set_aside_foreign, settings.data_dir, damage.of("").add)
    opened = await stack.enter_async_context(open_catalogue(settings, postgres))
    database, streams_table, catalogue = opened.database, opened.streams, opened.names
    # With a store the folder is a cache: the list of streams follows from the store (StoreSync.search).
    unread = (
        await catch_up(database, settings.data_dir, READ_AT_START, damage)
        if store is None
        else Unread([], NameIndex())
    )
    signals = ServerSignals()
    archives = None
    if store is not None:
        archives = SharedArchives(store, copies=settings.bus is None, object_s=settings.object_s)
    streams = StreamRegistry(settings.streams_dir, streams_table, settings.max_open_streams, damage, archives)
    later = asyncio.create_task(
        catch_up_later(database, settings.streams_dir, unread, streams.archive, damage),
        name="atomstream catalogue catch-up",
    )
    at_the_end(stack, "reading the catalogue", partial(cancel_task, later))
    at_the_end(stack, "ending the opening of streams", streams.close)
    ingest = Ingest(settings)
    at_the_end(stack, "ending the uploads", ingest.close)
    measurements = Measurements()
    results, announcer = await _open_results(settings, stack, streams, signals, measurements, store)
    at_the_end(stack, "ending the analyses", results.close)
    tool_signals = _signals(settings, store)
    at_the_end(stack, "closing the signals", tool_signals.close)
    await tool_signals.load()
    readers = ReadPools(settings.read_threads, settings.max_waiting_reads)
    at_the_end(stack, "ending the readers", readers.close)
    retention = _retention(settings, streams, results, store)
    at_the_end(stack, "ending the retention", retention.close)
    streams.deleted_from.update(await catalogue.deleted_streams(settings.streams_dir))
    streams.deleted_from.update(await asyncio.to_thread(read_deletions, settings.streams_dir))
    streams.deleted.update(streams.deleted_from)

    async def note_deleted(data_id: str, name: str) -> None:
        await catalogue.note_deleted(data_id, name, streams.deleted_from.get(data_id))

    deletion = Deletion(streams.folder, note_deleted)
    at_the_end(stack, "ending the removal of deleted streams", deletion.close)
    deletion.begin()
    webhooks = Webhooks(settings.alarm_webhooks)
    at_the_end(stack, "ending the webhooks", webhooks.close)
    return ServerContext(
        settings=settings,
        catalogue=catalogue,
        streams_table=streams_table,
        streams=streams,
        lifecycle=Lifecycle(settings, streams, streams_table, signals),
        deletion=deletion,
        ingest=ingest,
        signer=UrlSigner(await asyncio.to_thread(_signing_secret, settings, documents)),
        signals=signals,
        results=results,
        tool_signals=tool_signals,
        beside_frames=BesideFrames(streams, streams_table, tool_signals, results, signals),
        readers=readers,
        disk=DiskState(settings.data_dir),
        measurements=measurements,
        retention=retention,
        certificate=certificate,
        documents=documents,
        alarms=AlarmWatch(documents, streams, results, webhooks, settings.public_url),
        announcer=announcer,
    )
