"""``/retention``: what the rules of retention would do, a run of them, and what the last run did."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from atomstream.protocol import RETENTION_PATH, RETENTION_PREVIEW_PATH, RETENTION_RUN_PATH
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.gate import require_all_projects
from atomstream.server.http.responses import json_reply, refuse
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

_WHAT: Final = "The rules of retention concern all projects"


@routes.get(RETENTION_PATH)
@access(Right.ADMIN)
async def report(request: web.Request) -> web.Response:
    """``GET /retention``: the report of the run that goes on or of the last one; null before the first."""
    require_all_projects(request, _WHAT)
    return json_reply(await context_of(request).retention.refresh())


@routes.get(RETENTION_PREVIEW_PATH)
@access(Right.ADMIN)
async def preview(request: web.Request) -> web.Response:
    """``GET /retention/preview``: the report of a run that changes nothing."""
    require_all_projects(request, _WHAT)
    return json_reply(await context_of(request).retention.preview())


@routes.post(RETENTION_RUN_PATH)
@access(Right.ADMIN)
async def run(request: web.Request) -> web.Response:
    """``POST /retention/run``: apply the rules now, in the background; 409 while a run goes on."""
    require_all_projects(request, _WHAT)
    retention = context_of(request).retention
    if not retention.start():
        return refuse(409, "The rules are being applied already; GET /retention has the report.")
    await audit(request, "the rules of retention were applied")
    return json_reply({"running": True}, status=202)
