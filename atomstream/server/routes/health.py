"""Requests that need no key: reference time and health."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from atomstream.protocol import HEALTH_PATH, READY_PATH, TIME_PATH
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.context import ServerContext, context_of
from atomstream.server.http.access import access
from atomstream.server.http.responses import json_reply
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()


@routes.get(TIME_PATH)
@access(Right.NONE)
async def reference_time(_request: web.Request) -> web.Response:
    """``GET /gateway/time``: times at which the request was received and the reply sent, in UTC ms."""
    received = time.time_ns()
    return json_reply({"receivedAtUnixMs": received / 1e6, "transmittedAtUnixMs": time.time_ns() / 1e6})


@routes.get(HEALTH_PATH)
@access(Right.NONE)
async def health(_request: web.Request) -> web.Response:
    """``GET /health``: for monitoring; always ``ok`` while the server runs."""
    return json_reply({"status": "ok"})


CATALOGUE_S = 5.0
"""Time for one query of the catalogue."""


@routes.get(READY_PATH)
@access(Right.NONE)
async def ready(request: web.Request) -> web.Response:
    """``GET /healthz``: 200 if the server can store chunks, else 503; ``reasons`` has the causes.

    A reply at all means that it is live. Damaged streams are not a reason: all others are served. Nor is a catalogue on
    PostgreSQL that can't be reached, which is in ``without``: chunks of streams that run are stored.
    """
    context = context_of(request)
    reasons = await _reasons(context)
    reply: dict[str, Any] = {"live": True, "ready": not reasons, "reasons": reasons}
    if away := context.streams_table.problem:
        reply["without"] = [away]
    return json_reply(reply, status=503 if reasons else 200)


async def _reasons(context: ServerContext) -> list[str]:
    found = []
    if context.ingest.is_stopping:
        found.append("The server is stopping.")
    if not os.access(context.settings.streams_dir, os.W_OK | os.X_OK):
        found.append("The data folder is missing, or this server may not write to it.")
    elif full := context.disk.problem():
        found.append(full)
    try:
        async with asyncio.timeout(CATALOGUE_S):
            await context.streams_table.known([""])
    except TimeoutError:
        found.append(f"The catalogue does not answer within {CATALOGUE_S:g} s.")
    except CatalogueUnavailableError:
        pass
    except SQLAlchemyError:
        found.append("The catalogue can't be read; a start of the server builds it again from the files.")
    return found
