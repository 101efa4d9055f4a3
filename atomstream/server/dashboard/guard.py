"""The door for browsers: a session's cookie in place of the API key, and no request that another site made."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from atomstream.server.auth import KeyRing
from atomstream.server.dashboard.sessions import LIFETIME_S, SessionBook
from atomstream.server.replies import RefusedError

SESSIONS = web.AppKey("dashboard_sessions", SessionBook)
KEYS = web.AppKey("dashboard_keys", KeyRing)
BROWSABLE: web.AppKey[frozenset[Any]] = web.AppKey("dashboard_browsable", frozenset)
"""Handlers that take a cookie for a key: the dashboard's own, and what its pages ask of the live results."""


def has_session(request: web.Request) -> bool:
    """Whether a logged-in browser asks for what a browser may have.

    Raises:
        RefusedError: 403, there is a session, but what asks may be another site's page.
    """
    browsable = request.match_info.handler in request.app[BROWSABLE]
    if not browsable or not request.app[SESSIONS].knows(session_token(request)):
        return False
    check_own_page(request)
    return True


def session_token(request: web.Request) -> str:
    """What the browser says its session is; empty where it says nothing."""
    return request.cookies.get(cookie_name(request), "")


def cookie_name(request: web.Request) -> str:
    """The cookie's name. Browsers keep cookies by host alone, so two servers on one machine differ in it."""
    return f"atomstream_session_{request.url.port or 0}"


def check_own_page(request: web.Request) -> None:
    """Refuse what changes something unless a page of ours asked for it.

    The cookie is SameSite=Strict, and a wrong Origin never gets here; but browsers send an Origin with every
    POST and WebSocket, so one without it was not made by a page of ours. (Other ports of this host are the
    same site to a browser, yet another origin.)

    Raises:
        RefusedError: 403.
    """
    changes = request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
    if changes and "Origin" not in request.headers:
        raise RefusedError(403, "Only pages of this server may ask for that (no Origin).")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise RefusedError(403, "Requests from pages of other sites are not taken (Sec-Fetch-Site).")


def set_cookie(request: web.Request, response: web.Response, token: str) -> None:
    """Give the browser its session; no script can read it, no other site's page can send it."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(LIFETIME_S),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=request.scheme == "https" or _behind_tls(request),
    )


def drop_cookie(request: web.Request, response: web.Response) -> None:
    """Take it back."""
    response.del_cookie(cookie_name(request), path="/", httponly=True, samesite="Strict")


def _behind_tls(request: web.Request) -> bool:
    # The Origin is the browser's word for the page's scheme, where a proxy ended TLS before us.
    return request.headers.get("Origin", "").startswith("https:")
