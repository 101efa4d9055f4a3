"""``/oidc/login`` and ``/oidc/callback``: sign-in by the institute's OpenID Connect provider.

What belongs to a sign-in that has begun (state, nonce, PKCE verifier) is in a signed cookie of the browser, so that
the server stores nothing for people who are not signed in, and a callback without that cookie signs nobody in.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import secrets
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import MAX_NAME_CHARS, normalized_name
from atomstream.server.context import ServerContext, context_of
from atomstream.server.dashboard.oidc_limits import OidcLimits
from atomstream.server.dashboard.sessions import drop_cookie, put_cookie
from atomstream.server.dashboard.sign_in import begin_session
from atomstream.server.http.access import access
from atomstream.server.http.gate import GATE
from atomstream.server.http.oidc_provider import OidcError, OidcProvider
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.http.responses import HttpError
from atomstream.server.oidc_settings import OidcSettings, values_of
from atomstream.server.people.records import Actor, User
from atomstream.server.people.rights import Right
from atomstream.server.people.store import People
from atomstream.system.log_privacy import get_logger

routes = web.RouteTableDef()

log = get_logger("atomstream.server")

PROVIDER: Final = web.AppKey("oidc_provider", OidcProvider)
LIMITS: Final = web.AppKey("oidc_limits", OidcLimits)

BEGUN_S: Final = 600.0
"""Time for the sign-in at the provider, in s."""


class Begun(msgspec.Struct, frozen=True):
    """A sign-in that has begun; ``expires`` in Unix s, ``next`` is the page to open afterwards."""

    state: str
    nonce: str
    verifier: str
    expires: float
    next: str


@routes.get("/oidc/login")
@access(Right.NONE)
async def begin(request: web.Request) -> web.Response:
    """``GET /oidc/login?next=/streams/...``: send the browser to the provider."""
    provider = _provider(request)
    begun = Begun(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        expires=time.time() + BEGUN_S,
        next=_own_page(request, request.query.get("next", "")),
    )
    try:
        address = await provider.address(_redirect_uri(request), begun.state, begun.nonce, begun.verifier)
    except OidcError as error:
        raise HttpError(error.status, str(error)) from None
    reply = web.Response(status=302, headers={"Location": address, "Cache-Control": "no-store"})
    # Lax: the browser comes back from another site.
    put_cookie(request, reply, _cookie(request), _signed(request, begun), BEGUN_S, "Lax")
    return reply


@routes.get("/oidc/callback")
@access(Right.NONE)
async def finish(request: web.Request) -> web.Response:
    """``GET /oidc/callback?code=...&state=...``: the browser comes back from the provider."""
    provider, begun = _provider(request), _begun(request)
    if not hmac.compare_digest(begun.state.encode(), request.query.get("state", "").encode()):
        raise HttpError(401, "This answer of the provider belongs to another sign-in (state). Sign in again.")
    if request.query.get("iss", provider.settings.issuer) != provider.settings.issuer:
        raise HttpError(401, "This answer comes from another provider (iss). Nobody was signed in.")
    if "error" in request.query:
        denied = request.query["error"] == "access_denied"
        what = "refused the sign-in" if denied else "could not sign you in"
        raise HttpError(401, f"The provider {what}. Nobody was signed in.")
    try:
        async with request.app[LIMITS].exchange(request.remote):
            claims = await provider.claims(
                request.query.get("code", ""), _redirect_uri(request), begun.nonce, begun.verifier
            )
    except OidcError as error:
        raise HttpError(error.status, str(error)) from None
    user = await _user(request, provider.settings, claims)
    reply = web.Response(status=302, headers={"Location": begun.next, "Cache-Control": "no-store"})
    principal = request.app[GATE].people.directory.of_user(user)
    await begin_session(request, reply, principal, "OpenID Connect", provider.settings.session_hours * 3600.0)
    drop_cookie(request, reply, _cookie(request))
    return reply


def _provider(request: web.Request) -> OidcProvider:
    provider = request.app.get(PROVIDER)
    if provider is None:
        raise HttpError(
            404, "This server has no sign-in by OpenID Connect (table [oidc] of its configuration)."
        )
    return provider


async def _user(request: web.Request, settings: OidcSettings, claims: dict[str, Any]) -> User:
    """The person with these claims, added or updated from them."""
    projects = settings.projects_of(claims)
    ids = None if projects is None else await _project_ids(context_of(request), projects)
    people, address = request.app[GATE].people, request.remote or ""
    try:
        return await asyncio.to_thread(admit, people, settings, claims, ids, address)
    except ConfigError as error:
        raise HttpError(403, str(error)) from None


def admit(
    people: People,
    settings: OidcSettings,
    claims: dict[str, Any],
    projects: tuple[str, ...] | None,
    address: str = "",
) -> User:
    """The person with these claims of the provider, with the role that they have now. Blocks.

    A person who has no role any more is removed, with their keys: the provider decides who may enter.

    Raises:
        ConfigError: they have no role.
    """
    subject, role = str(claims["sub"]), settings.role_of(claims)
    known = people.directory.user_of(settings.issuer, subject)
    actor = Actor(known.name if known else _name(settings, claims), "OpenID Connect", address)
    if role is None:
        if known is not None:
            people.remove_user(actor, known.name, even_last_admin=True)
        raise ConfigError(
            f"{actor.by} is known to {settings.name}, but has no role on this server. An administrator can add one of "
            "their groups to its configuration (oidc.roles)."
        )
    seen = None if role == "admin" else projects
    if known is not None:
        return people.set_user(actor, known.name, role=role, projects=seen, even_last_admin=True)
    name = _name(settings, claims)
    if people.directory.user_named(name) is not None:  # somebody else, with a password or of another provider
        name = f"{name[: MAX_NAME_CHARS - 80]} ({urlsplit(settings.issuer).hostname})"
    return people.add_user(actor, name, role, seen, issuer=settings.issuer, subject=subject)


def _name(settings: OidcSettings, claims: dict[str, Any]) -> str:
    for claim in (settings.name_claim, "email", "name", "sub"):
        for value in values_of(claims, claim):
            shown = "".join(one for one in value if one.isprintable()).strip()[: MAX_NAME_CHARS - 80]
            if shown:
                return shown
    return "somebody"


async def _project_ids(context: ServerContext, names: tuple[str, ...]) -> tuple[str, ...]:
    """The ids of these projects. One that does not exist (yet) is left out, and named in the log."""
    known = {normalized_name(one["name"]): str(one["id"]) for one in await context.catalogue.projects()}
    for name in names:
        if normalized_name(name) not in known:
            log.warning("oidc.projects names the project %r, which does not exist", name)
    return tuple(known[key] for name in names if (key := normalized_name(name)) in known)


def _redirect_uri(request: web.Request) -> str:
    public = context_of(request).settings.public_url
    base = public.rstrip("/") if public else f"{request.scheme}://{request.host}"
    return f"{base}/oidc/callback"


def _own_page(request: web.Request, wanted: str) -> str:
    """``wanted``, if it is a page of this server; otherwise its first page."""
    home = prefix_of(request) + "/"
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return home
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted and not wanted.startswith("//")
    own = not parts.scheme and not parts.netloc and wanted.startswith(home) and len(wanted) <= 1000
    return wanted if own and plain else home


def _cookie(request: web.Request) -> str:
    return f"atomstream_oidc_{request.url.port or 0}"


def _signed(request: web.Request, begun: Begun) -> str:
    text = base64.urlsafe_b64encode(msgspec.json.encode(begun)).decode().rstrip("=")
    return f"{text}.{context_of(request).signer.mark('oidc', text)}"


def _begun(request: web.Request) -> Begun:
    text, _, signature = request.cookies.get(_cookie(request), "").rpartition(".")
    right = context_of(request).signer.mark("oidc", text)
    if hmac.compare_digest(right.encode(), signature.encode("utf-8", "surrogateescape")):
        try:
            begun = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=Begun)
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            begun = None
        if begun is not None and time.time() < begun.expires:
            return begun
    raise HttpError(
        401, "This sign-in was not begun in this browser, was used already, or took too long. Sign in again."
    )
