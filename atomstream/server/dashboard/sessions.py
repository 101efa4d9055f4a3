"""Who is logged in: sessions of browsers, opened by an API key, kept hashed, alive across a restart."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from aiohttp import web

from atomstream.server.http.api_keys import KeyRing, fingerprint
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.system.files import write_private

SESSIONS_FILE = "sessions.json"

LIFETIME_S = 14 * 24 * 3600.0
"""A display beside the machine stays logged in over a campaign; a forgotten browser not for ever."""

MAX_SESSIONS = 500


class Session(msgspec.Struct, frozen=True):
    """What is kept of one: hashes (hex SHA-256) of its token and of the key that opened it; UTC in s."""

    token: str
    key: str
    expires: float


class SessionStore:
    """The sessions of one server, in memory and in ``path``, readable by the server's user alone.

    ``key_is_known`` tells whether the key of that hash still opens this server: its sessions end with it.
    """

    def __init__(
        self, path: Path, key_is_known: Callable[[bytes], bool], clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._key_is_known = key_is_known
        self._clock = clock
        self._sessions = {one.token: one for one in _read(path)}
        self._changing = threading.Lock()

    def open(self, key_mark: bytes) -> str:
        """Begin a session for the key of that hash; returns its token, which is not kept. Writes to the disk."""
        token = secrets.token_urlsafe(32)
        session = Session(_mark(token), key_mark.hex(), self._clock() + LIFETIME_S)
        with self._changing:
            alive = sorted(filter(self._alive, self._sessions.values()), key=lambda one: one.expires)
            self._keep([*alive[-MAX_SESSIONS + 1 :], session])
        return token

    def knows(self, token: str) -> bool:
        """Whether ``token`` is of a session that goes on.

        Looked up by its hash, so that the time it takes says nothing of any token.
        """
        session = self._sessions.get(_mark(token))
        return session is not None and self._alive(session)

    def close(self, token: str) -> None:
        """End a session; harmless where there is none. Writes to the disk."""
        with self._changing:
            self._keep([one for one in self._sessions.values() if one.token != _mark(token)])

    def _alive(self, session: Session) -> bool:
        return self._clock() < session.expires and self._key_is_known(bytes.fromhex(session.key))

    def _keep(self, sessions: list[Session]) -> None:
        self._sessions = {one.token: one for one in sessions}
        write_private(self._path, msgspec.json.encode(sessions))


def _mark(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> list[Session]:
    # A damaged file only means that browsers log in again.
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Session])
    except (FileNotFoundError, msgspec.MsgspecError):
        return []


# The door for browsers: a session's cookie in place of the API key, and no request that another site made.

SESSIONS = web.AppKey("dashboard_sessions", SessionStore)

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
        raise HttpError(403, "Only pages of this server may ask for that (no Origin).")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HttpError(403, "Requests from pages of other sites are not taken (Sec-Fetch-Site).")


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


# Logging in by key, out again, and whether one is.

MAX_WRONG = 10

WRONG_WITHIN_S = 60.0


class Login(msgspec.Struct, frozen=True):
    """The body that logs in."""

    key: Annotated[str, msgspec.Meta(max_length=1024)]


class LoginLimiter:
    """Counts wrong keys: our own can't be guessed, but a key that a person chose could be.

    ``MAX_WRONG`` within ``WRONG_WITHIN_S`` close the door to further ones for the rest of that time. All
    callers together, for behind a proxy they have one address.
    """

    def __init__(self) -> None:
        self._wrong: deque[float] = deque(maxlen=MAX_WRONG)

    def check(self) -> None:
        """Raise RefusedError 429 after too many."""
        if len(self._wrong) == MAX_WRONG and time.monotonic() - self._wrong[0] < WRONG_WITHIN_S:
            wait_s = round(WRONG_WITHIN_S - (time.monotonic() - self._wrong[0])) + 1
            raise HttpError(
                429,
                f"Too many wrong keys were tried. Try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )

    def note_wrong(self) -> None:
        """One more."""
        self._wrong.append(time.monotonic())


ATTEMPTS = web.AppKey("dashboard_attempts", LoginLimiter)


async def log_in(request: web.Request) -> web.Response:
    """``POST /session {"key"}``: 204 with the session's cookie; 401 for a wrong key, 429 after many of them."""
    check_own_page(request)
    request.app[ATTEMPTS].check()
    key = (await read_json(request, Login)).key.strip()
    if not request.app[KEYS].opens(key):
        request.app[ATTEMPTS].note_wrong()
        raise HttpError(401, "This key does not open this server.")
    token = await asyncio.to_thread(request.app[SESSIONS].open, fingerprint(key))
    reply = web.Response(status=204)
    set_cookie(request, reply, token)
    return reply


async def log_out(request: web.Request) -> web.Response:
    """``DELETE /session``: 204; ends the session and takes the cookie back."""
    check_own_page(request)
    await asyncio.to_thread(request.app[SESSIONS].close, session_token(request))
    reply = web.Response(status=204)
    drop_cookie(request, reply)
    return reply


async def who(_request: web.Request) -> web.Response:
    """``GET /session``: ``{"ok": true}`` for who is logged in; all others were sent away before."""
    return json_reply({"ok": True})
