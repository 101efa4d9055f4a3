"""Tools for an attack: a real server, a stream that runs meanwhile, and raw requests of any form."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import numpy as np

from atomstream.server.archive.stream_archive import StreamArchive
from benchmarks.attacks.bystander import FRAMES, Bystander, Running
from benchmarks.lab_server import LabServer
from tests.wire_client import Address, WireClient, shard_bytes

REPLY_S: Final = 20.0


@dataclass(frozen=True)
class Outcome:
    """How an attack ended: how often it was tried, what the server answered, and whether that is the expected
    answer.
    """

    tries: int
    answer: str
    right: bool


class Rig:
    """One server under attack."""

    def __init__(self, server: LabServer, stream: Bystander) -> None:
        self.server = server
        self.running = Running("")
        self._bystander = stream

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        return host, int(port)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[WireClient]:
        """A client with the key."""
        limit = aiohttp.ClientTimeout(total=60)
        async with WireClient(Address(self.server.url, self.server.api_key), timeout=limit) as client:
            yield client

    @asynccontextmanager
    async def camera(self) -> AsyncIterator[None]:
        """A stream that runs for the duration of the block, in another process: a chunk every quarter of a second."""
        await asyncio.to_thread(self._bystander.begin)
        try:
            yield
        finally:
            self.running = await asyncio.to_thread(self._bystander.end)

    def lost(self) -> int:
        """Answered chunks of the stream that the archive does not have as they were sent."""
        archive = StreamArchive.open(self.server.data / "streams" / self.running.data_id)
        size = len(FRAMES)
        return sum(
            not np.array_equal(archive.frames(index * size, (index + 1) * size), np.roll(FRAMES, index))
            for index in range(1, self.running.stored + 1)
        )

    # -- raw requests ------------------------------------------------------------------------------------

    async def connect(self, *, receive_bytes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection; ``receive_bytes`` limits its receive buffer."""
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, self.address)
        return await asyncio.open_connection(sock=made)

    async def raw(self, data: bytes, *, within_s: float = REPLY_S) -> int:
        """Send bytes on a new connection. Returns the status; 0 if it was closed, -1 without an answer."""
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await self.connect()
                try:
                    writer.write(data)
                    line = await reader.readline()
                finally:
                    writer.close()
        except TimeoutError:
            return -1
        except OSError:
            return 0
        parts = line.split()
        return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """The bytes of a request with a Host header; underscores in names of headers become hyphens."""
        host, port = self.address
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def keyed(self, method: str, path: str, body: Any = None) -> bytes:
        """A request with the API key and a JSON body."""
        raw = b"" if body is None else json.dumps(body).encode()
        return self.request(method, path, raw, X_API_KEY=self.server.api_key)


async def count(asks: Iterable[Callable[[], Awaitable[int]]], at_once: int = 32) -> Counter[int]:
    """How often each status was answered."""
    gate, found = asyncio.Semaphore(at_once), Counter[int]()

    async def one(ask: Callable[[], Awaitable[int]]) -> None:
        async with gate:
            found[await ask()] += 1

    await asyncio.gather(*(one(ask) for ask in asks))
    return found


def counts_text(found: Counter[int]) -> str:
    """The counted statuses as a text."""
    names = {0: "closed", -1: "no answer"}
    return ", ".join(f"{number} x {names.get(status, status)}" for status, number in found.most_common())


async def closed(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the server closes a connection within that time; what it sends is thrown away."""
    try:
        async with asyncio.timeout(within_s):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


__all__ = ["FRAMES", "Outcome", "Rig", "Running", "closed", "count", "counts_text", "shard_bytes"]
