"""Requests of the settings page: people, API keys and the audit log. All of them need the right admin."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from atomstream.errors import ConfigError
from atomstream.protocol import MAX_NAME_CHARS
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.gate import GATE, Gate, actor_of, principal_of
from atomstream.server.http.own_key import is_own_key, own_keys, revoke_own_keys, rotate_own_key
from atomstream.server.http.requests import UuidText, number, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.passwords import MAX_PASSWORD_CHARS
from atomstream.server.people.records import User
from atomstream.server.people.rights import Right
from atomstream.server.people.store import OVERLAP_S, NewKey, People

routes = web.RouteTableDef()

T = TypeVar("T")
Name = Annotated[str, msgspec.Meta(max_length=2 * MAX_NAME_CHARS)]
Password = Annotated[str, msgspec.Meta(max_length=2 * MAX_PASSWORD_CHARS)]
Projects = Annotated[list[UuidText], msgspec.Meta(max_length=1000)]
MAX_DAYS: Final = 36_500
MAX_ENTRIES: Final = 500


class NewUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that adds a person; ``projects`` null: all."""

    name: Name
    role: str
    projects: Projects | None = None
    password: Password | None = None


class UserChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that changes a person. What is absent stays; ``password`` null removes it."""

    name: Name | UnsetType = UNSET
    role: str | UnsetType = UNSET
    projects: Projects | UnsetType | None = UNSET
    password: Password | UnsetType | None = UNSET


class NewApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that makes a key, for the person named ``user`` or for an instrument; ``days`` null: without end."""

    scope: str
    user: Name = ""
    instrument: Name = ""
    projects: Projects | None = None
    days: Annotated[float, msgspec.Meta(gt=0, le=MAX_DAYS)] | None = None


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that makes a key in place of another one, which stays valid for ``overlap_s``."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_DAYS * 86400.0)] = OVERLAP_S


@contextmanager
def _refusals() -> Iterator[None]:
    """Answers with the sentence of a ConfigError: 409, because the state of the server does not allow the change."""
    try:
        yield
    except ConfigError as error:
        raise HttpError(409, str(error)) from None


async def _change(change: Callable[..., T], *values: Any, **more: Any) -> T:
    with _refusals():
        return await asyncio.to_thread(change, *values, **more)


@routes.get("/people")
@access(Right.ADMIN)
async def list_people(request: web.Request) -> web.Response:
    """``GET /people``: people, keys, and the projects that they can be limited to."""
    gate, context = request.app[GATE], context_of(request)
    await gate.catch_up()
    projects = [{"id": one["id"], "name": one["name"]} for one in await context.catalogue.projects()]

    def read() -> dict[str, Any]:
        passwords = _or_none(gate.people.with_password)
        own = [] if context.settings.temporary_key else _or_none(lambda: own_keys(context.documents))
        keys = [
            {"id": one.sha256[:8], "owner": "the server", "own": True, "scope": "admin", "projects": None}
            | {"made": one.made, "expires": one.expires or None, "used": None}
            for one in own or []
        ]
        return {
            "me": principal_of(request).name,
            "problem": gate.people.damage,
            "users": [_user(user, passwords or set()) for user in _sorted(gate.people)],
            "keys": keys + _keys(gate),
            "projects": projects,
        }

    return json_reply(await asyncio.to_thread(read))


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except ConfigError:  # the file is damaged; the log and the page name it
        return None


def _sorted(people: People) -> list[User]:
    return sorted(people.directory.users.values(), key=lambda user: user.name.casefold())


def _user(user: User, passwords: set[str]) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "projects": user.projects,
        "password": user.id in passwords,
        "issuer": user.issuer or None,
        "made": user.made,
    }


def _keys(gate: Gate) -> list[dict[str, Any]]:
    directory = gate.people.directory
    return [
        {
            "id": key.id,
            "owner": directory.owner_of(key),
            "own": False,
            "instrument": bool(key.instrument),
            "scope": key.scope,
            "projects": key.projects,
            "made": key.made,
            "expires": key.expires or None,
            "used": gate.use.last(key.id),
        }
        for key in sorted(directory.keys.values(), key=lambda key: key.made)
    ]


@routes.post("/people/users")
@access(Right.ADMIN)
async def add_user(request: web.Request) -> web.Response:
    """``POST /people/users``: add a person; 409 with the reason if that is not possible."""
    wanted, people = await read_json(request, NewUser), request.app[GATE].people
    projects = await _known(request, wanted.projects)
    user = await _change(
        people.add_user, actor_of(request), wanted.name, wanted.role, projects, password=wanted.password
    )
    return json_reply({"id": user.id})


