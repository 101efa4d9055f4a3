"""Rate limit for requests without a key: a fixed number per iteration of the event loop, so that uploads continue
during a flood of requests.

A chunk's upload needs about ten iterations. Without a limit each of them may begin one request of every connection:
hundreds of cheap requests, such as wrong keys, then add seconds to an upload, although nothing blocks the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

PER_ITERATION: Final = 4
"""Number of requests without a key that begin, and of connections that are accepted, in one iteration of the event
loop."""


class LoopRateLimiter:
    """A rate limiter: ``per_iteration`` callers pass in each iteration of the event loop, in the order of their
    calls."""

    def __init__(self, per_iteration: int = PER_ITERATION) -> None:
        self._per_iteration = per_iteration
        self._left = per_iteration
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turn: asyncio.Handle | None = None

    def __len__(self) -> int:
        """The number of callers that wait."""
        return len(self._waiting)

    async def wait(self) -> None:
        """Return when it is this caller's turn: at once if fewer have passed in this iteration and nobody waits."""
        loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = loop.call_soon(self._next_turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        passed = loop.create_future()
        self._waiting.append(passed)
        try:
            await passed
        except asyncio.CancelledError:  # its client has gone
            with suppress(ValueError):
                self._waiting.remove(passed)
            raise

    def _next_turn(self) -> None:
        self._turn, self._left = None, self._per_iteration
        while self._left and self._waiting:
            passed = self._waiting.popleft()
            if not passed.done():
                passed.set_result(None)
                self._left -= 1
        if self._left < self._per_iteration:
            self._turn = asyncio.get_running_loop().call_soon(self._next_turn)
