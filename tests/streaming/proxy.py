"""A TCP proxy that breaks connections as planned: resets, half-closes, black holes, refusals, small pieces."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

RESET_NOW = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends a reset."""


@dataclass(frozen=True)
class Plan:
    """How the proxy breaks one connection.

    ``up`` and ``down`` reset it after that many bytes from and to the client. ``half_close`` closes the direction
    to the server after that many bytes; the other direction stays open. ``piece`` forwards at most that many bytes
    at a time.
    """

    up: int | None = None
    down: int | None = None
    half_close: int | None = None
    piece: int = 1 << 16


class _CutError(Exception):
    """The connection must be reset."""


class Proxy:
    """A proxy between a client and the server at ``target``; each connection uses up one of ``plans``."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._frozen: set[asyncio.StreamWriter] = set()
        self._hole = False
        self.plans: deque[Plan] = deque()
        self.default = Plan()
        self.connections = 0

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"http://127.0.0.1:{self._port}"

    async def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Reset the open connections and refuse new ones until :meth:`listen`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut_all()

    async def cut_all(self) -> None:
        """Reset all open connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def black_hole(self) -> None:
        """From now on, forward no bytes and close no connection."""
        self._hole = True

    def recover(self) -> None:
        """New connections work; those of the black hole stay blocked, as after a router has lost its table."""
        self._hole = False
        self._frozen |= self._writers

    def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        plan = self.plans.popleft() if self.plans else self.default
        self._writers.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            back, far = await asyncio.open_connection(self._target.hostname, self._target.port)
            up = self._pump(reader, far, plan.up, plan.half_close, plan.piece, writer)
            down = self._pump(back, writer, plan.down, None, plan.piece, writer)
            await asyncio.gather(up, down)
        except (_CutError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            self._frozen.discard(writer)
            for end in (writer, far):
                if end is not None:
                    _reset(end)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reset_at: int | None,
        eof_at: int | None,
        piece: int,
        client: asyncio.StreamWriter,
    ) -> None:
        passed, end = 0, reset_at if reset_at is not None else eof_at
        while data := await reader.read(piece):
            if self._hole or client in self._frozen:
                await asyncio.Event().wait()
            data = data if end is None else data[: end - passed]
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if passed == reset_at:
                raise _CutError
            if passed == eof_at:
                break
        with suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket | None = writer.get_extra_info("socket")
    with suppress(OSError):
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
    writer.transport.abort()


@asynccontextmanager
async def proxied(target: str) -> AsyncIterator[Proxy]:
    """A listening :class:`Proxy` in front of ``target``."""
    proxy = Proxy(target)
    await proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.refuse()
