"""A small load balancer for TCP connections, for a cluster on one machine.

Each new connection goes to the next server in turn that accepts one. A connection stays with its server until one
side closes it. If a server ends, its connections end, and their clients connect again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from atomstream.cluster.engine import HOST
from atomstream.errors import ConfigError

_BLOCK: Final = 1 << 16
_CONNECT_S: Final = 1.0


class Balancer:
    """Passes connections on to ``ports`` of the loopback interface; made by :func:`balancing`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server = await self._connect()
            if server is not None:
                await self._join(reader, writer, *server)
        except asyncio.CancelledError:
            pass  # the balancer stops
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._ports:
            port = self._ports[self._next % len(self._ports)]
            self._next += 1
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CONNECT_S):
                    return await asyncio.open_connection(HOST, port)
        return None

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        both = [
            asyncio.create_task(_copy(reader, server_writer)),
            asyncio.create_task(_copy(server_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
            server_writer.close()

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()


@asynccontextmanager
async def balancing(port: int, servers: Sequence[int]) -> AsyncIterator[None]:
    """Pass connections to ``port`` on to the ports ``servers``, for as long as the block lasts.

    Raises:
        ConfigError: listening on the port failed.
    """
    balancer = Balancer(servers)
    try:
        listener = await asyncio.start_server(balancer.accept, HOST, port)
    except OSError as error:
        raise ConfigError(
            f"Can't listen on {HOST} port {port}: {os.strerror(error.errno) if error.errno else error}. Does another "
            "program use it? Name a free one with --port, or --port 0 to have one selected."
        ) from None
    try:
        yield
    finally:
        listener.close()
        await balancer.close()
