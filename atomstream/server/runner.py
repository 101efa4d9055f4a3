"""A server's life: owning its folder, listening, and a clean end."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from types import FrameType

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.app import build_app
from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue.names_log import NamesLog
from atomstream.server.catalogue.reindex import catch_up
from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.context import CONTEXT, ServerContext
from atomstream.server.data_dir import own_data_dir
from atomstream.server.http.api_keys import KeyRing, ensure_key
from atomstream.server.http.responses import AccessLogger
from atomstream.server.http.upload_urls import SECRET_FILE, UrlSigner
from atomstream.server.live.manager import ResultsManager
from atomstream.server.settings import ServerSettings
from atomstream.server.streams.ingest import Ingest
from atomstream.server.streams.lifecycle import Lifecycle
from atomstream.server.streams.registry import StreamRegistry
from atomstream.server.streams.signals import ServerSignals
from atomstream.system.files import load_or_make_secret

# Ctrl-C and SIGTERM as an event, on Windows too.

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")


@contextmanager
def set_at_signals(event: asyncio.Event) -> Iterator[None]:
    """Set ``event`` at the first signal that asks this process to end; the handlers before come back after.

    Does nothing outside the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def note(_number: int, _frame: FrameType | None) -> None:
        # Not loop.add_signal_handler: Windows' loop has none. The loop itself is woken by Python's wakeup pipe.
        loop.call_soon_threadsafe(event.set)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


log = logging.getLogger("atomstream.server")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers at ``url``.

    ``api_key`` is the key it was given, or the one made at this start, to be shown once; None where the keys
    were made at an earlier start: of those only hashes are kept.
    """

    url: str
    api_key: str | None
    settings: ServerSettings
    house: ServerContext


@asynccontextmanager
async def running_server(settings: ServerSettings) -> AsyncIterator[RunningServer]:
    """Run a server in this loop for as long as the block lasts.

    Raises:
        ConfigError: the folder is another server's or unusable, or the address can't be listened on.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(own_data_dir(settings.data_dir))
        new_key = None if settings.api_key else ensure_key(settings.data_dir)
        house = await _furnish(settings, stack)
        app = build_app(house, KeyRing.load(settings.data_dir, settings.api_key))
        url = await _listen(app, house, stack)
        await _start_watch(house, stack)
        yield RunningServer(url, settings.api_key or new_key, settings, house)


async def run_server(
    settings: ServerSettings, on_ready: Callable[[RunningServer], None] | None = None
) -> None:
    """Run a server until SIGINT or SIGTERM (Ctrl-C on Windows); ``on_ready`` is told once it listens."""
    stop = asyncio.Event()
    with set_at_signals(stop):
        async with running_server(settings) as server:
            if on_ready is not None:
                on_ready(server)
            await stop.wait()
            log.info("stopping: running uploads that are whole are still stored")


async def _furnish(settings: ServerSettings, stack: AsyncExitStack) -> ServerContext:
    database = await Database.open(settings.data_dir)
    stack.push_async_callback(database.close)
    await catch_up(database, settings.data_dir)
    entries, events = StreamsTable(database), ServerSignals()
    streams = StreamRegistry(settings.streams_dir, entries)
    ingest = Ingest(settings)
    stack.push_async_callback(ingest.close)
    live = ResultsManager(settings, streams, events)
    stack.push_async_callback(live.close)
    return ServerContext(
        settings=settings,
        catalogue=Catalogue(database, NamesLog(settings.data_dir)),
        entries=entries,
        streams=streams,
        lifecycle=Lifecycle(settings, streams, entries, events),
        ingest=ingest,
        signer=UrlSigner(load_or_make_secret(settings.data_dir / SECRET_FILE)),
        events=events,
        live=live,
    )


async def _listen(app: web.Application, house: ServerContext, stack: AsyncExitStack) -> str:
    settings = house.settings
    runner = web.AppRunner(
        app,
        access_log_class=AccessLogger,
        access_log=logging.getLogger("atomstream.server.http.responses"),
        # Also the time that a half-sent request head may take: it is closed with the idle ones.
        keepalive_timeout=settings.idle_timeout_s,
        lingering_time=settings.linger_s,
        shutdown_timeout=settings.shutdown_s,
        auto_decompress=False,
    )
    app.on_shutdown.append(_stop_receiving)
    await runner.setup()
    assert runner.server is not None
    stack.push_async_callback(runner.cleanup)
    try:
        server = await asyncio.get_running_loop().create_server(
            runner.server, settings.host, settings.port, backlog=128
        )
    except OSError as error:
        raise ConfigError(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Is another server running there? Port 0 takes a free one."
        ) from None
    stack.push_async_callback(_stop_listening, server)
    return _local_url(settings.host, server.sockets[0].getsockname()[1])


async def _stop_listening(server: asyncio.Server) -> None:
    """Stop accepting, then close, so that what was accepted last is still attached to the server.

    asyncio makes a connection's transport one turn of the loop after it was accepted; a server closed in
    between refuses it, and the socket would stay open, owned by nobody. Two turns later its handler waits
    for a request, and is ended as an idle one instead of being waited for.
    """
    with suppress(NotImplementedError):  # the proactor loop of Windows has no readers
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        for _ in range(3):
            await asyncio.sleep(0)
    server.close()


async def _stop_receiving(app: web.Application) -> None:
    app[CONTEXT].ingest.stop_receiving()
    app[CONTEXT].live.hang_up()


def _local_url(host: str, port: int) -> str:
    """An address that works on this machine: a wildcard address is listened on, but not called."""
    with suppress(ValueError):
        address = ip_address(host)
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _start_watch(house: ServerContext, stack: AsyncExitStack) -> None:
    await house.lifecycle.resume()
    await house.live.resume()
    watch = asyncio.create_task(house.lifecycle.watch(), name="atomstream silence watch")
    stack.push_async_callback(_end_watch, watch)


async def _end_watch(watch: asyncio.Task[None]) -> None:
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch
