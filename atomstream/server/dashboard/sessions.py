"""Browser sessions: the cookie, protection against cross-site requests, and the end of what is not allowed any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.context import context_of
from atomstream.server.dashboard.session_store import LIFETIME_S, SessionStore, mark_of
from atomstream.server.disk_errors import log_failure
from atomstream.server.http.gate import GATE, Visible, principal_of
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.open_sockets import CHECK_PERIOD_S, SESSION, SOCKETS
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Principal
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

SESSIONS = web.AppKey("dashboard_sessions", SessionStore)


def logged_in(request: web.Request) -> Principal | None:
    """Who is logged in in the browser that sent the request; None if nobody. Only for pages: see below."""
    holder = request.app[SESSIONS].holder_of(session_token(request))
    return None if holder is None else request.app[GATE].of_holder(holder)


def principal_of_session(request: web.Request) -> Principal | None:
    """Who is logged in in the browser, for a request that reads or changes something; None if nobody.

    Raises:
        HttpError: 403 if the session is valid but the request may come from a page of another site.
    """
    principal = logged_in(request)
    if principal is not None:
        check_own_page(request)
        request[SESSION] = mark_of(session_token(request))
    return principal


@web.middleware
async def refresh_shared_sessions(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware for servers that share sessions: another one may have opened that of this browser a moment ago."""
    sessions, token = request.app[SESSIONS], session_token(request)
    if token and not sessions.is_open(mark_of(token)):
        await request.app[GATE].refresh()
        await asyncio.to_thread(sessions.refresh)
    return await handler(request)


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


def set_cookie(
    request: web.Request, response: web.StreamResponse, token: str, lifetime_s: float = LIFETIME_S
) -> None:
    """Set the session cookie: HttpOnly (no script can read it) and SameSite=Strict."""
    put_cookie(request, response, cookie_name(request), token, lifetime_s)


def put_cookie(
    request: web.Request,
    response: web.StreamResponse,
    name: str,
    value: str,
    lifetime_s: float,
    same_site: Literal["Strict", "Lax"] = "Strict",
) -> None:
    """Set a cookie that no script can read."""
    response.set_cookie(
        name,
        value,
        max_age=int(lifetime_s),
        path=prefix_of(request) or "/",
        httponly=True,
        samesite=same_site,
        secure=request.scheme == "https" or _behind_tls(request),
    )


def drop_cookie(request: web.Request, response: web.StreamResponse, name: str = "") -> None:
    """Delete a cookie in the browser: that of the session, or the one named."""
    path = prefix_of(request) or "/"
    response.del_cookie(name or cookie_name(request), path=path, httponly=True, samesite="Strict")


def _behind_tls(request: web.Request) -> bool:
    # Behind a proxy that terminates TLS, the Origin header still shows the page's scheme.
    public = context_of(request).settings.public_url or ""
    return request.headers.get("Origin", "").startswith("https:") or public.startswith("https:")


CHANGES_S = 1.0
"""Interval, in s, of the checks for changes of people or keys by a command."""


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
        try:
            changed = await app[GATE].refresh()
            changed |= await asyncio.to_thread(app[SESSIONS].refresh)
            await asyncio.to_thread(_write_use, app[GATE].use)
            if changed or time.monotonic() - looked_at >= CHECK_PERIOD_S:
                looked_at = time.monotonic()
                await app[SOCKETS].end_forbidden(is_allowed)
        except CatalogueUnavailableError:  # logged once, by the database
            await _end_unconfirmed(app, is_allowed)
        except Exception as error:
            log_failure(log, error, "changes of people and keys can't be read")


async def _end_unconfirmed(
    app: web.Application, is_allowed: Callable[[web.Request], Awaitable[bool]]
) -> None:
    if not app[GATE].is_confirmed:
        await app[SOCKETS].end_forbidden(is_allowed)


async def _is_allowed(app: web.Application, request: web.Request, visible: Visible) -> bool:
    mark = request.get(SESSION)
    if not app[GATE].is_confirmed or (mark is not None and not app[SESSIONS].is_open(mark)):
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
    except CatalogueUnavailableError:
        pass  # they are written later
    except OSError as error:
        log_failure(log, error, "the times of the last use of keys can't be written")
