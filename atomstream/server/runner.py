"""Runs a server: locks its data folder, opens its parts, listens, and stops in order."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.app import ROUTES, build_app
from atomstream.server.archive.damage import DamageLog
from atomstream.server.away import CatalogueAwayError, CatalogueBusyError
from atomstream.server.catalogue.opening import open_catalogue
from atomstream.server.catalogue.reindex import NameIndex, Unread, catch_up, catch_up_later
from atomstream.server.context import CONTEXT, ServerContext
from atomstream.server.data_dir import own_data_dir, set_aside_foreign
from atomstream.server.disk_errors import DiskState, log_failure
from atomstream.server.documents import Documents, FolderDocuments
from atomstream.server.http.api_keys import KeyRing, ensure_key, replace_keys
from atomstream.server.http.audit import log_entry
from atomstream.server.http.certificate import ServerCertificate, load_certificate
from atomstream.server.http.connections import Connection, ConnectionFactory, ConnectionGuard
from atomstream.server.http.gate import Gate
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.handles import HandleShares, available_handles
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.measurements import Measurements
from atomstream.server.http.path_prefix import check_prefix
from atomstream.server.http.protocol_log import ProtocolLog
from atomstream.server.http.read_pools import ReadPools
from atomstream.server.http.responses import AccessLogger
from atomstream.server.http.tls_connections import TlsConnections
from atomstream.server.http.turnstile import PER_TURN
from atomstream.server.http.upload_urls import SECRET_FILE, UrlSigner, shared_secret
from atomstream.server.live.manager import ResultsManager
from atomstream.server.oidc_settings import check_installed
from atomstream.server.people.log import PEOPLE_FILE
from atomstream.server.people.store import People
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
from atomstream.system.log_privacy import get_logger, hide, protect_libraries

if TYPE_CHECKING:
    from atomstream.server.ports.placement import Placement
    from atomstream.server.ports.store import Store
    from atomstream.server.postgres.postgres import Postgres
    from atomstream.server.streams.store_sync import StoreSync

log = get_logger("atomstream.server")

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")
"""Signals that stop the server, where the system has them; SIGBREAK is Ctrl-Break on Windows."""


READ_AT_START = 64
"""Streams whose files are read before the server listens, if they may differ from the catalogue; others follow then."""


BACKLOG = 1024
"""Connections that wait in the operating system until they are accepted."""


@contextmanager
def set_at_signals(event: asyncio.Event) -> Iterator[None]:
    """Set ``event`` at the first signal that asks this process to end. The earlier handlers are restored at the end.

    Does nothing outside the main thread, because Python delivers signals only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def note(_number: int, _frame: FrameType | None) -> None:
        # loop.add_signal_handler does not exist on Windows. Python's wakeup file descriptor wakes the loop.
        loop.call_soon_threadsafe(event.set)

    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that listens at ``url``.

    ``api_key`` is the key from the settings, or the key created at this start, which should be shown once. It is
    None if the keys were created at an earlier start, because only their hashes are stored. ``certificate`` is that
    of a server with TLS.
    """

    url: str
    api_key: str | None
    settings: ServerSettings
    context: ServerContext
    connections: ConnectionGuard
    certificate: ServerCertificate | None = None
    sync: StoreSync | None = None
    """The exchange with the store that servers share."""


@asynccontextmanager
async def running_server(settings: ServerSettings) -> AsyncIterator[RunningServer]:
    """Run a server in this loop for as long as the block lasts.

    Raises:
        ConfigError: the folder is used by another server or unusable, the address can't be listened on, the files of
            the TLS certificate can't be used, or the server would be reached from elsewhere without TLS.
    """
    protect_libraries()
    settings.check_network()
    check_prefix(ROUTES, settings.path_prefix)
    if settings.oidc is not None:
        check_installed()
    async with AsyncExitStack() as stack:
        store = await _open_store(settings, stack)
        stack.enter_context(own_data_dir(settings.data_dir, store=None if store is None else store.name))
        postgres = await _open_postgres(settings, stack, store)
        documents = _documents(settings, postgres)
        new_key = await asyncio.to_thread(_first_key, settings, documents)
        certificate = await asyncio.to_thread(load_certificate, settings)
        context = await _make_context(settings, stack, certificate, postgres, store)
        guard = _make_guard(settings)
        gate = await asyncio.to_thread(_make_gate, settings, context.streams.damage, postgres)
        app = build_app(context, gate, guard)
        url = await _listen(app, context, guard, stack)
        await _start_timeouts(context, stack)
        sync = None if store is None else await _start_sync(store, context, stack)
        yield RunningServer(url, settings.api_key or new_key, settings, context, guard, certificate, sync)


@asynccontextmanager
async def opened_folder(settings: ServerSettings) -> AsyncIterator[ServerContext]:
    """The parts of a server on its data folder that does not listen: for commands while no server runs.

    Raises:
        ConfigError: a server runs on the folder, or it can't be used.
    """
    protect_libraries()
    async with AsyncExitStack() as stack:
        stack.enter_context(own_data_dir(settings.data_dir, must_exist=True))
        yield await _make_context(settings, stack, None, await _open_postgres(settings, stack, None), None)


async def run_server(
    settings: ServerSettings, on_ready: Callable[[RunningServer], None] | None = None
) -> None:
    """Run a server until SIGINT or SIGTERM (Ctrl-C on Windows); ``on_ready`` is called once it listens."""
    stop = asyncio.Event()
    with set_at_signals(stop):
        async with running_server(settings) as server:
            _settle()
            if on_ready is not None:
                on_ready(server)
            await stop.wait()
            log.info("stopping: uploads that have been received completely are still stored")


async def _open_postgres(
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
    except CatalogueAwayError as error:
        raise ConfigError(
            f"The catalogue {settings.catalogue.text} can't be reached: {postgres.reach.cause}. Check host, port, user "
            "and password, or run: atomstream cluster check"
        ) from error
    return postgres


def _documents(settings: ServerSettings, postgres: Postgres | None) -> Documents:
    if postgres is None:
        return FolderDocuments(settings.data_dir)
    from atomstream.server.postgres.documents import TableDocuments

    return TableDocuments(postgres)


def _first_key(settings: ServerSettings, documents: Documents) -> str | None:
    """The key that was made at this start, if there is one. Blocks."""
    new_key = None if settings.api_key else ensure_key(documents)
    if settings.api_key and not settings.temporary_key:
        replace_keys(documents, settings.api_key)
    hide(settings.api_key or new_key or "")
    return new_key


def _signing_secret(settings: ServerSettings, documents: Documents) -> bytes:
    return (
        shared_secret(documents)
        if documents.is_shared
        else load_or_make_secret(settings.data_dir / SECRET_FILE)
    )


async def _open_store(settings: ServerSettings, stack: AsyncExitStack) -> Store | None:
    """The store that servers share, checked; None without one."""
    if settings.store is None:
        return None
    # Imported here: a server with its own data folder needs none of it.
    from atomstream.server.ports.store_url import check_store, open_store

    store = await asyncio.to_thread(open_store, settings.store)
    stack.callback(store.close)
    await asyncio.to_thread(check_store, store)
    return store


async def _start_sync(store: Store, context: ServerContext, stack: AsyncExitStack) -> StoreSync:
    from atomstream.server.streams.store_sync import StoreSync

    sync = StoreSync(
        store,
        context.streams,
        context.streams_table,
        context.lifecycle,
        context.signals,
        partial(_remove_deleted, context),
        context.tool_signals.refresh,
        searches=not context.documents.is_shared,
        cache_bytes=context.settings.cache_bytes,
        copies=context.placement is None,
    )
    _at_the_end(stack, "copying to the store", sync.close)
    task = asyncio.create_task(sync.run(), name="atomstream store")
    _at_the_end(stack, "following the store", partial(_cancel, task))
    return sync


async def _remove_deleted(context: ServerContext, data_id: str) -> None:
    """Another server has deleted a stream: end what uses it here, and remove its cache."""
    await context.ingest.stop_stream(data_id)
    await context.results.remove(data_id)
    await context.lifecycle.forget(data_id)
    await context.streams.delete(data_id, context.streams.shared().get(data_id))
    context.deletion.begin()


def _settle() -> None:
    """Leave what the start has made out of later garbage collections: it lives as long as the process.

    A full collection holds every thread; its duration grows with the number of objects.
    """
    if gc.isenabled():
        gc.collect()
        gc.freeze()


async def _open_results(
    settings: ServerSettings,
    stack: AsyncExitStack,
    streams: StreamRegistry,
    signals: ServerSignals,
    measurements: Measurements,
    store: Store | None,
) -> tuple[ResultsManager, Placement | None]:
    """The results of all streams; with a message bus those that other processes make."""
    most, note = handle_shares(settings).streams, measurements.result_delay.note
    if settings.bus is None:
        return ResultsManager(settings, streams, signals, most, note_delay=note), None
    # Imported here: a server that analyses itself needs none of it.
    from atomstream.server.cluster import joined_cluster
    from atomstream.server.live.replica_manager import ReplicaManager

    assert store is not None
    cluster = await stack.enter_async_context(joined_cluster(settings, store))
    results = ReplicaManager(settings, streams, signals, most, note_delay=note)
    results.logs, results.announce = cluster.logs, cluster.placement.announce
    stack.callback(cluster.placement.listen(results.noticed))
    return results, cluster.placement


def _signals(settings: ServerSettings, store: Store | None) -> SignalRegistry:
    if store is None:
        return SignalRegistry(settings.data_dir)
    from atomstream.server.signals.shared_registry import SharedSignalRegistry

    return SharedSignalRegistry(settings.data_dir, store)


async def _make_context(
    settings: ServerSettings,
    stack: AsyncExitStack,
    certificate: ServerCertificate | None,
    postgres: Postgres | None,
    store: Store | None,
) -> ServerContext:
    damage, documents = DamageLog(), _documents(settings, postgres)
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
    archives = None if store is None else SharedArchives(store, copies=settings.bus is None)
    streams = StreamRegistry(settings.streams_dir, streams_table, settings.max_open_streams, damage, archives)
    later = asyncio.create_task(
        catch_up_later(database, settings.streams_dir, unread, streams.archive, damage),
        name="atomstream catalogue catch-up",
    )
    _at_the_end(stack, "reading the catalogue", partial(_cancel, later))
    _at_the_end(stack, "ending the opening of streams", streams.close)
    ingest = Ingest(settings)
    _at_the_end(stack, "ending the uploads", ingest.close)
    measurements = Measurements()
    results, placement = await _open_results(settings, stack, streams, signals, measurements, store)
    _at_the_end(stack, "ending the analyses", results.close)
    tool_signals = _signals(settings, store)
    _at_the_end(stack, "closing the signals", tool_signals.close)
    await tool_signals.load()
    readers = ReadPools(settings.read_threads, settings.max_waiting_reads)
    _at_the_end(stack, "ending the readers", readers.close)
    retention = Retention(settings.retention or RetentionSettings(), settings.data_dir, streams, results)
    _at_the_end(stack, "ending the retention", retention.close)
    streams.deleted_from.update(await catalogue.deleted_streams(settings.streams_dir))
    streams.deleted_from.update(await asyncio.to_thread(read_deletions, settings.streams_dir))
    streams.deleted.update(streams.deleted_from)

    async def note_deleted(data_id: str, name: str) -> None:
        await catalogue.note_deleted(data_id, name, streams.deleted_from.get(data_id))

    deletion = Deletion(streams.folder, note_deleted)
    _at_the_end(stack, "ending the removal of deleted streams", deletion.close)
    deletion.begin()
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
        placement=placement,
    )


def _make_gate(settings: ServerSettings, damage: DamageLog, postgres: Postgres | None) -> Gate:
    people, documents = People(postgres or settings.data_dir), _documents(settings, postgres)
    if people.damage:
        log.error("%s", people.damage)
        damage.of("").add(
            PEOPLE_FILE, "it is damaged: only the server's own key is valid; the log has the reason"
        )
    people.on_entry = log_entry
    ring = KeyRing.load(documents, settings.api_key if settings.temporary_key else None)
    cache_s = settings.key_cache_s if documents.is_shared else math.inf
    return Gate(ring, people, GuessLimiter(), KeyUse(documents), cache_s=cache_s)


def handle_shares(settings: ServerSettings) -> HandleShares:
    """How the handles of this process are shared out."""
    return HandleShares.of(available_handles(), settings.max_connections, settings.max_open_streams)


def _make_guard(settings: ServerSettings) -> ConnectionGuard:
    handles, shares = available_handles(), handle_shares(settings)
    if shares.connections < settings.max_connections:
        log.info(
            "this process may open %d files: at most %d connections and %d open streams",
            handles, shares.connections, shares.streams,
        )  # fmt: skip
    most = min(settings.max_connections_per_address, max(1, shares.connections * 3 // 4))
    return ConnectionGuard(shares.connections, most, settings.reply_min_rate, settings.reply_window_s)


async def _listen(
    app: web.Application, context: ServerContext, guard: ConnectionGuard, stack: AsyncExitStack
) -> str:
    settings = context.settings
    protocol_log = ProtocolLog()
    stack.callback(protocol_log.close)
    runner = web.AppRunner(
        app,
        logger=protocol_log.logger,
        access_log_class=AccessLogger,
        access_log=get_logger("atomstream.server.http.responses"),
        # This also limits the time for a request's headers: a connection in the middle of them counts as idle.
        keepalive_timeout=settings.idle_timeout_s,
        lingering_time=settings.linger_s,
        shutdown_timeout=settings.shutdown_s,
        auto_decompress=False,
    )
    app.on_shutdown.append(_stop_receiving)
    await runner.setup()
    assert runner.server is not None
    make = await _start_tls(context, guard, stack)
    _at_the_end(stack, "ending the connections", runner.cleanup)
    try:
        guard.serve(runner.server, make)
        # asyncio accepts as many connections in one iteration of the loop as the backlog is long.
        server = await asyncio.get_running_loop().create_server(
            guard, settings.host, settings.port, backlog=PER_TURN
        )
        for listener in server.sockets:
            with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                same.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Is another server running there? Port 0 selects a free port."
        ) from None
    _at_the_end(stack, "closing the listener", partial(_stop_listening, server))
    watch = asyncio.create_task(guard.watch(), name="atomstream connections")
    _at_the_end(stack, "watching the connections", partial(_cancel, watch))
    scheme = "https" if settings.has_tls else "http"
    return _local_url(scheme, settings.host, server.sockets[0].getsockname()[1])


async def _start_tls(
    context: ServerContext, guard: ConnectionGuard, stack: AsyncExitStack
) -> ConnectionFactory:
    """What makes the connections: with TLS if the server has a certificate, which is watched from now on."""
    if context.certificate is None:
        return Connection
    connections = TlsConnections(context.certificate)
    _at_the_end(stack, "ending the TLS connections", partial(connections.close, guard))
    watch = asyncio.create_task(context.certificate.watch(), name="atomstream certificate")
    _at_the_end(stack, "watching the certificate", partial(_cancel, watch))
    return connections


async def _stop_listening(server: asyncio.Server) -> None:
    """Stop accepting connections, then close the server, so that no accepted socket stays open.

    asyncio creates a connection's transport one iteration of the loop after accepting it. If the server is closed in
    between, that fails, and the socket is never closed. After two more iterations the handler waits for a request,
    and aiohttp closes it as an idle connection.
    """
    with suppress(NotImplementedError):  # the proactor loop on Windows has no readers
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
    server.close()


async def _stop_receiving(app: web.Application) -> None:
    app[CONTEXT].ingest.stop_receiving()
    app[CONTEXT].results.close_feeds()


def _local_url(scheme: str, host: str, port: int) -> str:
    """A URL that works on this machine. A wildcard address can be listened on, but not connected to."""
    with suppress(ValueError):
        address = ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def _start_timeouts(context: ServerContext, stack: AsyncExitStack) -> None:
    await context.lifecycle.resume()
    await context.results.resume()
    beside = asyncio.create_task(context.beside_frames.run(), name="atomstream signals beside frames")
    _at_the_end(stack, "writing signals beside frames", context.beside_frames.catch_up)
    _at_the_end(stack, "waiting for signals", partial(_cancel, beside))
    if len(context.tool_signals):
        for data_id in await context.streams_table.with_status("stream_active", "stream_interrupted"):
            context.beside_frames.note(
                data_id
            )  # an earlier process may have been killed before it wrote them
    watch = asyncio.create_task(context.lifecycle.watch(), name="atomstream stream timeouts")
    _at_the_end(stack, "watching for silent streams", partial(_cancel, watch))
    if context.documents.is_shared:
        # Imported here: a server with its own data folder needs none of it.
        from atomstream.server.shared_watch import watch_other_servers

        others = asyncio.create_task(watch_other_servers(context), name="atomstream other servers")
        _at_the_end(stack, "following other servers", partial(_cancel, others))
    if context.settings.retention is not None:
        daily = asyncio.create_task(context.retention.watch(), name="atomstream daily retention")
        _at_the_end(stack, "waiting for the daily retention", partial(_cancel, daily))


def _at_the_end(stack: AsyncExitStack, what: str, close: Callable[[], Awaitable[None]]) -> None:
    """Call ``close`` when the server stops. An error is logged, so that the steps after it are done as well.

    ``what`` names the step for the log.
    """

    async def call() -> None:
        try:
            await close()
        except Exception as error:
            log_failure(log, error, "stopping: %s failed", what)

    stack.push_async_callback(call)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
