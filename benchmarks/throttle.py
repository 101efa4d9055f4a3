"""A TCP proxy with limited bandwidth towards the server, to simulate a slow uplink."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PIECE = 16 << 10


class Throttle:
    """Limits all connections together to ``bits_per_s`` towards the server; replies are not limited."""

    def __init__(self, host: str, port: int, bits_per_s: float) -> None:
        self._target = host, port
        self._seconds_per_byte = 8.0 / bits_per_s
        self._free_at = 0.0
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self) -> None:
        """Start to listen."""
        self._server = server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
        self.port = server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back_writer}
        await asyncio.gather(
            self._pump(reader, back_writer, slow=True), self._pump(back_reader, writer, slow=False),
            return_exceptions=True,
        )  # fmt: skip

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        try:
            while piece := await reader.read(PIECE):
                if slow:
                    await self._wait(len(piece))
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    async def _wait(self, nbytes: int) -> None:
        now = time.monotonic()
        self._free_at = max(self._free_at, now) + nbytes * self._seconds_per_byte
        await asyncio.sleep(self._free_at - now)

    def run(self) -> None:
        """Serve in this thread until :meth:`stop`."""
        self._loop.run_forever()
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()  # both sides see the closed sockets, and the copy tasks end
        self._loop.run_until_complete(_all_others())
        self._loop.close()

    def start(self) -> threading.Thread:
        """Listen and serve in a new thread."""
        self._loop.run_until_complete(self.open())
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        """Stop the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)


async def _all_others() -> None:
    """Wait until all other tasks of this loop have ended."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def throttled(url: str, bits_per_s: float) -> Iterator[str]:
    """Return a URL that leads to ``url`` with this bandwidth."""
    parts = urlsplit(url)
    throttle = Throttle(parts.hostname or "127.0.0.1", parts.port or 80, bits_per_s)
    thread = throttle.start()
    try:
        yield f"http://127.0.0.1:{throttle.port}"
    finally:
        throttle.stop()
        thread.join()
