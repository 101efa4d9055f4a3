"""The authorization of each request: who sends it, whether it is allowed, and the answer if it is not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler

from atomstream.protocol import API_KEY_HEADER
from atomstream.server.http.access import Access, required_access
from atomstream.server.http.api_keys import KeyRing, fingerprint
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.responses import HttpError
from atomstream.server.people.records import Actor
from atomstream.server.people.rights import Principal, Right
from atomstream.server.people.store import People
from atomstream.system.log_privacy import get_logger, hide

log = get_logger("atomstream.server")

PRINCIPAL: Final = web.RequestKey("principal", Principal)
"""The principal of the request; missing if its handler needs no right."""

SERVER_KEY: Final = "the server's key"
"""The name of who uses the server's own key."""

Visible = Callable[[Principal, str], Awaitable[None]]
"""Raises HttpError 404 if the stream with that id is not visible for somebody who does not see all projects."""

MAX_HIDDEN: Final = 500


class Gate:
    """Authorization for one server. Used in its loop.

    ``ring`` has the server's own keys, ``people`` everybody else's; ``limiter`` counts wrong keys. ``cache_s`` is how
    long, in s, they stay valid without being read again, if they are in a database that can't be reached; ``clock`` is
    monotonic.
    """

    def __init__(
        self,
        ring: KeyRing,
        people: People,
        limiter: GuessLimiter,
        use: KeyUse,
        *,
        cache_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.people = people
        self.ring = ring
        self.limiter = limiter
        self.use = use
        self._hidden: set[bytes] = set()
        self._cache_s = cache_s
        self._clock = clock
        self._confirmed_at = clock()

    @property
    def is_confirmed(self) -> bool:
        """Whether people and keys were read at most ``cache_s`` ago: later revocations are not read yet."""
        return self._clock() - self._confirmed_at <= self._cache_s

    def require_confirmed(self) -> None:
        """Raises HttpError 503 if the people and keys in memory are too old."""
        if not self.is_confirmed:
            raise HttpError(
                503,
                f"The catalogue with people and keys can't be reached for more than {self._cache_s:.0f} s (the limit "
                "key_cache_s), so no key can be checked. Requests are answered again when it is back.",
            )

    async def of_key(
        self,
        presented: str,
        address: str | None,
        where: str,
        sentence: str = "The API key is wrong: it is not a key of this server.",
    ) -> Principal:
        """Who has this key.

        Raises:
            HttpError: 401 it is unknown, expired or revoked; 429 too many wrong ones were tried.
        """
        found = self._look_up(presented)
        if found is None:
            await self.catch_up()
            found = self._look_up(presented)
        if found is not None:
            return found
        raise await self.limiter.refuse(address, presented, where, sentence)

    def _look_up(self, presented: str) -> Principal | None:
        if self.ring.opens(presented):
            own = fingerprint(presented).hex()
            return Principal(SERVER_KEY, Right.ADMIN, None, f"key:{own}", own[:8])
        mark, directory = fingerprint(presented), self.people.directory
        key = directory.key_with(mark)
        if key is None:
            if (old := directory.revoked.get(mark)) is not None:
                raise HttpError(
                    401, f"The API key {old.id} was revoked. Ask an administrator for another one."
                )
            return None
        if directory.is_expired(key):
            ended = datetime.fromtimestamp(key.expires, UTC).isoformat(timespec="minutes")
            raise HttpError(
                401, f"The API key {key.id} expired at {ended}. Ask an administrator for another one."
            )
        if mark not in self._hidden and len(self._hidden) < MAX_HIDDEN:
            self._hidden.add(mark)
            hide(presented)
        self.use.note(key.id)
        return directory.of_key(key)

    def of_holder(self, holder: str) -> Principal | None:
        """Who a session belongs to; None if it is not valid any more."""
        mark = holder.removeprefix("key:")
        if mark != holder and len(mark) == 64 and self._ring_has(mark):
            return Principal(SERVER_KEY, Right.ADMIN, None, holder)
        return self.people.directory.of_holder(holder)

    def of_key_id(self, key_id: str) -> Principal | None:
        """Who has the key with that id; None if it is not valid any more. Reads no file."""
        directory = self.people.directory
        if (key := directory.keys.get(key_id)) is not None:
            return directory.of_key(key)
        if self.ring.has_id(key_id):
            return Principal(SERVER_KEY, Right.ADMIN, None, "", key_id)
        return None

    def _ring_has(self, mark: str) -> bool:
        try:
            return self.ring.has(bytes.fromhex(mark))
        except ValueError:
            return False

    async def refresh(self) -> bool:
        """Read what a command has changed; True if there was something."""
        return await asyncio.to_thread(self._refresh)

    async def catch_up(self) -> None:
        """Read what a command has changed, if there is something. Takes some microseconds otherwise."""
        if self.people.has_news() or self.ring.has_news():
            await self.refresh()

    def _refresh(self) -> bool:
        damaged = bool(self.people.damage)
        started = self._clock()
        changed = self.people.refresh() | self.ring.refresh()
        self._confirmed_at = max(self._confirmed_at, started)
        if self.people.damage and not damaged:
            log.error("%s", self.people.damage)
        return changed


GATE: Final = web.AppKey("gate", Gate)


def require_access(
    gate: Gate, of_session: Callable[[web.Request], Principal | None], visible: Visible
) -> Any:
    """A middleware that refuses requests without the right that their handler needs; unknown paths need a key.

    ``of_session`` is called for requests without a key, if their handler accepts browser sessions. Each path with a
    ``data_id`` is checked by ``visible``.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        needed = required_access(request.match_info.handler)
        if request.match_info.http_exception is not None:
            needed = Access(Right.READ, browser=False)
        if needed.right is Right.NONE:
            return await handler(request)
        gate.require_confirmed()
        key = request.headers.get(API_KEY_HEADER, "").strip()
        principal: Principal | None = None
        if key:
            where = f"{request.method[:16]} {request.path[:64]!r}"
            principal = await gate.of_key(key, request.remote, where)
        elif needed.browser:
            principal = of_session(request)
        if principal is None:
            raise HttpError(401, f"An API key is needed: send it in the header {API_KEY_HEADER}.")
        check_right(principal, needed.right)
        if principal.projects is not None and (data_id := request.match_info.get("data_id")) is not None:
            await visible(principal, data_id)
        request[PRINCIPAL] = principal
        return await handler(request)

    return check


def check_right(principal: Principal, needed: Right) -> None:
    """Raises HttpError 403 if ``principal`` has not the right ``needed``."""
    if principal.right < needed:
        has = f"only {principal.right.text}" if principal.right else "no right"
        raise HttpError(
            403,
            f"This needs the right {needed.text}; {principal.name} has {has}. An administrator can change that.",
        )


def principal_of(request: web.Request) -> Principal:
    """Who makes a request; only for handlers that need a right."""
    return request[PRINCIPAL]


def require_all_projects(request: web.Request, what: str) -> None:
    """Raises HttpError 403 for somebody who sees only some projects; ``what`` begins the sentence."""
    if principal_of(request).projects is not None:
        raise HttpError(403, f"{what}, and {principal_of(request).name} sees only some projects.")


def actor_of(request: web.Request, principal: Principal | None = None) -> Actor:
    """Who makes a request, for the audit log."""
    found = principal or request.get(PRINCIPAL)
    name = "somebody" if found is None else found.name
    via = f"key {found.key_id}" if found is not None and found.key_id else "browser"
    return Actor(name, via, request.remote or "")
