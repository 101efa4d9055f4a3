"""A real HTTP server on a free loopback port. It records the requests and answers as the test defines.

``MemoryService`` of :mod:`atomstream.testing` is a service that works, with faults. The tests of single requests need
the opposite: a server on which nothing is defined but the answers that the test gives for a path, valid or not.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from aiohttp import web

from atomstream.service.api import ServiceApi
from atomstream.testing import ReceivedRequest

KEY = "RECORDED-KEY"
EVENT = {
    "time_s": 1.0,
    "kind": "note",
    "label": "",
    "value": None,
    "id": "i",
    "time_ms_utc": 1.0,
    "by": "user",
}
"""A valid event of the user, as a server sends it."""


Answer: TypeAlias = "web.StreamResponse | Awaitable[web.StreamResponse]"


@dataclass
class Recorder:
    """``answers`` maps "METHOD /path" to a callable that takes the request and its body and returns the answer."""

    answers: dict[str, Callable[[web.Request, bytes], Any]] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)
    url: str = ""

    def on(self, route: str, answer: Callable[[web.Request, bytes], Answer]) -> None:
        """Use ``answer`` for ``route`` from now on."""
        self.answers[route] = answer

    def on_json(self, route: str, data: Any, status: int = 200, **headers: str) -> None:
        """Answer ``route`` with JSON."""
        self.on(route, lambda _request, _body: web.json_response(data, status=status, headers=headers))

    def routes(self) -> list[str]:
        """Method and path of each request, in order."""
        return [f"{one.method} {one.path}" for one in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Record the request, then answer it."""
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(
            ReceivedRequest(request.method, request.rel_url.raw_path, dict(request.query), headers, body)
        )
        answer = self.answers.get(f"{request.method} {request.rel_url.raw_path}")
        if answer is None:
            return web.json_response({"detail": "nothing here"}, status=404)
        reply = answer(request, body)
        return await reply if inspect.isawaitable(reply) else reply


@asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    """A running :class:`Recorder`."""
    recorder = Recorder()
    async with listening(recorder.handle) as recorder.url:
        yield recorder


@asynccontextmanager
async def listening(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """A server that passes every request to ``handler``. Yields its URL."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def calling(
    url: str, *, request_timeout_s: float = 20.0, upload_timeout_s: float = 20.0, connections: int = 4
) -> AsyncIterator[ServiceApi]:
    """The API client under test. It is closed at the end."""
    api = ServiceApi(
        url,
        KEY,
        request_timeout_s=request_timeout_s,
        upload_timeout_s=upload_timeout_s,
        connections=connections,
    )
    try:
        yield api
    finally:
        await api.close()
