"""Rights, the roles of people, and who makes a request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from atomstream.errors import ConfigError


class Right(IntEnum):
    """What a request does. Each right includes those before it."""

    NONE = 0
    """Nothing that is protected: the request is answered for everybody."""
    READ = 1
    WRITE = 2
    """Add streams, chunks, marks, samples; change and end streams."""
    ADMIN = 3
    """Delete streams, and manage people, keys and settings."""

    @property
    def text(self) -> str:
        """The name of the right, as users write it: ``read``."""
        return self.name.lower()


SCOPES: Final = {right.text: right for right in (Right.READ, Right.WRITE, Right.ADMIN)}
"""The scopes of API keys."""

ROLES: Final = {"viewer": Right.READ, "operator": Right.WRITE, "admin": Right.ADMIN}
"""The roles of people, each with its right."""

ALL: Final = None
"""In place of a set of projects: all of them, and streams without a project."""


def checked_role(role: str) -> str:
    """``role``, if it is one; raises ConfigError."""
    return _checked("role", role, ROLES)


def checked_scope(scope: str) -> Right:
    """The right of a scope; raises ConfigError."""
    return SCOPES[_checked("scope", scope, SCOPES)]


def _checked(what: str, given: str, known: Iterable[str]) -> str:
    if given not in known:
        raise ConfigError(f"{given!r} is no {what}; it is one of {', '.join(known)}.")
    return given


def both(first: frozenset[str] | None, second: frozenset[str] | None) -> frozenset[str] | None:
    """The projects that are in both sets; :data:`ALL` is all of them."""
    if first is None:
        return second
    return first if second is None else first & second


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, what they may do, and the ids of the projects that they see (None: everything).

    ``holder`` identifies the person or key for as long as their sign-in is valid: ``key:HASH`` or ``user:ID:EPOCH``.
    ``key_id`` is the id of the API key that the request was sent with; empty for a browser session of a person.
    """

    name: str
    right: Right
    projects: frozenset[str] | None
    holder: str
    key_id: str = ""

    def sees(self, project_id: str | None) -> bool:
        """Whether streams of that project, or those without a project (None), are visible."""
        return self.projects is None or project_id in self.projects
