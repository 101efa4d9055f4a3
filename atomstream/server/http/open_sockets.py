"""The WebSockets that are open, and which browser session each belongs to: they end with the session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import WSCloseCode, web

SESSION: Final = web.RequestKey("session", str)
"""Mark of the browser session that a request was allowed by; missing for a request with a key."""
LOOK_S: Final = 20.0
"""Time in s between two looks whether the sessions of open WebSockets are still valid."""


class OpenSockets:
    """All WebSockets of one server. Used in the server's loop."""

    def __init__(self) -> None:
        self._sockets: dict[web.WebSocketResponse, str | None] = {}
        self._ending: set[asyncio.Task[bool]] = set()

    @contextmanager
    def hold(self, request: web.Request, socket: web.WebSocketResponse) -> Iterator[None]:
        """Know ``socket``, opened by ``request``, for as long as the block lasts."""
        self._sockets[socket] = request.get(SESSION)
        try:
            yield
        finally:
            del self._sockets[socket]

    def end_session(self, session: str) -> None:
        """Close the WebSockets of a session that has ended."""
        self.end_sessions(lambda one: one != session)

    def end_sessions(self, is_valid: Callable[[str], bool]) -> None:
        """Close the WebSockets of all sessions that are not valid."""
        for socket, session in tuple(self._sockets.items()):
            if session is not None and not is_valid(session):
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
