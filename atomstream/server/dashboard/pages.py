"""The routes of the dashboard's static pages; :mod:`atomstream.pages.static_files` has their headers."""

from __future__ import annotations

import asyncio
from functools import cache
from urllib.parse import quote

from aiohttp import web

from atomstream.pages.static_files import DASHBOARD as STATIC
from atomstream.pages.static_files import StaticFile, load_files, reply_with
from atomstream.server.context import context_of, visible_in
from atomstream.server.dashboard.sessions import logged_in
from atomstream.server.http.access import access
from atomstream.server.http.path_prefix import prefix_of, with_prefix
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Right
from atomstream.server.streams.registry import checked_id, unknown_stream

routes = web.RouteTableDef()


@cache
def static_files(prefix: str = "") -> dict[str, StaticFile]:
    """All files that are served, by their path below ``static``; the links of pages begin with ``prefix``."""
    return load_files(STATIC, lambda page: with_prefix(page, prefix))


@routes.get("/")
@access(Right.NONE)
async def list_page(request: web.Request) -> web.Response:
    """``GET /``: the list of streams."""
    return _to_login(request) or _reply(request, "streams.html")


@routes.get("/login")
@access(Right.NONE)
async def login_page(request: web.Request) -> web.Response:
    """``GET /login``: the login form."""
    return _reply(request, "login.html")


@routes.get("/settings")
@access(Right.NONE)
async def settings_page(request: web.Request) -> web.Response:
    """``GET /settings``: people, keys and the audit log, for administrators; and one's own password."""
    return _to_login(request) or _reply(request, "settings.html")


@routes.get("/streams/{data_id}")
@access(Right.NONE)
async def stream_page(request: web.Request) -> web.Response:
    """``GET /streams/{data_id}``: the page of one stream; its script reads the id from the address."""
    data_id = checked_id(request.match_info["data_id"])
    context = context_of(request)
    folder = context.settings.streams_dir / data_id
    # The page of a deleted stream shows that it was deleted.
    if data_id not in context.streams.deleted and not await asyncio.to_thread(folder.is_dir):
        raise unknown_stream(data_id)
    principal = logged_in(request)
    if principal is not None and principal.projects is not None:
        await visible_in(context)(principal, data_id)
    return _to_login(request) or _reply(request, "stream.html")


@routes.get("/compare/{data_id}")
@access(Right.NONE)
async def compare_page(request: web.Request) -> web.Response:
    """``GET /compare/{data_id}``: a stream over an earlier one; its script reads the id from the address."""
    checked_id(request.match_info["data_id"])
    return _to_login(request) or _reply(request, "compare.html")


@routes.get("/samples/{sample_id}")
@access(Right.NONE)
async def sample_page(request: web.Request) -> web.Response:
    """``GET /samples/{sample_id}``: all streams of a sample; its script reads the id from the address."""
    checked_id(request.match_info["sample_id"])
    return _to_login(request) or _reply(request, "sample.html")


@routes.get("/dashboard/static/{path:.+}")
@access(Right.NONE)
async def static_file(request: web.Request) -> web.Response:
    """``GET /dashboard/static/{path}``: a script, style, font or icon."""
    path = request.match_info["path"]
    if path not in static_files() or path.endswith(".html"):
        raise HttpError(404, "There is no such file.")
    return _reply(request, path)


def _to_login(request: web.Request) -> web.Response | None:
    """The redirection of a browser without a session to the login page, which leads back; None for others.

    A page sends a browser there as well, but only after its first request was refused, which is an error in the
    browser's console. After a click on a link in another site's page the session cookie is missing here: then the login
    page leads back at once.
    """
    if logged_in(request) is not None or "text/html" not in request.headers.get("Accept", ""):
        return None
    prefix, path = prefix_of(request), request.rel_url.raw_path
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        path = path.removeprefix(prefix) or "/"
    wanted = prefix + path + (f"?{request.rel_url.raw_query_string}" if request.query_string else "")
    query = "" if wanted == f"{prefix}/" else f"?next={quote(wanted, safe='')}"
    headers = {"Location": f"{prefix}/login{query}", "Cache-Control": "no-store"}
    return web.Response(status=303, headers=headers)


def _reply(request: web.Request, name: str) -> web.Response:
    return reply_with(request, static_files(prefix_of(request))[name])
