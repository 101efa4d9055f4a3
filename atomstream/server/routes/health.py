"""Requests that need no key: reference time and health."""

from __future__ import annotations

import time

from aiohttp import web

from atomstream.protocol import HEALTH_PATH, TIME_PATH
from atomstream.server.http.access import Access, access
from atomstream.server.http.responses import json_reply

routes = web.RouteTableDef()


@routes.get(TIME_PATH)
@access(Access.PUBLIC)
async def reference_time(_request: web.Request) -> web.Response:
    """``GET /gateway/time``: times at which the request was received and the reply sent, in UTC ms."""
    received = time.time_ns()
    return json_reply({"receivedAtUnixMs": received / 1e6, "transmittedAtUnixMs": time.time_ns() / 1e6})


@routes.get(HEALTH_PATH)
@access(Access.PUBLIC)
async def health(_request: web.Request) -> web.Response:
    """``GET /health``: for monitoring; always ``ok`` while the server runs."""
    return json_reply({"status": "ok"})
