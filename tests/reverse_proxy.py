"""A small reverse proxy that publishes a server under a path prefix, as nginx or Apache do."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from yarl import URL

HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "date", "server"}
)
"""Headers that concern one connection only, and those that the proxy's own reply has."""


class ReverseProxy:
    """Forwards requests below ``prefix`` to ``target``; others are 404, and their paths are in ``outside``.

    ``strips`` removes the prefix (nginx: ``proxy_pass http://server/``), otherwise it is forwarded. ``keeps_host``
    forwards the client's Host header, otherwise the server gets its own address (the default of nginx).
    """

    def __init__(self, prefix: str, *, strips: bool, keeps_host: bool) -> None:
        self.prefix = prefix
        self.strips = strips
        self.keeps_host = keeps_host
        self.target = ""
        self.outside: list[str] = []
        self.url = ""
        self._session: aiohttp.ClientSession

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ReverseProxy]:
        """Listen; ``url`` is then the address with the prefix."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._forward)
        async with TestServer(app) as server, aiohttp.ClientSession(auto_decompress=False) as self._session:
            self.url = f"http://127.0.0.1:{server.port}{self.prefix}"
            yield self

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path != self.prefix and not path.startswith(f"{self.prefix}/"):
            self.outside.append(path)
            raise web.HTTPNotFound
        if self.strips:
            path = path.removeprefix(self.prefix) or "/"
        url = URL(self.target + path + f"?{request.rel_url.raw_query_string}", encoded=True)
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in HOP
        )
        if not self.keeps_host:
            headers["Host"] = urlsplit(self.target).netloc
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._join(request, url, headers)
        async with self._session.request(
            request.method, url, headers=headers, data=io.BytesIO(await request.read()), allow_redirects=False
        ) as reply:
            body = await reply.read()
            kept = CIMultiDict(
                (name, value) for name, value in reply.headers.items() if name.lower() not in HOP
            )
            return web.Response(status=reply.status, headers=kept, body=body)

    async def _join(self, request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
        protocols = request.headers.get("Sec-WebSocket-Protocol", "").replace(",", " ").split()
        for name in [name for name in headers if name.lower().startswith("sec-websocket")]:
            headers.popall(name, None)
        async with self._session.ws_connect(url, headers=headers, protocols=protocols) as inner:
            outer = web.WebSocketResponse(protocols=[inner.protocol] if inner.protocol else [])
            await outer.prepare(request)
            both = [asyncio.create_task(_pass_on(outer, inner)), asyncio.create_task(_pass_on(inner, outer))]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await outer.close(code=inner.close_code or 1001)
            await inner.close()
            await asyncio.wait(both)
            return outer


async def _pass_on(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    drain: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if drain.closed:
            return
        if message.type is aiohttp.WSMsgType.TEXT:
            await drain.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await drain.send_bytes(message.data)
