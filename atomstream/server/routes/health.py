"""What needs no key: reference time and a sign of life."""

from __future__ import annotations

import time

from aiohttp import web

from atomstream.server.http.responses import json_reply


async def reference_time(_request: web.Request) -> web.Response:
    """``GET /gateway/time``: when the request was received and when the reply left, UTC ms."""
    received = time.time_ns()
    return json_reply({"receivedAtUnixMs": received / 1e6, "transmittedAtUnixMs": time.time_ns() / 1e6})


async def health(_request: web.Request) -> web.Response:
    """``GET /health``: the server answers."""
    return json_reply({"status": "ok"})
