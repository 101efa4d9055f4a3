"""The records of ``people.jsonl``: changes of people and keys, and what else the audit log notes."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class User(msgspec.Struct, frozen=True, tag="user", omit_defaults=True):
    """A person. The record replaces an earlier one with the same ``id``.

    ``projects`` are the ids of the projects that the person sees; None: all. ``epoch`` grows when all sessions of the
    person must end, such as after a change of the password. ``issuer`` and ``subject`` identify a person who signs in
    by OpenID Connect.
    """

    id: str
    name: str
    role: str
    made: str
    projects: tuple[str, ...] | None = None
    epoch: int = 0
    issuer: str = ""
    subject: str = ""


class UserRemoved(msgspec.Struct, frozen=True, tag="user removed"):
    """A person was removed. Their keys and sessions are not valid any more."""

    id: str


class ApiKey(msgspec.Struct, frozen=True, tag="key", omit_defaults=True):
    """An API key. The record replaces an earlier one with the same ``id``.

    ``id`` are the first 8 hexadecimal digits of ``sha256``, the hash of the key. Its owner is the person ``user`` (an
    id), or the instrument named ``instrument``. ``expires`` is Unix time in s; 0: never.
    """

    id: str
    sha256: str
    made: str
    scope: str
    user: str = ""
    instrument: str = ""
    projects: tuple[str, ...] | None = None
    expires: float = 0.0


class KeyRevoked(msgspec.Struct, frozen=True, tag="key revoked"):
    """A key is not valid any more."""

    id: str


class LinkMade(msgspec.Struct, frozen=True, tag="link", omit_defaults=True):
    """A link that logs in once: the hash of its token, for whom (a holder), and until when (Unix s)."""

    sha256: str
    holder: str
    expires: float


class LinkUsed(msgspec.Struct, frozen=True, tag="link used"):
    """A link was used, and can't be used again."""

    sha256: str


Change: TypeAlias = User | UserRemoved | ApiKey | KeyRevoked | LinkMade | LinkUsed


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the file: who (``by``) did what, when (ISO 8601, UTC), by which way and from which address.

    ``via`` is ``command line``, ``browser``, ``key ID`` or ``OpenID Connect``. ``stream`` is the id of the stream that
    it was done to. ``after`` is the hash of the line before: a line can't be removed or changed unnoticed.
    """

    at: str
    by: str
    via: str
    done: str
    address: str = ""
    stream: str = ""
    change: Change | None = None
    after: str = ""


class Actor(msgspec.Struct, frozen=True):
    """Who does something, for an :class:`Entry`."""

    by: str
    via: str
    address: str = ""
