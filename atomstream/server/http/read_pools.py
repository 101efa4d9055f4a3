"""Threads for long reading, one pool for each class of requests.

A request that reads for seconds (a series of a long stream, a table) must delay neither the event loop nor requests of
another class. So each class has its own threads, a bounded number of requests that wait for them, and work ends
soon after its client has disconnected.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from atomstream.server.archive.abandoned import abandonable
from atomstream.server.http.responses import HttpError

P = ParamSpec("P")
T = TypeVar("T")

CHECK_PERIOD_S: Final = 0.25
"""Interval, in s, of the checks whether the client of running work is still connected."""


class ReadPool:
    """The threads of one class of requests; at most ``waiting`` requests run or wait at the same time."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"atomstream-{name}")
        self._waiting = waiting
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def run(self, request: web.Request, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``call(...)`` in a thread of this class. It is abandoned when the client of ``request`` disconnects.

        Raises:
            HttpError: 503 too many requests of this class; 499 the client has disconnected.
        """
        if self._count >= self._waiting:
            raise HttpError(
                503, "Too many requests of this kind are waiting; try again.", headers={"Retry-After": "1"}
            )
        self._count += 1
        left = threading.Event()
        try:
            future = asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: abandonable(left, call, *args, **kwargs)
            )
            future.add_done_callback(_note_end)
            while not (await asyncio.wait([future], timeout=CHECK_PERIOD_S))[0]:
                if request.transport is None or request.transport.is_closing():
                    future.cancel()  # if it still waits for a thread
                    raise HttpError(499, "The client has disconnected.")
            return future.result()
        finally:
            left.set()
            self._count -= 1

    async def close(self) -> None:
        """Wait for the threads. Work that waits is not begun."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)


def _note_end(future: asyncio.Future[T]) -> None:
    """Retrieve the exception of abandoned work: else asyncio logs that nobody did."""
    if not future.cancelled():
        future.exception()


class ReadPools:
    """The pools of one server. ``threads`` is the number of threads of each, ``waiting`` the requests of each."""

    def __init__(self, threads: int, waiting: int) -> None:
        self.series = ReadPool("series", threads, waiting)
        """Time series of results."""
        self.tables = ReadPool("tables", threads, waiting)
        """Results as CSV."""
        self.exports = ReadPool("exports", threads, waiting)
        """Files for other programs, which take as long as the stream is long."""
        self.pictures = ReadPool("pictures", threads, waiting)
        """Single pictures. Live ones are drawn at most ten times a second for each page, by the same threads."""
        self.facts = ReadPool("facts", threads, waiting)
        """Short reading: what is stored of a stream, its status, the list of streams."""

    def waiting(self) -> dict[str, int]:
        """The number of requests that run or wait, by the name of their class."""
        return {name: len(pool) for name, pool in self._by_name().items()}

    def _by_name(self) -> dict[str, ReadPool]:
        return {
            "series": self.series,
            "tables": self.tables,
            "exports": self.exports,
            "pictures": self.pictures,
            "facts": self.facts,
        }

    async def close(self) -> None:
        """Wait for the threads of all classes."""
        for pool in self._by_name().values():
            await pool.close()
