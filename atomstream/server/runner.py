"""Runs a server: locks its data folder, opens its parts, listens, and stops in order."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from atomstream.server.app import ROUTES, build_app
from atomstream.server.archive.damage import DamageLog
from atomstream.server.closing import at_the_end, cancel_task, set_at_signals
from atomstream.server.context import ServerContext
from atomstream.server.data_dir import own_data_dir
from atomstream.server.documents import Documents
from atomstream.server.http.api_keys import KeyRing, ensure_key, replace_keys
from atomstream.server.http.audit import log_entry
from atomstream.server.http.certificate import ServerCertificate, load_certificate
from atomstream.server.http.connections import ConnectionGuard
from atomstream.server.http.gate import Gate
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.memory_budget import MemoryBudget
from atomstream.server.http.path_prefix import check_prefix
from atomstream.server.listening import listen, make_guard
from atomstream.server.oidc_settings import check_installed
from atomstream.server.parts import documents_of, open_parts, open_postgres, open_shared_store
from atomstream.server.people.log import PEOPLE_FILE
from atomstream.server.people.store import People
from atomstream.server.settings import ServerSettings
from atomstream.system.log_privacy import get_logger, hide, protect_libraries

if TYPE_CHECKING:
    from atomstream.server.ports.store import Store
    from atomstream.server.postgres.postgres import Postgres
    from atomstream.server.streams.store_sync import StoreSync

log = get_logger("atomstream.server")


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
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    sync: StoreSync | None = None
    """The exchange with the store that servers share."""


@asynccontextmanager
async def running_server(settings: ServerSettings) -> AsyncIterator[RunningServer]:
    """Run a server in this loop for as long as the block lasts.

    Raises:
        ConfigError: the folder is used by another server or unusable, it can't listen on the address, the files of
            the TLS certificate can't be used, or the server would be reached from elsewhere without TLS.
    """
    protect_libraries()
    settings.check_network()
    check_prefix(ROUTES, settings.path_prefix)
    if settings.oidc is not None:
        check_installed()
    async with AsyncExitStack() as stack:
        store = await open_shared_store(settings, stack)
        stack.enter_context(own_data_dir(settings.data_dir, store=None if store is None else store.name))
        postgres = await open_postgres(settings, stack, store)
        documents = documents_of(settings, postgres)
        new_key = await asyncio.to_thread(_first_key, settings, documents)
        certificate = await asyncio.to_thread(load_certificate, settings)
        context = await open_parts(settings, stack, certificate, postgres, store)
        guard = make_guard(settings)
        gate = await asyncio.to_thread(_make_gate, settings, context.streams.damage, postgres)
        memory = MemoryBudget()
        app = build_app(context, gate, guard, memory)
        url = await listen(app, context, guard, stack)
        await _start_timeouts(context, stack)
        sync = None if store is None else await _start_sync(store, context, stack)
        yield RunningServer(
            url, settings.api_key or new_key, settings, context, guard, certificate, memory, sync
        )


@asynccontextmanager
async def opened_folder(settings: ServerSettings) -> AsyncIterator[ServerContext]:
    """The parts of a server on its data folder that does not listen: for commands while no server runs.

    Raises:
        ConfigError: a server runs on the folder, or it can't be used.
    """
    protect_libraries()
    async with AsyncExitStack() as stack:
        stack.enter_context(own_data_dir(settings.data_dir, must_exist=True))
        yield await open_parts(settings, stack, None, await open_postgres(settings, stack, None), None)


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


def _first_key(settings: ServerSettings, documents: Documents) -> str | None:
    """The key that was made at this start, if there is one. Blocks."""
    new_key = None if settings.api_key else ensure_key(documents)
    if settings.api_key and not settings.temporary_key:
        replace_keys(documents, settings.api_key)
    hide(settings.api_key or new_key or "")
    return new_key


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
        copies=context.announcer is None,
    )
    at_the_end(stack, "copying to the store", sync.close)
    task = asyncio.create_task(sync.run(), name="atomstream store")
    at_the_end(stack, "following the store", partial(cancel_task, task))
    return sync


async def _remove_deleted(context: ServerContext, data_id: str) -> None:
    """Another server has deleted a stream: end what uses it here, and remove its cache."""
    await context.ingest.stop_stream(data_id)
    await context.results.remove(data_id)
    await context.lifecycle.stop_timing(data_id)
    await context.streams.delete(data_id, context.streams.shared().get(data_id))
    context.deletion.begin()


def _settle() -> None:
    """Exclude the objects of the start from later garbage collections: they exist until the process ends.

    A full collection stops every thread; its duration grows with the number of objects.
    """
    if gc.isenabled():
        gc.collect()
        gc.freeze()


def _make_gate(settings: ServerSettings, damage: DamageLog, postgres: Postgres | None) -> Gate:
    people, documents = People(postgres or settings.data_dir), documents_of(settings, postgres)
    if people.damage:
        log.error("%s", people.damage)
        damage.of("").add(
            PEOPLE_FILE, "it is damaged: only the server's own key is valid; the log has the reason"
        )
    people.on_entry = log_entry
    ring = KeyRing.load(documents, settings.api_key if settings.temporary_key else None)
    cache_s = settings.key_cache_s if documents.is_shared else math.inf
    return Gate(ring, people, GuessLimiter(), KeyUse(documents), cache_s=cache_s)


async def _start_timeouts(context: ServerContext, stack: AsyncExitStack) -> None:
    await context.lifecycle.resume()
    await context.results.resume()
    beside = asyncio.create_task(context.beside_frames.run(), name="atomstream signals beside frames")
    at_the_end(stack, "writing signals beside frames", context.beside_frames.catch_up)
    at_the_end(stack, "waiting for signals", partial(cancel_task, beside))
    if len(context.tool_signals):
        for data_id in await context.streams_table.with_status("stream_active", "stream_interrupted"):
            context.beside_frames.note(
                data_id
            )  # an earlier process may have been killed before it wrote them
    watch = asyncio.create_task(context.lifecycle.watch(), name="atomstream stream timeouts")
    at_the_end(stack, "watching for silent streams", partial(cancel_task, watch))
    at_the_end(stack, "reading the status of streams", context.lifecycle.read_unread)
    alarms = asyncio.create_task(context.alarms.run(), name="atomstream alarms")
    at_the_end(stack, "watching for alarms", partial(cancel_task, alarms))
    if context.documents.is_shared:
        # Imported here: a server with its own data folder needs none of it.
        from atomstream.server.shared_watch import watch_other_servers

        others = asyncio.create_task(watch_other_servers(context), name="atomstream other servers")
        at_the_end(stack, "following other servers", partial(cancel_task, others))
    if context.settings.retention is not None:
        daily = asyncio.create_task(context.retention.watch(), name="atomstream daily retention")
        at_the_end(stack, "waiting for the daily retention", partial(cancel_task, daily))
