"""A minimal server: it answers the calls of a client, reads each body and discards it.

It is a separate program (``python -m benchmarks.sink``), so that its CPU time does not count for the client, and it
does as little as possible, because it runs on the same cores. All bodies are read into the same buffer.
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

LOOK_BYTES: Final = 1 << 20
"""Bytes of a body before the sink wakes up. Waking at each packet would interrupt the client, which a server on
another computer does not do (measured: 6 % of the speed of a fast client at a quarter of this value)."""


HEAD_BYTES: Final = 64 << 10
END: Final = b"\r\n\r\n"
DISCARD: Final = socket.MSG_TRUNC if sys.platform == "linux" else 0
"""Linux discards the data in the kernel and does not copy them (man 7 tcp)."""


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink."""

    url: str

    def received(self) -> int:
        """Return the number of body bytes so far."""
        with urlopen(f"{self.url}/received", timeout=30) as reply:
            return int(json.load(reply)["bytes"])


@contextmanager
def running_sink(*, hold: bool = False) -> Iterator[Sink]:
    """Run a sink in another process; with ``hold`` it never reads or answers uploads."""
    with started("-m", "benchmarks.sink", *(["hold"] if hold else [])) as process:
        assert process.stdout is not None
        yield Sink(f"http://127.0.0.1:{int(process.stdout.readline())}")


class Server:
    """Answers the calls of one upload client, over all its connections."""

    def __init__(self, hold: bool) -> None:
        self.hold = hold
        self.nbytes = 0
        self.held: list[Connection] = []
        self.memory = memoryview(bytearray(1 << 20))

    def answer(self, method: str, path: str, host: str) -> tuple[object, str]:
        """Return the JSON of a reply, and additional headers."""
        if method == "PUT":
            return {}, ""
        if path == "/gateway/time":
            now = time.time() * 1000.0
            return {"receivedAtUnixMs": now, "transmittedAtUnixMs": now}, ""
        if path == "/rheed/stream/":
            return str(uuid.uuid4()), "Atomstream: 1\r\n"
        if path == "/data_entries/raw_data/staged/upload_urls/":
            return [{"upload_id": "x", "url": f"http://{host}/put", "part": 0}], ""
        # ``/received``, requests that end a stream, and those for its analysis, which a sink has not
        return {"bytes": self.nbytes, "status": "none"}, ""

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
            listening.setblocking(False)
            print(listening.getsockname()[1], flush=True)
            while True:
                client, _ = await loop.sock_accept(listening)
                Connection(self, loop, client)


class Connection:
    """HTTP/1.1 for upload clients: requests with Content-Length, one after the other."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
        self._server = server
        self._loop = loop
        self._socket = client
        self._head = b""
        self._left = 0
        self._uploads = False
        self._reply = b""
        self._awaited = 1
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(client, self._ready)

    def _ready(self) -> None:
        try:
            came = self._read_body() if self._left else self._read_head()
        except BlockingIOError:
            return
        except ConnectionError:  # a client may disconnect at any time
            came = 0
        if came:
            self._await(max(1, min(self._left, LOOK_BYTES)))
        else:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _read_body(self) -> int:
        nbytes = min(self._left, len(self._server.memory))
        taken = self._socket.recv_into(self._server.memory, nbytes, DISCARD)
        self._take(taken)
        return taken

    def _take(self, nbytes: int) -> None:
        self._left -= nbytes
        self._server.nbytes += nbytes if self._uploads else 0
        if not self._left:
            self._socket.send(self._reply)

    def _read_head(self) -> int:
        data = self._socket.recv(HEAD_BYTES)
        self._head += data
        while not self._left and (found := self._head.find(END)) >= 0:
            head, self._head = self._head[:found], self._head[found + len(END) :]
            self._begin(head.decode("latin-1"))
        return len(data)

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
        self._uploads = method == "PUT"
        if self._uploads and self._server.hold:
            self._reply = b""
            self._loop.remove_reader(self._socket)
            self._server.held.append(self)  # keep a reference, or the socket would be closed
        self._left = int(headers.get("content-length", "0"))
        come = min(self._left, len(self._head))
        self._head = self._head[come:]
        self._take(come)

    def _await(self, nbytes: int) -> None:
        """Set the low-water mark of the socket, where the system supports it: the process wakes up only after
        ``nbytes``."""
        if nbytes != self._awaited:
            self._awaited = nbytes
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)


if __name__ == "__main__":
    asyncio.run(Server("hold" in sys.argv[1:]).serve())
