"""``GET /dashboard/problems``: a full disk and damaged files, for the pages."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from atomstream.server.context import ServerContext, context_of
from atomstream.server.dashboard.throughput import THROUGHPUT
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Principal, Right

routes = web.RouteTableDef()

MAX_SENTENCES = 50


@routes.get("/dashboard/problems")
@access(Right.READ)
async def problems(request: web.Request) -> web.Response:
    """Sentences about the whole server, and about each stream with damaged files by its id.

    ``silent`` are the ids of running streams whose next chunk is overdue, ``analysing`` of those with an analysis.
    """
    context = context_of(request)
    damage = context.streams.damage
    principal = principal_of(request)
    names = [name for name in damage.names() if name and await _sees(context, principal, name)]
    streams = {name: stream_problems(context, name) for name in names[:MAX_SENTENCES]}
    notes = damage.notes("") if principal.projects is None else []
    server = [f"{file}: {what}." if file else f"{what}." for file, what in notes]
    full = context.disk.problem()
    more = len(names) - len(streams)
    if more:
        server.append(f"{more} more streams have damaged files; the log of the server names them.")
    if full:
        server.insert(0, full)
    if context.retention.report is not None and principal.projects is None:
        server += context.retention.report.over
    free = context.disk.free_bytes()
    marked = {
        "silent": request.app[THROUGHPUT].silent(),
        "analysing": context.results.analysing(),
    }
    seen = {
        what: [data_id for data_id in ids if await _sees(context, principal, data_id)]
        for what, ids in marked.items()
    }
    return json_reply({"server": server, "streams": streams, "disk_free_bytes": free, **seen})


async def _sees(context: ServerContext, principal: Principal, data_id: str) -> bool:
    if principal.projects is None:
        return True
    try:
        return principal.sees(await context.streams.project_of(data_id))
    except HttpError:
        return False


def stream_problems(context: ServerContext, data_id: str) -> list[str]:
    """A sentence about each damaged file of a stream."""
    notes: list[Any] = context.streams.damage.notes(data_id)
    return [f"{file}: {what}".rstrip(".") + "." if file else f"{what}." for file, what in notes]
