"""Browser sessions: login by API key, the session cookie, and protection against cross-site requests.

A session survives a restart of the server. Tokens and keys are stored as hashes only.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated

import msgspec
from aiohttp import web

from atomstream.server.context import context_of
from atomstream.server.http.access import Access, access
from atomstream.server.http.api_keys import KeyRing, fingerprint
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.open_sockets import LOOK_S, SESSION, SOCKETS
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.key_strength import MAX_KEY_CHARS
from atomstream.system.files import LOCAL, FileSystem, write_private
from atomstream.system.own_files import read_plain

routes = web.RouteTableDef()

SESSIONS_FILE = "sessions.json"

LIFETIME_S = 14 * 24 * 3600.0
"""Seconds until a session expires: long enough for a display that stays on during a growth campaign."""

MAX_SESSIONS = 500


class Session(msgspec.Struct, frozen=True):
    """One stored session: SHA-256 (hex) of its token and of the API key that opened it; expiry in Unix s."""

    token: str
    key: str
    expires: float


class SessionStore:
    """Sessions of one server, in memory and in the file ``path``, which only the server's user can read.

    ``key_is_known(hash)`` returns whether the API key with that hash is still valid. A session ends when its
    key is removed. The methods that write to the disk block; call them in a thread.
    """

    def __init__(
        self,
        path: Path,
        key_is_known: Callable[[bytes], bool],
        clock: Callable[[], float] = time.time,
        file_system: FileSystem = LOCAL,
    ) -> None:
        self._path = path
        self._key_is_known = key_is_known
        self._clock = clock
        self._file_system = file_system
        self._sessions = {one.token: one for one in _read(path)}
        self._lock = threading.Lock()

    def open(self, key_hash: bytes) -> str:
        """Create a session for the key with that hash; return its token. Only the hash is stored. Blocks."""
        token = secrets.token_urlsafe(32)
        session = Session(mark_of(token), key_hash.hex(), self._clock() + LIFETIME_S)
        with self._lock:
            alive = sorted(filter(self._alive, self._sessions.values()), key=lambda one: one.expires)
            self._store([*alive[-MAX_SESSIONS + 1 :], session])
        return token

    def knows(self, token: str) -> bool:
        """True if ``token`` belongs to a session that has not expired.

        The look-up uses the hash, so its duration reveals nothing about any token.
        """
        return self.is_open(mark_of(token))

    def is_open(self, mark: str) -> bool:
        """True if the session with that :func:`mark_of` its token has not ended."""
        session = self._sessions.get(mark)
        return session is not None and self._alive(session)

    def close(self, token: str) -> None:
        """Delete a session; does nothing if there is none. Blocks."""
        with self._lock:
            self._store([one for one in self._sessions.values() if one.token != mark_of(token)])

    def _alive(self, session: Session) -> bool:
        return self._clock() < session.expires and self._key_is_known(bytes.fromhex(session.key))

    def _store(self, sessions: list[Session]) -> None:
        self._sessions = {one.token: one for one in sessions}
        write_private(self._path, msgspec.json.encode(sessions), self._file_system)


def mark_of(token: str) -> str:
    """The hash of a token, under which its session is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(path: Path) -> list[Session]:
    # If the file is damaged, browsers have to log in again; nothing else is lost.
    try:
        return msgspec.json.decode(read_plain(path), type=list[Session])
    except (OSError, msgspec.MsgspecError):
        return []


# The session cookie in place of an API key, and protection against cross-site requests (CSRF).

SESSIONS = web.AppKey("dashboard_sessions", SessionStore)

KEYS = web.AppKey("dashboard_keys", KeyRing)


def has_session(request: web.Request) -> bool:
    """True if the request comes from a logged-in browser.

    Raises:
        HttpError: 403 if the session is valid but the request may come from a page of another site.
    """
    token = session_token(request)
    if not request.app[SESSIONS].knows(token):
        return False
    check_own_page(request)
    request[SESSION] = mark_of(token)
    return True


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


async def end_expired(app: web.Application) -> AsyncIterator[None]:
    """Close the WebSockets of sessions that have expired or whose key was removed, while the server runs."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            app[SOCKETS].end_sessions(app[SESSIONS].is_open)

    task = asyncio.create_task(watch(), name="atomstream sessions")
    yield
    task.cancel()
    await asyncio.wait([task])


# Login and logout.


MAX_LOGIN_BYTES = 8192
"""Largest body of a login request in bytes. It is small, because the sender is not authenticated yet."""


class Login(msgspec.Struct, frozen=True):
    """Request body of a login."""

    key: Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)]


LIMITER = web.AppKey("dashboard_guess_limiter", GuessLimiter)


@routes.post("/session")
@access(Access.PUBLIC)
async def log_in(request: web.Request) -> web.Response:
    """``POST /session {"key"}``: 204 with the session cookie; 401 for a wrong key, 429 after too many wrong ones."""
    check_own_page(request)
    key = (await _read_login(request)).key.strip()
    if not request.app[KEYS].opens(key):
        raise await request.app[LIMITER].refuse(
            request.remote, key, "login", "This is not a key of this server."
        )
    token = await asyncio.to_thread(request.app[SESSIONS].open, fingerprint(key))
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
@access(Access.PUBLIC)
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
@access(Access.BROWSER)
async def who(request: web.Request) -> web.Response:
    """``GET /session``: ``{"ok": true}`` if logged in; other requests get 401 before they reach this handler.

    With TLS also ``tls_fingerprint``, the SHA-256 of the server's certificate.
    """
    certificate = context_of(request).certificate
    shown = {} if certificate is None else {"tls_fingerprint": certificate.fingerprint}
    return json_reply({"ok": True, **shown})
