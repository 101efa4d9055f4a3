"""A server that does nothing: speaks the calls a client needs, reads each body and throws it away.

A program of its own (``python -m benchmarks.sink``), so that its processor time is not the client's; and as little
of it as reading takes, for it runs on the same cores. All bodies are read into the same piece of memory.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.processes import started

LOOK_BYTES: Final = 256 << 10
"""Of a body, before the sink wakes up for it: at each packet it would interrupt the client that it measures."""


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
    """The calls of one upload client, over all its connections."""

    def __init__(self, hold: bool) -> None:
        self.hold = hold
        self.nbytes = 0
        self.memory = memoryview(bytearray(1 << 20))

    def answer(self, method: str, path: str, host: str) -> tuple[object, str]:
        """The JSON of a reply, and a header more."""
        if method == "PUT":
            return {}, ""
        if path == "/gateway/time":
            now = time.time() * 1000.0
            return {"receivedAtUnixMs": now, "transmittedAtUnixMs": now}, ""
        if path == "/rheed/stream/":
            return str(uuid.uuid4()), "Atomstream: 1\r\n"
        if path == "/data_entries/raw_data/staged/upload_urls/":
            return [{"upload_id": "x", "url": f"http://{host}/put", "part": 0}], ""
        return {"bytes": self.nbytes}, ""  # ``/received``, and whatever ends a stream

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        print(listening.sockets[0].getsockname()[1], flush=True)
        await listening.serve_forever()


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 as clients of an upload speak it: requests with a Content-Length, one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._head = b""
        self._left = 0
        self._uploads = False
        self._reply = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        self._awaited = 1

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.memory  # of all connections: what came is looked at before the next one is read

    def buffer_updated(self, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            at += self._take_body(nbytes - at) if self._left else self._take_head(at, nbytes)
        self._await(max(1, min(self._left, LOOK_BYTES)))

    def _await(self, nbytes: int) -> None:
        """Let the system wake us only for so many bytes, where it can."""
        if nbytes != self._awaited:
            self._awaited = nbytes
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def _take_body(self, nbytes: int) -> int:
        taken = min(self._left, nbytes)
        self._left -= taken
        self._server.nbytes += taken if self._uploads else 0
        if not self._left:
            self._transport.write(self._reply)
        return taken

    def _take_head(self, start: int, end: int) -> int:
        """Read a head as far as it is there; how many of the bytes were its own."""
        before = len(self._head)
        self._head += self._server.memory[start:end]
        head, found, _ = self._head.partition(b"\r\n\r\n")
        if not found:
            return end - start
        self._head = b""
        self._begin(head.decode("latin-1"))
        return len(head) + len(found) - before

    def _begin(self, head: str) -> None:
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)
        }
        answer, more = self._server.answer(method, urlsplit(target).path, headers.get("host", ""))
        payload = json.dumps(answer)
        kind = "Content-Type: application/json\r\n"
        self._reply = (
            f"HTTP/1.1 200 OK\r\n{kind}{more}Content-Length: {len(payload)}\r\n\r\n{payload}".encode()
        )
        self._left = int(headers.get("content-length", "0"))
        self._uploads = method == "PUT"
        if self._server.hold and self._uploads:
            self._reply = b""
            self._transport.pause_reading()
        if not self._left:
            self._transport.write(self._reply)


if __name__ == "__main__":
    asyncio.run(Server("hold" in sys.argv[1:]).serve())
