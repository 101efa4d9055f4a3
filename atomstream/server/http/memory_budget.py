"""The memory that requests may take together: their bodies, what is decoded from them, and replies that are sent.

Up to :data:`SMALL` bytes a body or reply is not counted, because the number of connections limits these. A larger one
is counted before memory is allocated for it. If there is not enough left, a request is refused with 503, and its client
sends it again; a feed waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.pages.static_files import SHARED_BODY
from atomstream.server.http.responses import HttpError, send_pieces
from atomstream.server.memory_parts import REQUEST_BYTES

SMALL: Final = 64 << 10
"""Bytes of a body or reply that are not counted."""
PIECE: Final = 32 << 10
"""Bytes of a reply that are passed to the connection at once: it copies what its client does not read."""


class MemoryBudget:
    """``limit`` bytes for all requests of one server. Used in its loop."""

    def __init__(self, limit: int = REQUEST_BYTES) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def try_acquire(self, nbytes: int) -> bool:
        """Count so many bytes more; False, and nothing is counted, if they are more than what is left."""
        if self.used + nbytes > self.limit:
            return False
        self.used += nbytes
        return True

    def release(self, nbytes: int) -> None:
        """The bytes are free again."""
        self.used -= nbytes
        while self._waiting:
            wanted, free = self._waiting[0]
            if not free.done() and not self.try_acquire(wanted):
                return
            self._waiting.popleft()
            if not free.done():
                free.set_result(None)

    @asynccontextmanager
    async def room(self, nbytes: int) -> AsyncIterator[None]:
        """Wait until so many bytes are free (at most the limit), and count them for the duration of the block."""
        wanted = min(nbytes, self.limit) if nbytes > SMALL else 0
        if wanted and (self._waiting or not self.try_acquire(wanted)):
            free = asyncio.get_running_loop().create_future()
            self._waiting.append((wanted, free))
            try:
                await free
            except asyncio.CancelledError:
                if free.done() and not free.cancelled():
                    self.release(wanted)
                raise
        try:
            yield
        finally:
            if wanted:
                self.release(wanted)


class Holding:
    """What one request has taken of the budget."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._taken = 0

    def grow(self, nbytes: int) -> None:
        """Take so many bytes in total; what was taken before counts.

        Raises:
            HttpError: 413 it is more than the whole budget; 503 others have what is left of it.
        """
        if nbytes <= max(SMALL, self._taken):
            return
        if nbytes > self._budget.limit:
            raise HttpError(
                413, f"This request needs {nbytes} bytes of memory; all requests have {self._budget.limit}."
            )
        if not self._budget.try_acquire(nbytes - self._taken):
            raise HttpError(
                503,
                "Other large requests need the server's memory at present. Send this one again.",
                headers={"Retry-After": "1"},
            )
        self._taken = nbytes

    def release(self) -> None:
        """Give everything back."""
        if self._taken:
            self._budget.release(self._taken)
            self._taken = 0


MEMORY: Final = web.AppKey("memory_budget", MemoryBudget)
HOLDING: Final = web.RequestKey("memory_holding", Holding)


def bound_memory(budget: MemoryBudget) -> Any:
    """A middleware that gives each request its :class:`Holding`, and sends large replies in pieces."""

    @web.middleware
    async def bounded(request: web.Request, handler: Handler) -> web.StreamResponse:
        holding = request[HOLDING] = Holding(budget)
        try:
            reply = await handler(request)
            body = reply.body if isinstance(reply, web.Response) and not reply.prepared else None
            if not isinstance(body, bytes) or len(body) <= SMALL:
                return reply
            holding.release()  # the body of the request is not used any more
            return await _send(request, reply, body, holding)
        finally:
            holding.release()

    return bounded


async def _send(
    request: web.Request, reply: web.StreamResponse, body: bytes, holding: Holding
) -> web.StreamResponse:
    if not reply.get(SHARED_BODY, False):
        try:
            holding.grow(len(body))
        except HttpError as error:
            return error.reply()
    headers = {**reply.headers, "Content-Length": str(len(body))}
    sent = web.StreamResponse(status=reply.status, reason=reply.reason, headers=headers)
    with suppress(ConnectionError):  # the client is gone
        await send_pieces(request, sent, _pieces(body))
    return sent


async def _pieces(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), PIECE):
        yield view[start : start + PIECE]
