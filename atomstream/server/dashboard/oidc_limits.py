"""What sign-ins by the OpenID Connect provider may cost: requests to the provider, and time.

A callback with the cookie of a sign-in that has begun leads to a request to the provider, whatever code is in it, and
anybody can begin a sign-in. So the callbacks that end without a sign-in are limited by address, and those that ask the
provider at the same time by number. Without that cookie a callback is refused before anything is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from atomstream.server.http.recent_counts import RecentCounts, network_of
from atomstream.server.http.responses import HttpError
from atomstream.server.http.tally import Tally
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

MAX_FAILED: Final = 20
"""Callbacks from one address that asked the provider and signed nobody in, in ``WITHIN_S``."""
WITHIN_S: Final = 60.0
AT_ONCE: Final = 8
"""Callbacks that ask the provider at the same time."""
MAX_WAITING: Final = 32
"""Callbacks that wait for that; further ones are refused (503)."""
EXCHANGE_S: Final = 20.0
"""Longest time of all requests to the provider for one callback, in s."""


class OidcLimits:
    """Limits the callbacks of one server. Used in its loop. ``clock`` is monotonic, in s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._failed = RecentCounts(MAX_FAILED, WITHIN_S, clock=clock)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._tally = Tally(
            log.warning, "a sign-in by the provider was refused", "sign-ins by the provider were refused"
        )

    @asynccontextmanager
    async def exchange(self, address: str | None) -> AsyncIterator[None]:
        """Hold a place for the requests of one callback from ``address``; ending it without an error is a sign-in.

        Raises:
            HttpError: 429 too many from this address signed nobody in; 503 too many at once, or the provider has not
                answered in ``EXCHANGE_S``.
        """
        # Counted before the requests, and not counted if somebody is signed in: so simultaneous ones are all counted.
        network = network_of(address)
        if wait_s := self._failed.count(network):
            self._tally.note(address)
            raise HttpError(
                429,
                f"Too many sign-ins from this address have failed; wait {int(wait_s) + 1} s. An API key or a login "
                "link is accepted at once.",
                headers={"Retry-After": str(int(wait_s) + 1)},
            )
        if self._waiting >= MAX_WAITING:
            self._failed.uncount(network)
            raise HttpError(
                503, "Too many people are signing in at once; try again.", headers={"Retry-After": "2"}
            )
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            async with asyncio.timeout(EXCHANGE_S):
                yield
        except TimeoutError:
            raise HttpError(
                503, f"The provider did not answer in {EXCHANGE_S:g} s. Sign in again, or use an API key."
            ) from None
        finally:
            self._places.release()
        self._failed.uncount(network)

    def close(self) -> None:
        """Log the sign-ins that were counted and not logged yet."""
        self._tally.close()
