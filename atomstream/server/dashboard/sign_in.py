"""Sign-in and sign-out of browsers: by password, API key or login link."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from typing import Annotated, Final

import msgspec
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import MAX_NAME_CHARS
from atomstream.server.context import context_of
from atomstream.server.dashboard.password_check import PasswordCheck
from atomstream.server.dashboard.session_store import LIFETIME_S, mark_of
from atomstream.server.dashboard.sessions import (
    SESSIONS,
    check_own_page,
    drop_cookie,
    logged_in,
    put_cookie,
    session_token,
    set_cookie,
)
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.gate import GATE, actor_of, principal_of
from atomstream.server.http.open_sockets import SOCKETS
from atomstream.server.http.recent_counts import RecentCounts
from atomstream.server.http.requests import read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.key_strength import MAX_KEY_CHARS
from atomstream.server.people.passwords import MAX_PASSWORD_CHARS
from atomstream.server.people.records import User
from atomstream.server.people.rights import Principal, Right

routes = web.RouteTableDef()

PASSWORDS: Final = web.AppKey("dashboard_passwords", PasswordCheck)

MAX_LOGIN_BYTES = 8192
"""Largest body of a login request in bytes. It is small, because the sender is not authenticated yet."""

MAX_SIGN_INS: Final = 60
"""Sessions that one person or key can open in ``SIGN_INS_S``."""
SIGN_INS_S: Final = 60.0
SIGN_INS: Final = web.AppKey("dashboard_sign_ins", RecentCounts)

BROWSER_S: Final = 365 * 24 * 3600.0
"""How long a browser is known in which somebody has signed in by password."""

Secret = Annotated[str, msgspec.Meta(max_length=MAX_KEY_CHARS)]
Password = Annotated[str, msgspec.Meta(max_length=MAX_PASSWORD_CHARS)]


class Login(msgspec.Struct, frozen=True, omit_defaults=True):
    """Request body of a login: a key, or name and password, or the token of a login link."""

    key: Secret = ""
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] = ""
    password: Password = ""
    link: Secret = ""


class NewPassword(msgspec.Struct, frozen=True):
    """Request body of a change of one's own password."""

    old: Password
    new: Password


@routes.post("/session")
@access(Right.NONE)
async def log_in(request: web.Request) -> web.Response:
    """``POST /session``: 204 with the session cookie; 401 for what is wrong, 429 after too many wrong ones.

    The body is ``{"key"}``, ``{"name", "password"}`` or ``{"link"}``.
    """
    check_own_page(request)
    login = await _read_login(request)
    reply = web.Response(status=204)
    if login.name or login.password:
        principal, way = await _by_password(request, login, reply), "password"
    elif login.link:
        principal, way = await _by_link(request, login.link), "login link"
    elif key := login.key.strip():
        wrong = "This is not a key of this server."
        principal, way = await request.app[GATE].of_key(key, request.remote, "login", wrong), "API key"
    else:
        raise HttpError(400, "A login needs a key, or name and password, or a login link.")
    await begin_session(request, reply, principal, way)
    return reply


async def begin_session(
    request: web.Request,
    reply: web.StreamResponse,
    principal: Principal,
    way: str,
    lifetime_s: float = LIFETIME_S,
) -> None:
    """Open a session for ``principal``, who has signed in in this ``way``, and send its cookie with ``reply``.

    Raises:
        HttpError: 429, the same person or key has opened many in the last minute. Each is a line of the audit log.
    """
    wait_s = request.app[SIGN_INS].count(principal.holder.encode())
    if wait_s:
        raise HttpError(
            429,
            f"{principal.name} has signed in {MAX_SIGN_INS} times in a minute; wait {int(wait_s) + 1} s. Sessions that "
            "are open stay so, and an API key needs no session.",
            headers={"Retry-After": str(int(wait_s) + 1)},
        )
    token = await asyncio.to_thread(request.app[SESSIONS].open, principal.holder, lifetime_s)
    await audit(request, f"signed in by {way}", principal=principal)
    set_cookie(request, reply, token, lifetime_s)


