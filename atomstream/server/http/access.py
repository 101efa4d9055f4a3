"""Who may use a route: declared at each handler, enforced by the middleware of :mod:`.api_keys`."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Access(Enum):
    """What a request must present."""

    PUBLIC = "nothing"
    KEY = "an API key"
    BROWSER = "an API key, or the session cookie of a logged-in browser"


_DECLARED: Final[dict[Callable[..., Any], Access]] = {}


def access(right: Access) -> Callable[[F], F]:
    """Declare the right that a handler needs; written below the decorator that registers its path."""

    def declare(handler: F) -> F:
        _DECLARED[handler] = right
        return handler

    return declare


def declared_access(handler: Callable[..., Any]) -> Access | None:
    """The right that was declared for a handler, or None."""
    return _DECLARED.get(handler)


def required_access(handler: Callable[..., Any]) -> Access:
    """The right that a handler needs. A handler without a declaration, as that of unknown paths, needs a key."""
    return _DECLARED.get(handler, Access.KEY)
