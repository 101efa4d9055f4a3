"""A fake of the hosted service: it does not announce itself as ours, stores what it receives, and fails as scripted."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from aiohttp import web

from atomstream.shard import decode_shard
from tests.service.recorder import RecordedRequest, listening

KEY = "RECORDED-KEY"
Fault: TypeAlias = Callable[[web.Request], Any]


def held(until: asyncio.Event, status: int = 503) -> Fault:
    """A fault that waits until ``until`` is set before it answers."""

    async def answer(request: web.Request) -> web.Response:
        await until.wait()
        return web.Response(status=status)

    return answer


def answers(status: int, text: str = "scripted", **headers: str) -> Fault:
    """A fault that is a plain response; underscores in header names stand for dashes."""
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: web.Response(status=status, text=text, headers=spelled)


@dataclass
class Hosted:
    """A fault is a callable that makes the response instead of the service; it may be async.

    Each request uses up one of ``faults["url" | "put" | "end"]``; when the list is empty, requests succeed.
    ``verdict(kind, data_id, index)`` may return a fault for single chunks, any number of times.
    """

    ids: list[str] = field(default_factory=list)
    asked: list[RecordedRequest] = field(default_factory=list)
    faults: defaultdict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    verdict: Callable[[str, str, int], Fault | None] = lambda kind, data_id, index: None
    dims: dict[tuple[str, int], tuple[int, int, int]] = field(default_factory=dict)
    bodies: dict[tuple[str, int], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    attempts: list[tuple[str, str, int]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    url: str = ""

    def frames(self, data_id: str, index: int) -> npt.NDArray[np.uint8]:
        """The frames of a chunk's last upload, decoded."""
        return decode_shard(self.bodies[data_id, index][-1], self.dims[data_id, index])

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record the request, then answer it."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(
            RecordedRequest(request.method, request.rel_url.raw_path, dict(request.query), headers, body)
        )
        reply = self._route(request, body)
        return await reply if inspect.isawaitable(reply) else reply

    def _route(self, request: web.Request, body: bytes) -> Any:
        path = request.rel_url.raw_path
        if path == "/gateway/time":
            now = time.time() * 1e3
            return web.json_response({"receivedAtUnixMs": now, "transmittedAtUnixMs": now})
        if path == "/rheed/stream/":
            return web.json_response(self.ids.pop(0) if self.ids else str(uuid.uuid4()))
        if path.endswith("/upload_urls/"):
            return self._sign(request, json.loads(body))
        if request.method == "PUT":
            return self._store(request, body)
        if path.endswith("/end"):
            return self._end(request, path.split("/")[3])
        return web.json_response([] if request.method == "GET" else {"id": str(uuid.uuid4())})

    def _sign(self, request: web.Request, form: dict[str, str]) -> Any:
        name = request.query["original_filename"]
        key = form["data_id"], int(name.split("/")[3])
        if (fault := self._fault("url", *key)) is not None:
            return fault(request)
        n, height, width = map(int, form["dims"].split(","))
        self.dims[key] = n, height, width
        return web.json_response(
            [{"upload_id": "u", "url": f"{self.url}/blob/{form['data_id']}/{name}?sig=once", "part": 0}]
        )

    def _store(self, request: web.Request, body: bytes) -> Any:
        parts = request.rel_url.raw_path.split("/")
        key = parts[2], int(parts[6])
        if (fault := self._fault("put", *key)) is not None:
            return fault(request)
        self.bodies[key].append(body)
        return web.Response()

    def _end(self, request: web.Request, data_id: str) -> Any:
        if (fault := self._fault("end", data_id, -1)) is not None:
            return fault(request)
        self.ended.append(data_id)
        return web.json_response({"ok": True})

    def _fault(self, kind: str, data_id: str, index: int) -> Fault | None:
        self.attempts.append((kind, data_id, index))
        self.times_s.append(time.monotonic())
        return self.faults[kind].popleft() if self.faults[kind] else self.verdict(kind, data_id, index)


@asynccontextmanager
async def hosted() -> AsyncIterator[Hosted]:
    """A running :class:`Hosted`."""
    service = Hosted()
    async with listening(service.handle) as service.url:
        yield service
