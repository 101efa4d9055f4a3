"""Who may use a route: the right that each handler declares, enforced by the middleware of :mod:`.gate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from atomstream.server.people.rights import Right

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Access:
    """The right that a request needs. It is proved by an API key, or with ``browser`` also by the session cookie of a
    logged-in browser.
    """

    right: Right
    browser: bool = True


UNDECLARED: Final = Access(Right.ADMIN, browser=False)
"""What a handler needs that does not declare its right."""

_DECLARED: Final[dict[Callable[..., Any], Access]] = {}


def access(right: Right, *, browser: bool = True) -> Callable[[F], F]:
    """Declare the right that a handler needs; written below the decorator that registers its path.

    With ``browser`` False it needs an API key: a browser's session does not open it.
    """

    def declare(handler: F) -> F:
        _DECLARED[handler] = Access(right, browser)
        return handler

    return declare


def declared_access(handler: Callable[..., Any]) -> Access | None:
    """The access that was declared for a handler, or None."""
    return _DECLARED.get(handler)


def required_access(handler: Callable[..., Any]) -> Access:
    """The access that a handler needs; a handler of an unknown path declares none."""
    return _DECLARED.get(handler, UNDECLARED)
