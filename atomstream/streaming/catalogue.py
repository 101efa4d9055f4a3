"""Finds samples and tags by name or UUID; what is missing is created later, once all is known to be right.

Names match ignoring case, outer blanks and the way accents are composed. Two computers that create the same
name at once end with one: the loser of the race takes the winner's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from atomstream.errors import NotFoundError, RejectedError
from atomstream.service.api import ServiceApi
from atomstream.service.wire import Named

T = TypeVar("T")

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TAKEN: Final = frozenset({400, 409})


class Patiently(Protocol):
    """Makes a call, again where that can help."""

    async def __call__(self, call: Callable[[], Awaitable[T]]) -> T:
        """What ``call`` returns."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Something asked for: found (its id), or to be created when :meth:`settle` is awaited."""

    found: str | None
    create: Callable[[], Awaitable[str]]

    async def settle(self) -> str:
        """Its id; this is what creates it."""
        return self.found if self.found is not None else await self.create()


async def resolve_sample(api: ServiceApi, wanted: str | None, patiently: Patiently) -> Resolved | None:
    """Look the physical sample up.

    Raises:
        NotFoundError: a UUID that names none.
    """
    if wanted is None:
        return None
    known = await patiently(api.list_samples)
    name = wanted.strip()
    return Resolved(_find("physical sample", wanted, known), lambda: _create_sample(api, name, patiently))


async def resolve_tags(api: ServiceApi, wanted: Sequence[str], patiently: Patiently) -> list[Resolved]:
    """Look the tags up, each once, in the order given.

    Raises:
        NotFoundError: a UUID that names none.
    """
    if not wanted:
        return []
    known = await patiently(api.list_tags)
    by_key = {folded(tag): tag for tag in reversed(wanted)}
    tags = [by_key[key] for key in dict.fromkeys(map(folded, wanted))]
    return [_resolved_tag(api, tag, known, patiently) for tag in tags]


def _resolved_tag(api: ServiceApi, tag: str, known: Iterable[Named], patiently: Patiently) -> Resolved:
    return Resolved(_find("tag", tag, known), lambda: _create_tag(api, tag.strip(), patiently))


def folded(name: str) -> str:
    """What two names are compared by."""
    # Unicode 3.13, D145: decomposed both before and after folding, for either can undo the other.
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name.strip()).casefold())


def match(name: str, known: Iterable[Named]) -> str | None:
    """The id of what is called ``name``; of several, the one that is spelled the same, else the first."""
    alike = [item for item in known if folded(item.name) == folded(name)]
    same = [item for item in alike if item.name == name]
    return next((item.id for item in same + alike), None)


def _find(kind: str, wanted: str, known: Iterable[Named]) -> str | None:
    text = wanted.strip()
    if not _UUID.fullmatch(text):
        return match(wanted, known)
    for item in known:
        if item.id.lower() == text.lower():
            return item.id
    raise NotFoundError(
        f"There is no {kind} with the UUID {text} (or this API key may not see it). Nothing was created; "
        f"give the UUID of one that exists, or a name, which is created where it is missing."
    )


async def _create_sample(api: ServiceApi, name: str, patiently: Patiently) -> str:
    try:
        return await patiently(lambda: api.create_sample(name))
    except RejectedError as error:
        existing = _existing_id(error.detail)
        return existing or await _created_by_another(error, name, api.list_samples, patiently)


def _existing_id(detail: Any) -> str | None:
    found = detail.get("physical_sample_id") if isinstance(detail, dict) else None
    return found if isinstance(found, str) and found else None


async def _create_tag(api: ServiceApi, name: str, patiently: Patiently) -> str:
    try:
        return await patiently(lambda: api.create_tag(name))
    except RejectedError as error:
        return await _created_by_another(error, name, api.list_tags, patiently)


async def _created_by_another(
    error: RejectedError, name: str, listing: Callable[[], Awaitable[list[Named]]], patiently: Patiently
) -> str:
    """Its id where ``error`` only says that ``name`` is taken by now; else ``error`` is raised."""
    found = match(name, await patiently(listing)) if error.status in _TAKEN else None
    if found is None:
        raise error
    return found