@routes.patch("/people/users/{user_id}")
@access(Right.ADMIN)
async def change_user(request: web.Request) -> web.Response:
    """``PATCH /people/users/{id}``: change role, projects, name or password of a person."""
    wanted, people, user = await read_json(request, UserChanges), request.app[GATE].people, _of_path(request)
    projects = wanted.projects
    known = projects if projects is UNSET else await _known(request, projects)
    await _change(
        people.set_user,
        actor_of(request),
        user.name,
        role=wanted.role,
        projects=known,
        password=wanted.password,
        new_name=wanted.name,
    )
    return json_reply({"id": user.id})


@routes.delete("/people/users/{user_id}")
@access(Right.ADMIN)
async def remove_user(request: web.Request) -> web.Response:
    """``DELETE /people/users/{id}``: remove a person, with their sessions and keys."""
    user = _of_path(request)
    await _change(request.app[GATE].people.remove_user, actor_of(request), user.name)
    return json_reply({"id": user.id})


@routes.post("/people/users/{user_id}/link")
@access(Right.ADMIN)
async def make_link(request: web.Request) -> web.Response:
    """``POST /people/users/{id}/link``: the path of a page that logs this person in once, within 15 minutes."""
    user = _of_path(request)
    token = await _change(request.app[GATE].people.link_for, actor_of(request), user.name)
    return json_reply({"path": f"/login#link={token}"})


def _of_path(request: web.Request) -> User:
    user = request.app[GATE].people.directory.users.get(request.match_info["user_id"])
    if user is None:
        raise HttpError(404, "There is no such person any more.")
    return user


async def _known(request: web.Request, projects: list[str] | None) -> tuple[str, ...] | None:
    """The ids of projects, in lower case; raises HttpError 404 for one that does not exist."""
    if projects is None:
        return None
    wanted = tuple(dict.fromkeys(one.lower() for one in projects))
    known = {one["id"] for one in await context_of(request).catalogue.projects()}
    for one in wanted:
        if one not in known:
            raise HttpError(404, f"No project {one!r} is known here; nothing was changed.")
    return wanted


@routes.post("/people/keys")
@access(Right.ADMIN)
async def create_key(request: web.Request) -> web.Response:
    """``POST /people/keys``: make a key. The reply has the key itself, this one time."""
    wanted, people = await read_json(request, NewApiKey), request.app[GATE].people
    made = await _change(
        people.create_key,
        actor_of(request),
        wanted.scope,
        user=wanted.user,
        instrument=wanted.instrument,
        projects=await _known(request, wanted.projects),
        expires=time.time() + wanted.days * 86400.0 if wanted.days else 0.0,
    )
    return _key_reply(made)


def _key_reply(made: NewKey) -> web.Response:
    return json_reply({"id": made.key.id, "key": made.secret})


@routes.post("/people/keys/{key_id}/rotate")
@access(Right.ADMIN)
async def rotate_key(request: web.Request) -> web.Response:
    """``POST /people/keys/{id}/rotate``: make a key like another one, which stays valid for a while."""
    wanted, gate, actor = await read_json(request, Rotation), request.app[GATE], actor_of(request)
    documents, key_id = context_of(request).documents, request.match_info["key_id"]
    if await asyncio.to_thread(is_own_key, documents, gate.people, key_id):
        new_id, secret = await _change(rotate_own_key, documents, gate.people, actor, wanted.overlap_s)
        await gate.refresh()
        return json_reply({"id": new_id, "key": secret})
    return _key_reply(await _change(gate.people.rotate_key, actor, key_id, wanted.overlap_s))


@routes.delete("/people/keys/{key_id}")
@access(Right.ADMIN)
async def revoke_key(request: web.Request) -> web.Response:
    """``DELETE /people/keys/{id}``: revoke a key."""
    gate, actor = request.app[GATE], actor_of(request)
    documents, key_id = context_of(request).documents, request.match_info["key_id"]
    if await asyncio.to_thread(is_own_key, documents, gate.people, key_id):
        await _change(revoke_own_keys, documents, gate.people, actor)
        await gate.refresh()
    else:
        await _change(gate.people.revoke_key, actor, key_id)
    return json_reply({"id": key_id})


@routes.get("/people/audit")
@access(Right.ADMIN)
async def audit_log(request: web.Request) -> web.Response:
    """``GET /people/audit?limit=100``: who did what, the newest first; of the newest 2,000 entries."""
    limit = int(number(request.query.get("limit"), "limit", 1, MAX_ENTRIES) or 100)
    gate = request.app[GATE]
    await gate.catch_up()
    entries = tuple(gate.people.directory.entries)[-limit:]
    shown = ("at", "by", "via", "address", "done", "stream")
    return json_reply([{name: getattr(entry, name) for name in shown} for entry in reversed(entries)])
