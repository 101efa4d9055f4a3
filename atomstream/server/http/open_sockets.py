"""The WebSockets that are open, and the request of each: they end when it would not be allowed any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import WSCloseCode, web

SESSION: Final = web.RequestKey("session", str)
"""Mark of the browser session that a request was allowed by; missing for a request with a key."""
CHECK_PERIOD_S: Final = 20.0
"""Interval, in s, of the checks whether open WebSockets are still allowed; changes of people and keys cause one too."""


class OpenSockets:
    """All WebSockets of one server. Used in the server's loop."""

    def __init__(self) -> None:
        self._sockets: dict[web.WebSocketResponse, web.Request] = {}
        self._ending: set[asyncio.Task[bool]] = set()

    @contextmanager
    def hold(self, request: web.Request, socket: web.WebSocketResponse) -> Iterator[None]:
        """Keep ``socket``, opened by ``request``, in the list for the duration of the block."""
        self._sockets[socket] = request
        try:
            yield
        finally:
            self._sockets.pop(socket, None)

    def end_session(self, session: str) -> None:
        """Close the WebSockets of a session that has ended."""
        for socket, request in tuple(self._sockets.items()):
            if request.get(SESSION) == session:
                self._end(socket)

    async def end_forbidden(self, is_allowed: Callable[[web.Request], Awaitable[bool]]) -> None:
        """Close the WebSockets whose request would not be allowed now."""
        for socket, request in tuple(self._sockets.items()):
            if not await is_allowed(request):
                self._end(socket)

    def _end(self, socket: web.WebSocketResponse) -> None:
        self._sockets.pop(socket, None)  # once only: aiohttp allows no second close meanwhile
        task = asyncio.create_task(
            socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"the session has ended")
        )
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Close all with GOING_AWAY; the pages reconnect after a restart."""
        for socket in tuple(self._sockets):
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the server is stopping")
        if self._ending:
            await asyncio.wait(tuple(self._ending))


SOCKETS: Final = web.AppKey("open_sockets", OpenSockets)