async def _by_password(request: web.Request, login: Login, reply: web.Response) -> Principal:
    gate, known = request.app[GATE], _known_browser(request, login.name)
    user = await request.app[PASSWORDS].check(login.name, login.password, request.remote, known)
    _set_browser_cookie(request, reply, user)
    return gate.people.directory.of_user(user)


async def _by_link(request: web.Request, token: str) -> Principal:
    gate = request.app[GATE]
    holder = await asyncio.to_thread(gate.people.use_link, actor_of(request), token)
    principal = None if holder is None else gate.of_holder(holder)
    if principal is None:
        raise await gate.limiter.refuse(
            request.remote,
            token,
            "login link",
            "This login link was used already, or its time is over. Ask for another one.",
        )
    return principal


async def _read_login(request: web.Request) -> Login:
    """The body of a login; a body longer than any login is refused with 400, as any other invalid one."""
    try:
        return await read_json(request, Login, most=MAX_LOGIN_BYTES)
    except HttpError as error:
        if error.status != 413:
            raise
        raise HttpError(400, f"This is not a login: it has more than {MAX_LOGIN_BYTES} bytes.") from None


# A browser in which a person has signed in before: tries in it are counted separately.


def _browser_cookie(request: web.Request) -> str:
    return f"atomstream_browser_{request.url.port or 0}"


def _set_browser_cookie(request: web.Request, reply: web.Response, user: User) -> None:
    text = f"{user.id}.{secrets.token_urlsafe(12)}"
    signature = context_of(request).signer.mark("browser", text)
    put_cookie(request, reply, _browser_cookie(request), f"{text}.{signature}", BROWSER_S)


def _known_browser(request: web.Request, name: str) -> str:
    """What identifies this browser, if the person of that name has signed in in it before; else an empty text."""
    text, _, signature = request.cookies.get(_browser_cookie(request), "").rpartition(".")
    if not hmac.compare_digest(context_of(request).signer.mark("browser", text).encode(), signature.encode()):
        return ""
    user = request.app[GATE].people.directory.user_named(name)
    return text if user is not None and text.startswith(f"{user.id}.") else ""


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
    person = principal.holder.startswith("user:")
    return json_reply(
        {"ok": True, "name": principal.name, "right": principal.right.text, "person": person, **shown}
    )


@routes.get("/session/ways")
@access(Right.NONE)
async def ways(request: web.Request) -> web.Response:
    """``GET /session/ways``: how people can sign in here; an API key is always possible.

    ``session`` states whether this browser is logged in already.
    """
    await request.app[GATE].catch_up()
    oidc = context_of(request).settings.oidc
    users = request.app[GATE].people.directory.users.values()
    password = any(not user.issuer for user in tuple(users))
    session = logged_in(request) is not None
    return json_reply({"password": password, "oidc": None if oidc is None else oidc.name, "session": session})


@routes.post("/session/links")
@access(Right.READ, browser=False)
async def make_link(request: web.Request) -> web.Response:
    """``POST /session/links``: the path of a page that logs in once, as whoever has the key of this request."""
    principal, people = principal_of(request), request.app[GATE].people
    try:
        token = await asyncio.to_thread(people.make_link, actor_of(request), principal.holder, principal.name)
    except ConfigError as error:
        raise HttpError(429, str(error)) from None
    return json_reply({"path": f"/login#link={token}"})


@routes.post("/session/password")
@access(Right.READ)
async def change_password(request: web.Request) -> web.Response:
    """``POST /session/password {"old", "new"}``: change one's own password. All other sessions end."""
    wanted, principal, gate = await read_json(request, NewPassword), principal_of(request), request.app[GATE]
    if not principal.holder.startswith("user:"):
        raise HttpError(409, "Only a person has a password, and you are logged in by an API key.")
    known = _known_browser(request, principal.name)
    user = await request.app[PASSWORDS].check(principal.name, wanted.old, request.remote, known)
    try:
        changed = await asyncio.to_thread(
            gate.people.set_user, actor_of(request), user.name, password=wanted.new
        )
    except ConfigError as error:
        raise HttpError(400, str(error)) from None
    reply = web.Response(status=204)
    set_cookie(
        request,
        reply,
        await asyncio.to_thread(request.app[SESSIONS].open, gate.people.directory.of_user(changed).holder),
    )
    return reply
