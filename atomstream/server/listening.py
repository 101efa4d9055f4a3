"""Listens for HTTP connections: limits of handles and connections, TLS, and an end that leaves no socket open."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.server.closing import at_the_end, cancel_task
from atomstream.server.context import CONTEXT, ServerContext
from atomstream.server.http.connections import Connection, ConnectionFactory, ConnectionGuard
from atomstream.server.http.handles import HandleShares, available_handles
from atomstream.server.http.loop_rate_limiter import PER_ITERATION
from atomstream.server.http.protocol_log import ProtocolLog
from atomstream.server.http.responses import AccessLogger
from atomstream.server.http.tls_connections import TlsConnections
from atomstream.server.settings import ServerSettings
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    pass

log = get_logger("atomstream.server")

BACKLOG = 1024
"""Connections that wait in the operating system until they are accepted."""


def handle_shares(settings: ServerSettings) -> HandleShares:
    """How the handles of this process are shared out."""
    return HandleShares.of(available_handles(), settings.max_connections, settings.max_open_streams)


def make_guard(settings: ServerSettings) -> ConnectionGuard:
    """The limits of connections: at most what the handles of this process allow."""
    handles, shares = available_handles(), handle_shares(settings)
    if shares.connections < settings.max_connections:
        log.info(
            "this process may open %d files: at most %d connections and %d open streams",
            handles, shares.connections, shares.streams,
        )  # fmt: skip
    most = min(settings.max_connections_per_address, max(1, shares.connections * 3 // 4))
    return ConnectionGuard(shares.connections, most, settings.reply_min_rate, settings.reply_window_s)


async def listen(
    app: web.Application, context: ServerContext, guard: ConnectionGuard, stack: AsyncExitStack
) -> str:
    """Listen until ``stack`` is closed; return the URL for this machine.

    Raises:
        ConfigError: listening on the address failed.
    """
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
    at_the_end(stack, "ending the connections", runner.cleanup)
    try:
        guard.serve(runner.server, make)
        # asyncio accepts as many connections in one iteration of the loop as the backlog is long.
        server = await asyncio.get_running_loop().create_server(
            guard, settings.host, settings.port, backlog=PER_ITERATION
        )
        for listener in server.sockets:
            with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                same.listen(BACKLOG)
    except UnicodeError:
        raise ConfigError(f"host={settings.host!r} is neither an address nor a name of a computer.") from None
    except OSError as error:
        raise ConfigError(
            f"Can't listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Is another server running there? Port 0 selects a free port."
        ) from None
    at_the_end(stack, "closing the listener", partial(_stop_listening, server))
    watch = asyncio.create_task(guard.watch(), name="atomstream connections")
    at_the_end(stack, "watching the connections", partial(cancel_task, watch))
    scheme = "https" if settings.has_tls else "http"
    return _local_url(scheme, settings.host, server.sockets[0].getsockname()[1])


async def _start_tls(
    context: ServerContext, guard: ConnectionGuard, stack: AsyncExitStack
) -> ConnectionFactory:
    """What makes the connections: with TLS if the server has a certificate, which is watched from now on."""
    if context.certificate is None:
        return Connection
    connections = TlsConnections(context.certificate)
    at_the_end(stack, "ending the TLS connections", partial(connections.close, guard))
    watch = asyncio.create_task(context.certificate.watch(), name="atomstream certificate")
    at_the_end(stack, "watching the certificate", partial(cancel_task, watch))
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
