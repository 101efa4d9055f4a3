"""A bell that any thread may ring and any coroutine may wait by: conditions over state that threads own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Pulse:
    """Wakes all waiting coroutines to look at their condition again.

    The state itself belongs to others (a ledger's lock); the pulse only says that it moved, so a wake-up too
    many is harmless and one too few impossible: the future is registered before the condition is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake everybody; from any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            _set_soon(future)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` holds; it is read in this task, after each ring."""
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            with self._lock:
                self._waiting.add(future)
            try:
                if condition():
                    return
                await future
            finally:
                with self._lock:
                    self._waiting.discard(future)


def _set_soon(future: asyncio.Future[None]) -> None:
    try:
        future.get_loop().call_soon_threadsafe(_set, future)
    except RuntimeError:
        # The waiter's loop was closed: nobody waits there any more.
        return


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
