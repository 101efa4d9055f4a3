"""An HTTP server in memory that behaves as the hosted service and can fail on request."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from atomstream.records import Frames
from atomstream.shard import decode_shard
from atomstream.testing.context import AsyncOrThreaded

if TYPE_CHECKING:
    from aiohttp import web

MAX_BODY_BYTES: Final = 1 << 30
"""Longest body that is accepted; a chunk of 240 frames of 1024x1024 has at most 253 MB."""

Step: TypeAlias = Literal["time", "create", "url", "put", "end"]
"""A request that can fail: read the time, create a stream, request an upload URL, upload a chunk, end a stream."""

Fault: TypeAlias = "Callable[[web.Request], Any]"
"""Answers a request instead of the service: returns a response, or an awaitable of one."""


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it arrived; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    received_s: float = 0.0
    """``time.monotonic()`` when it had arrived."""


class Attempt(NamedTuple):
    """One request about a chunk, or about the end of a stream (then ``chunk_idx`` is -1), failed or not."""

    step: Step
    data_id: str
    chunk_idx: int


@dataclass
class _Stream:
    """What the service has of one stream: decoded sizes and the encoded bodies, by chunk index."""

    dims: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    bodies: dict[int, list[bytes]] = field(default_factory=dict)
    ended: bool = False


class MemoryService(AsyncOrThreaded):
    """A service on a free loopback port that keeps every chunk in memory.

    It has the hosted service's protocol: 8-bit frames, no live results. For 16-bit frames, events and results use
    :func:`atomstream.testing.running_server`. Every API key is accepted unless :attr:`refuse_key` is set::

        async with MemoryService() as service:
            async with AsyncRHEEDStreamer(service.api_key, service.url) as streamer:
                ...
            frames = service.frames(data_id)

    Its methods may be called from any thread while it runs.
    """

    api_key: Final = "memory-service-key"

    def __init__(self) -> None:
        super().__init__()
        self.url = ""
        """The endpoint; a new free port at each start."""
        self.refuse_key = False
        """If True, every request that carries an API key is answered with 401."""
        self.delay_s = 0.0
        """Seconds that each upload waits before it is stored."""
        self.requests: list[ReceivedRequest] = []
        """All requests so far, in order of arrival."""
        self.attempts: list[Attempt] = []
        """Requests for upload URLs, uploads and ends of streams so far, in order of arrival."""
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        """Faults by step ("time", "create", "url", "put", "end"); each one answers one request."""
        self.fault_for: Callable[[Attempt], Fault | None] = lambda attempt: None
        """Returns a fault for some attempts, None for the others; called if :attr:`faults` has none."""
        self.next_ids: deque[str] = deque()
        """Ids of the next streams; a random UUID if there is none."""
        self._streams: dict[str, _Stream] = {}
        self._held = False
        self._released = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stack: AsyncExitStack | None = None

    # -- what was stored -----------------------------------------------------------------------------------

    @property
    def data_ids(self) -> list[str]:
        """The ids of all streams, in order of their creation."""
        return list(self._streams)

    def chunk_indices(self, data_id: str) -> list[int]:
        """The indices of the stored chunks, sorted."""
        return sorted(self._streams[data_id].bodies)

    def chunk(self, data_id: str, index: int) -> Frames:
        """The decoded frames (N, H, W) of one stored chunk.

        Raises:
            KeyError: it is not stored. ShardError: its bytes are not a valid shard.
        """
        stream = self._streams[data_id]
        return decode_shard(stream.bodies[index][-1], stream.dims[index])

    def uploads(self, data_id: str, index: int) -> list[bytes]:
        """The bodies of all successful uploads of one chunk, in order; the last one is what is stored."""
        return list(self._streams[data_id].bodies.get(index, ()))

    def frames(self, data_id: str) -> npt.NDArray[Any]:
        """All stored frames (N, H, W), chunk after chunk in order of their indices; (0, 0, 0) if there are none."""
        chunks = [self.chunk(data_id, index) for index in self.chunk_indices(data_id)]
        return np.concatenate(chunks) if chunks else np.empty((0, 0, 0), np.uint8)

    def ended(self, data_id: str) -> bool:
        """True after the client has ended the stream."""
        return self._streams[data_id].ended

    # -- faults --------------------------------------------------------------------------------------------

    def fail_next(self, count: int = 1, *, step: Step = "put", status: int = 503, **headers: str) -> None:
        """Answer the next ``count`` requests of that step with ``status``.

        Underscores in header names stand for dashes: ``fail_next(status=429, Retry_After="1")``. 5xx and 429 are
        temporary for the client, another 4xx is final.
        """
        self.faults[step].extend([_answer(status, headers)] * count)

    def break_next(self, count: int = 1, *, step: Step = "put") -> None:
        """Close the connection of the next ``count`` requests of that step without an answer."""
        self.faults[step].extend([_close_connection] * count)

    def hold_uploads(self) -> None:
        """Let uploads wait until :meth:`release_uploads`; nothing is stored meanwhile."""
        self._held = True

    def release_uploads(self) -> None:
        """Store the uploads that wait since :meth:`hold_uploads`; later uploads are stored at once."""
        self._held = False
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._released.set)

    # -- the server ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen on a free port of the loopback address."""
        from aiohttp import web

        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._loop = asyncio.get_running_loop()
            self._released = asyncio.Event()
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Stop listening; what was stored can still be read."""
        stack, self._stack, self._loop = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(
            ReceivedRequest(
                request.method,
                request.rel_url.raw_path,
                dict(request.query),
                headers,
                body,
                time.monotonic(),
            )
        )
        reply = self._reply(request, body)
        answer: web.StreamResponse = await reply if inspect.isawaitable(reply) else reply
        return answer

    def _reply(self, request: web.Request, body: bytes) -> Any:
        path = request.rel_url.raw_path
        if self.refuse_key and "X-API-KEY" in request.headers:
            return _json({"detail": "This API key is not known."}, 401)
        if path == "/gateway/time":
            return self._next_fault("time", request) or _time()
        if path == "/rheed/stream/":
            return self._next_fault("create", request) or self._create()
        if path.endswith("/upload_urls/"):
            form, name = json.loads(body), request.query["original_filename"]
            attempt = Attempt("url", form["data_id"], int(name.split("/")[3]))
            return self._fault(attempt, request) or self._upload_url(attempt, form["dims"], name)
        if request.method == "PUT":
            parts = path.split("/")  # /blob/<data_id>/frames.zarr/frames/c/<index>/0/0
            attempt = Attempt("put", parts[2], int(parts[6]))
            return self._fault(attempt, request) or self._store(attempt, body)
        if path.endswith("/end"):
            attempt = Attempt("end", path.split("/")[3], -1)
            return self._fault(attempt, request) or self._end(attempt.data_id)
        # Samples, tags and projects: the lists are empty, and each creation returns a new id.
        return _json([] if request.method == "GET" else {"id": str(uuid.uuid4())})

    def _fault(self, attempt: Attempt, request: web.Request) -> Any:
        self.attempts.append(attempt)
        answer = self._next_fault(attempt.step, request)
        if answer is not None:
            return answer
        fault = self.fault_for(attempt)
        return None if fault is None else fault(request)

    def _next_fault(self, step: Step, request: web.Request) -> Any:
        waiting = self.faults[step]
        return waiting.popleft()(request) if waiting else None

    def _create(self) -> web.Response:
        data_id = self.next_ids.popleft() if self.next_ids else str(uuid.uuid4())
        self._streams[data_id] = _Stream()
        return _json(data_id)

    def _upload_url(self, attempt: Attempt, dims: str, name: str) -> web.Response:
        data_id = attempt.data_id
        stream = self._streams.get(data_id)
        if stream is None:
            return _unknown(data_id)
        n_frames, height, width = map(int, dims.split(","))
        stream.dims[attempt.chunk_idx] = n_frames, height, width
        return _json([{"upload_id": "1", "url": f"{self.url}/blob/{data_id}/{name}?sig=once", "part": 0}])

    async def _store(self, attempt: Attempt, body: bytes) -> web.Response:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        while self._held:
            self._released.clear()
            await self._released.wait()
        stream = self._streams.get(attempt.data_id)
        if stream is None:
            return _unknown(attempt.data_id)
        stream.bodies.setdefault(attempt.chunk_idx, []).append(body)
        return _json({})

    def _end(self, data_id: str) -> web.Response:
        stream = self._streams.get(data_id)
        if stream is None:
            return _unknown(data_id)
        stream.ended = True
        return _json({"ok": True})


def _time() -> web.Response:
    now_ms = time.time() * 1e3
    return _json({"receivedAtUnixMs": now_ms, "transmittedAtUnixMs": now_ms})


def _json(data: Any, status: int = 200) -> web.Response:
    from aiohttp import web

    return web.json_response(data, status=status)


def _unknown(data_id: str) -> web.Response:
    return _json({"detail": f"There is no stream {data_id!r}."}, 404)


def _answer(status: int, headers: dict[str, str]) -> Fault:
    from aiohttp import web

    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: web.json_response(
        {"detail": "a fault that the test asked for"}, status=status, headers=spelled
    )


def _close_connection(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return _json({}, 503)
