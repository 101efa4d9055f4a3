"""``atomstream serve --store`` in a separate process, and a connection to S3 that acts at a chosen moment."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from atomstream.system.child_end import end_child


class ServerProcess:
    """A server on ``port`` (0: a free one) with the cache ``data_dir``. ``environment`` has the keys of the store."""

    def __init__(self, store: str, data_dir: Path, api_key: str, environment: dict[str, str]) -> None:
        self.url = ""
        self.data_dir = data_dir
        self._store = store
        self._environment = {**os.environ, **environment, "ATOMSTREAM_API_KEY": api_key}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it listens; after a kill, at the same address."""
        port = urlsplit(self.url).port or 0
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atomstream", "serve", "--store", self._store),
            *("--data", str(self.data_dir), "--port", str(port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=self._environment,
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert b"listens at" in line, line
        self.url = line.decode().split()[-1]

    def kill(self) -> None:
        """SIGKILL, without waiting."""
        assert self._process is not None
        self._process.kill()

    async def ended(self) -> None:
        """Returns when the process has ended."""
        if self._process is not None:
            await end_child(self._process)


@asynccontextmanager
async def passed_on(endpoint: str, heard: Callable[[str, bytes], bool]) -> AsyncIterator[str]:
    """An endpoint that passes everything on to ``endpoint``.

    ``heard("request" | "reply", data)`` is called before data are passed on; if it returns False, the connection ends
    instead.
    """
    parts = urlsplit(endpoint)

    async def copy(what: str, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while (data := await source.read(1 << 16)) and heard(what, data):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind, to_behind = await asyncio.open_connection(parts.hostname, parts.port)
        except ConnectionError:  # as if nothing listened here
            writer.close()
            return
        await asyncio.gather(copy("request", reader, to_behind), copy("reply", behind, writer))
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
