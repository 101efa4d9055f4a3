"""The application of the capture page, and the server that runs it on the loopback address."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.pages.own_hosts import OwnHosts
from atomstream.pages.static_files import DASHBOARD, StaticFile, load_files, reply_with
from atomstream.record.recorder import Recorder
from atomstream.record.web import actions, live
from atomstream.record.web.sessions import (
    SESSIONS,
    RefusedError,
    Sessions,
    cookie_name,
    guard,
    json_reply,
    read_body,
)
from atomstream.system.peer_user import is_other_user

HOST: Final = "127.0.0.1"
"""The page can only be reached from this computer."""

MAX_BODY: Final = 64 << 10
STATIC: Final = Path(__file__).parents[1] / "static"

routes = web.RouteTableDef()


@cache
def _files(folder: Path) -> dict[str, StaticFile]:
    return load_files(folder)


@routes.get("/")
async def page(request: web.Request) -> web.Response:
    """``GET /``: the capture page; a browser that is not logged in is sent to the login form."""
    if not _is_logged_in(request) and "text/html" in request.headers.get("Accept", ""):
        return web.Response(status=303, headers={"Location": "/login", "Cache-Control": "no-store"})
    return reply_with(request, _files(STATIC)["record.html"])


@routes.get("/login")
async def login_page(request: web.Request) -> web.Response:
    """``GET /login``: the login form, for browsers that were not opened by the link."""
    return reply_with(request, _files(STATIC)["login.html"])


@routes.get("/dashboard/static/{path:.+}")
async def shared_file(request: web.Request) -> web.Response:
    """``GET /dashboard/static/{path}``: a style, font or script that all pages share."""
    return _file(request, DASHBOARD)


@routes.get("/record/static/{path:.+}")
async def own_file(request: web.Request) -> web.Response:
    """``GET /record/static/{path}``: a style or script of this page."""
    return _file(request, STATIC)


def _file(request: web.Request, folder: Path) -> web.Response:
    path = request.match_info["path"]
    if path not in _files(folder) or path.endswith(".html"):
        raise RefusedError(404, "There is no such file.")
    return reply_with(request, _files(folder)[path])


@routes.post("/session")
async def log_in(request: web.Request) -> web.Response:
    """``POST /session {"link"}`` or ``{"key"}``: 200 and the cookie."""
    body = await read_body(request)
    link = str(body.get("link", ""))
    if link:
        _check_user(request)
    cookie = request.app[SESSIONS].open(link, str(body.get("key", "")).strip())
    reply = json_reply({})
    reply.set_cookie(cookie_name(request), cookie, httponly=True, samesite="Strict", path="/")
    return reply


def _check_user(request: web.Request) -> None:
    """Refuse a login link of another user of this computer: its address is in the command line of the browser."""
    transport = request.transport
    if transport is not None and is_other_user(
        transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    ):
        raise RefusedError(403, "Another user of this computer runs this recorder. Log in with its key.")


@routes.get("/session")
async def who(request: web.Request) -> web.Response:
    """``GET /session``: 200 if this browser is logged in."""
    if not _is_logged_in(request):
        raise RefusedError(401, "This browser is not logged in.")
    return json_reply({"ok": True})


def _is_logged_in(request: web.Request) -> bool:
    return request.app[SESSIONS].is_open(request.cookies.get(cookie_name(request), ""))


@routes.delete("/session")
async def log_out(request: web.Request) -> web.Response:
    """``DELETE /session``: 204; this browser needs the key then."""
    request.app[SESSIONS].close(request.cookies.get(cookie_name(request), ""))
    reply = web.Response(status=204)
    reply.del_cookie(cookie_name(request), path="/")
    return reply


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; port 0 is any free one. It accepts no connection before :func:`serving`.

    Raises:
        ConfigError: the port is in use.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # there it would let a second program take the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen(64)
    except OSError as error:
        made.close()
        raise ConfigError(
            f"The page can't be served on port {port} ({error.strerror or error}). Choose another --port."
        ) from error
    return made


def url_of(listening: socket.socket) -> str:
    """The address of the page that is served there."""
    return f"http://{HOST}:{listening.getsockname()[1]}"


@asynccontextmanager
async def serving(listening: socket.socket, recorder: Recorder) -> AsyncIterator[Sessions]:
    """Serve the page of a recorder for the duration of the block."""
    sessions = Sessions()
    app = web.Application(middlewares=[guard(OwnHosts(), sessions)], client_max_size=MAX_BODY)
    app[SESSIONS] = sessions
    app[actions.RECORDER] = recorder
    app[live.SOCKETS] = live.OpenSockets()
    app.add_routes([*routes, *actions.routes, *live.routes])
    app.on_shutdown.append(_close_sockets)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield sessions
    finally:
        await runner.cleanup()


async def _close_sockets(app: web.Application) -> None:
    await app[live.SOCKETS].close()
