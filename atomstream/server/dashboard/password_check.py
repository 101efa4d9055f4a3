"""The check of passwords: in a thread, few at once, and few wrong ones.

An API key can't be guessed, so a right one is always accepted at once. A password may be guessed; so tries above the
limit are refused without being checked, for at most a minute. What is counted together: tries from one address, and
tries with one name. A browser in which the person has signed in before has a cookie that is counted by itself. So a
person who tries passwords does not lock the owner of the account out of their own browser.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Final

from atomstream.errors import ConfigError
from atomstream.protocol import normalized_name
from atomstream.server.http.recent_counts import RecentCounts, network_of
from atomstream.server.http.responses import HttpError
from atomstream.server.http.tally import Tally
from atomstream.server.people.passwords import is_password
from atomstream.server.people.records import User
from atomstream.server.people.store import People
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

MAX_WRONG: Final = 10
"""Wrong passwords from one address, with one name, or from one known browser, in ``WITHIN_S``."""
WITHIN_S: Final = 60.0
AT_ONCE: Final = 2
"""Passwords that are checked at the same time: each takes a core for some 50 ms, and 32 MiB."""
MAX_WAITING: Final = 16
"""Sign-ins that wait for that; further ones are refused (503)."""

WRONG: Final = "Name or password is wrong."


class PasswordCheck:
    """Checks names and passwords of one server. Used in its loop. ``clock`` is monotonic, in s."""

    def __init__(self, people: People, clock: Callable[[], float] = time.monotonic) -> None:
        self._people = people
        self._counts = RecentCounts(MAX_WRONG, WITHIN_S, clock=clock)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._tally = Tally(log.warning, "a wrong password was refused", "wrong passwords were refused")

    async def check(self, name: str, password: str, address: str | None, known_browser: str = "") -> User:
        """The person with that name and password.

        ``known_browser`` identifies a browser in which this person has signed in before; empty for any other.

        Raises:
            HttpError: 401 wrong; 429 too many tries; 503 too many at once.
        """
        names = (
            [_mark(b"browser", known_browser)]
            if known_browser
            else [network_of(address), _mark(b"name", name)]
        )
        # Counted before the check, and not counted if the password is right: so simultaneous tries are all counted.
        waits = [self._counts.count(one) for one in names]
        if any(waits):
            for one, wait in zip(names, waits, strict=True):
                if not wait:
                    self._counts.uncount(one)
            raise self._too_many(max(waits), address)
        if self._waiting >= MAX_WAITING:
            self._uncount(names)
            raise HttpError(
                503, "Too many people are signing in at once; try again.", headers={"Retry-After": "2"}
            )
        user = await self._checked(name, password)
        if user is None:
            self._tally.note(address)
            raise HttpError(401, WRONG)
        self._uncount(names)
        return user

    def _uncount(self, names: list[bytes]) -> None:
        for one in names:
            self._counts.uncount(one)

    def _too_many(self, wait_s: float, address: str | None) -> HttpError:
        self._tally.note(address)
        return HttpError(
            429,
            f"Too many wrong passwords were tried; wait {int(wait_s) + 1} s. An API key or a login link is accepted "
            "at once.",
            headers={"Retry-After": str(int(wait_s) + 1)},
        )

    async def _checked(self, name: str, password: str) -> User | None:
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(self._check, name, password)
        finally:
            self._waiting -= 1

    def _check(self, name: str, password: str) -> User | None:
        self._people.refresh()
        user = self._people.directory.user_named(name)
        try:
            stored = None if user is None else self._people.password_hash(user)
        except ConfigError as error:
            log.error("%s", error)
            raise HttpError(
                500, "The file of passwords is damaged; the server's log has the reason."
            ) from None
        return user if is_password(stored, password) else None

    def close(self) -> None:
        """Log the tries that were counted and not logged yet."""
        self._tally.close()


def _mark(kind: bytes, text: str) -> bytes:
    return kind + hashlib.sha256(normalized_name(text).encode("utf-8", "surrogatepass")).digest()[:16]
