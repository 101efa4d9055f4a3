"""The WebSockets of the dashboard: small messages in, and all of them closed when the server stops."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import WSCloseCode, web


class OpenSockets:
    """Those that are open now."""

    def __init__(self) -> None:
        self.all: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()


SOCKETS = web.AppKey("dashboard_sockets", OpenSockets)
MAX_MESSAGE = 4096
HEARTBEAT_S = 20.0


@asynccontextmanager
async def open_socket(request: web.Request) -> AsyncIterator[web.WebSocketResponse]:
    """A WebSocket for as long as the block lasts."""
    # Not compressed: pixels hardly shrink, and it would cost the ingest's cores.
    socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE, compress=False)
    await socket.prepare(request)
    request.app[SOCKETS].all.add(socket)
    try:
        yield socket
    finally:
        await socket.close()


async def close_sockets(app: web.Application) -> None:
    """Say good-bye to all browsers: the server stops, and they may come back."""
    for socket in tuple(app[SOCKETS].all):
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server stops")
