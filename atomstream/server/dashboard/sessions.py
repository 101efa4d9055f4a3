"""Browser sessions: login by API key, the session cookie, and protection against cross-site requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

import msgspec
from aiohttp import web

from atomstream.server.context import context_of
from atomstream.server.dashboard.session_store import LIFETIME_S, SessionStore, mark_of
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.gate import GATE, Visible, principal_of
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.open_sockets import LOOK_S, SESSION, SOCKETS
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.key_strength import MAX_KEY_CHARS
from atomstream.server.people.rights import Principal, Right
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

routes = web.RouteTableDef()

# The session cookie in place of an API key, and protection against cross-site requests (CSRF).

SESSIONS = web.AppKey("dashboard_sessions", SessionStore)


def principal_of_session(request: web.Request) -> Principal | None:
    """Who is logged in in the browser that sent the request; None if nobody.

    Raises:
        HttpError: 403 if the session is valid but the request may come from a page of another site.
    """
    token = session_token(request)
    holder = request.app[SESSIONS].holder_of(token)
    principal = None if holder is None else request.app[GATE].of_holder(holder)
    if principal is not None:
        check_own_page(request)
        request[SESSION] = mark_of(token)
    return principal


def session_token(request: web.Request) -> str:
    """The session token of the request's cookie, or an empty string."""
    return request.cookies.get(cookie_name(request), "")


def cookie_name(request: web.Request) -> str:
    """The cookie's name. It contains the port, because browsers share cookies between ports of one host."""
    return f"atomstream_session_{request.url.port or 0}"


def check_own_page(request: web.Request) -> None:
    """Refuse requests that change something unless a page of this server sent them.

    The cookie is SameSite=Strict, and requests with a foreign Origin were refused earlier. Browsers send an
    Origin with every POST and WebSocket, so a request without one does not come from our pages. Another port of
    this host is the same site for a browser, but another origin; therefore SameSite alone is not enough.

    Raises:
        HttpError: 403.
    """
    changes = request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
    if changes and "Origin" not in request.headers:
        raise HttpError(403, "This request needs an Origin header of this server's own pages; it has none.")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HttpError(403, "Requests from pages of other sites are refused (Sec-Fetch-Site).")


def set_cookie(request: web.Request, response: web.Response, token: str) -> None:
    """Set the session cookie: HttpOnly (no script can read it) and SameSite=Strict."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(LIFETIME_S),
        path=prefix_of(request) or "/",
        httponly=True,
        samesite="Strict",
        secure=request.scheme == "https" or _behind_tls(request),
    )


def drop_cookie(request: web.Request, response: web.Response) -> None:
    """Delete the session cookie in the browser."""
    response.del_cookie(
        cookie_name(request), path=prefix_of(request) or "/", httponly=True, samesite="Strict"
    )


def _behind_tls(request: web.Request) -> bool:
    # Behind a proxy that terminates TLS, the Origin header still shows the page's scheme.
    return request.headers.get("Origin", "").startswith("https:")


CHANGES_S = 1.0
"""Time in s between two looks whether a command has changed people or keys."""


def watch_sessions(visible: Visible) -> Callable[[web.Application], AsyncIterator[None]]:
    """While the server runs: read changes of people and keys, and close WebSockets that are not allowed any more."""

    async def run(app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(_watch(app, visible), name="atomstream sessions")
        yield
        task.cancel()
        await asyncio.wait([task])
        await asyncio.to_thread(_write_use, app[GATE].use, now=True)

    return run


async def _watch(app: web.Application, visible: Visible) -> None:
    async def is_allowed(request: web.Request) -> bool:
        try:
            return await _is_allowed(app, request, visible)
        except HttpError:
            return False

    looked_at = time.monotonic()
    while True:
        await asyncio.sleep(CHANGES_S)
        changed = await app[GATE].refresh()
        await asyncio.to_thread(_write_use, app[GATE].use)
        if changed or time.monotonic() - looked_at >= LOOK_S:
            looked_at = time.monotonic()
            await app[SOCKETS].end_forbidden(is_allowed)


async def _is_allowed(app: web.Application, request: web.Request, visible: Visible) -> bool:
    mark = request.get(SESSION)
    if mark is not None and not app[SESSIONS].is_open(mark):
        return False
    principal = app[GATE].of_holder(principal_of(request).holder)
    if principal is None or not principal.right:
        return False
    if principal.projects is not None and (data_id := request.match_info.get("data_id")) is not None:
        await visible(principal, data_id)
    return True


def _write_use(use: KeyUse, *, now: bool = False) -> None:
    try:
        use.write(now=now)
    except OSError as error:
        log_failure(log, error, "the times of the last use of keys can't be written")


# Login and logout.


MAX_LOGIN_BYTES = 8192
"""Largest body of a login request in bytes. It is small, because the sender is not authenticated yet."""


class Login(msgspec.Struct, frozen=True):
    """Request body of a login."""

    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)]


@routes.post("/session")
@access(Right.NONE)
async def log_in(request: web.Request) -> web.Response:
    """``POST /session {"key"}``: 204 with the session cookie; 401 for a wrong key, 429 after too many wrong ones."""
    check_own_page(request)
    key = (await _read_login(request)).key.strip()
    principal = await request.app[GATE].of_key(key, request.remote, "login")
    token = await asyncio.to_thread(request.app[SESSIONS].open, principal.holder)
    await audit(request, "signed in by API key", principal=principal)
    reply = web.Response(status=204)
    set_cookie(request, reply, token)
    return reply


async def _read_login(request: web.Request) -> Login:
    """The body of a login; one that no key can need is 400 like any other that is none."""
    try:
        return await read_json(request, Login, most=MAX_LOGIN_BYTES)
    except HttpError as error:
        if error.status != 413:
            raise
        raise HttpError(400, f"This is not a login: it has more than {MAX_LOGIN_BYTES} bytes.") from None


@routes.delete("/session")
@access(Right.NONE)
async def log_out(request: web.Request) -> web.Response:
    """``DELETE /session``: 204; ends the session and deletes the cookie."""
    check_own_page(request)
    token = session_token(request)
    await asyncio.to_thread(request.app[SESSIONS].close, token)
    request.app[SOCKETS].end_session(mark_of(token))
    reply = web.Response(status=204)
    drop_cookie(request, reply)
    return reply


@routes.get("/session")
@access(Right.READ)
async def who(request: web.Request) -> web.Response:
    """``GET /session``: who is logged in, and what they may do; others get 401 before they reach this handler.

    With TLS also ``tls_fingerprint``, the SHA-256 of the server's certificate.
    """
    certificate, principal = context_of(request).certificate, principal_of(request)
    shown = {} if certificate is None else {"tls_fingerprint": certificate.fingerprint}
    return json_reply({"ok": True, "name": principal.name, "right": principal.right.text, **shown})
