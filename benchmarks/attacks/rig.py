"""What an attack has: a real server, a stream that runs meanwhile, and raw requests of any form."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import numpy as np

from atomstream.server.archive.stream_archive import StreamArchive
from benchmarks.lab_server import LabServer
from tests.wire_client import START_MS, Address, WireClient, make_frames, shard_bytes

FRAMES: Final = make_frames(6, 48, 64)
"""A chunk of the stream that runs during each attack."""
PERIOD_S: Final = 0.25
FPS: Final = 24.0
REPLY_S: Final = 20.0


@dataclass(frozen=True)
class Outcome:
    """How an attack ended: how often it was tried, what the server answered, and whether that is as it should be."""

    tries: int
    answer: str
    right: bool


@dataclass
class Running:
    """The stream that runs: seconds from the beginning of a chunk's upload to its answer, and refused tries."""

    delays_s: list[float] = field(default_factory=list)
    refused: int = 0
    stored: int = 0


class Rig:
    """One server under attack."""

    def __init__(self, server: LabServer) -> None:
        self.server = server
        self.running = Running()
        self._camera = ""

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
        """A stream that runs for the duration of the block: a chunk each quarter of a second."""
        self.running = Running()
        async with self.client() as client:
            self._camera = await client.create("camera", fps_capture_rate=FPS)
            await self._push(client, 0)
            self.running = Running()
            task = asyncio.create_task(self._film(client))
            try:
                yield
            finally:
                await asyncio.sleep(2 * PERIOD_S)
                task.cancel()
                await asyncio.wait([task])

    async def _film(self, client: WireClient) -> None:
        index = 1
        while True:
            began = time.monotonic()
            while not await self._push(client, index):
                self.running.refused += 1
                await asyncio.sleep(0.1)
            self.running.delays_s.append(time.monotonic() - began)
            self.running.stored = index
            index += 1
            await asyncio.sleep(max(0.0, PERIOD_S - (time.monotonic() - began)))

    async def _push(self, client: WireClient, index: int) -> bool:
        begin = START_MS + 1000.0 * index * len(FRAMES) / FPS
        end = begin + 1000.0 * len(FRAMES) / FPS
        times: dict[str, Any] = {"start_unix_ms_utc": f"{begin:.0f}", "end_unix_ms_utc": f"{end:.0f}"}
        try:
            status, _ = await client.send(self._camera, index, np.roll(FRAMES, index), len(FRAMES), **times)
        except (aiohttp.ClientError, OSError, AssertionError, TimeoutError):
            return False
        return status == 200

    def lost(self) -> int:
        """Answered chunks of the stream that the archive does not have as they were sent."""
        archive = StreamArchive.open(self.server.data / "streams" / self._camera)
        size = len(FRAMES)
        return sum(
            not np.array_equal(archive.frames(index * size, (index + 1) * size), np.roll(FRAMES, index))
            for index in range(1, self.running.stored + 1)
        )

    # -- raw requests ------------------------------------------------------------------------------------

    async def connect(self, *, receive_bytes: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection; with ``receive_bytes`` its receive buffer is that small."""
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, self.address)
        return await asyncio.open_connection(sock=made)

    async def raw(self, data: bytes, *, within_s: float = REPLY_S) -> int:
        """Send bytes on a connection of their own. Returns the status; 0 if it was closed, -1 without an answer."""
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
        """The same with the API key, and a JSON body."""
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


def told(found: Counter[int]) -> str:
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


__all__ = ["FRAMES", "Outcome", "Rig", "Running", "closed", "count", "shard_bytes", "told"]
