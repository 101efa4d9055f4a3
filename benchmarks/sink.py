"""A server that does nothing: speaks the calls a client needs, reads each body and throws it away.

A program of its own (``python -m benchmarks.sink``), so that its processor time is not the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

from aiohttp import web

from benchmarks.processes import started


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink."""

    url: str

    def received(self) -> int:
        """Bytes of all bodies so far."""
        with urlopen(f"{self.url}/received", timeout=30) as reply:
            return int(json.load(reply)["bytes"])


@contextmanager
def running_sink(*, hold: bool = False) -> Iterator[Sink]:
    """A sink in another process; with ``hold`` it never answers an upload, nor reads it."""
    with started("-m", "benchmarks.sink", *(["hold"] if hold else [])) as process:
        assert process.stdout is not None
        yield Sink(f"http://127.0.0.1:{int(process.stdout.readline())}")


class Server:
    """The calls of one upload client."""

    def __init__(self, hold: bool) -> None:
        self._hold = hold
        self._port = 0
        self._bytes = 0

    async def clock(self, _: web.Request) -> web.Response:
        now = time.time() * 1000.0
        return web.json_response({"receivedAtUnixMs": now, "transmittedAtUnixMs": now})

    async def stream(self, _: web.Request) -> web.Response:
        return web.json_response(str(uuid.uuid4()), headers={"Atomstream": "1"})

    async def url(self, request: web.Request) -> web.Response:
        await request.read()
        return web.json_response([{"upload_id": "x", "url": f"http://{request.host}/put", "part": 0}])

    async def put(self, request: web.Request) -> web.Response:
        if self._hold:
            await asyncio.Event().wait()
        with contextlib.suppress(ConnectionError):  # a client may go in the middle
            async for part in request.content.iter_any():
                self._bytes += len(part)
        return web.Response()

    async def done(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def received(self, _: web.Request) -> web.Response:
        return web.json_response({"bytes": self._bytes})

    async def serve(self) -> None:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_get("/gateway/time", self.clock)
        app.router.add_post("/rheed/stream/", self.stream)
        app.router.add_post("/data_entries/raw_data/staged/upload_urls/", self.url)
        app.router.add_put("/put", self.put)
        app.router.add_post("/rheed/stream/{data_id}/end", self.done)
        app.router.add_get("/received", self.received)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        print(self._port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(Server("hold" in sys.argv[1:]).serve())
