"""The one thread that touches the disk: jobs in order, so that a journal's entries are in order too.

A daemon thread of our own, as the encoders' (DECISIONS, "Exit"). Jobs never wait for the network or for room
at the gate, so the disk's stage can always move on.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Job = Callable[[], None]


class Depot:
    """A FIFO of disk jobs; any thread may submit.

    ``broken(error)`` is called, in the depot's thread, with what a job should not have raised.
    """

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        self._broken = broken
        self._ready = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._count = 0
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="atomstream-spool", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Jobs that wait or run; those put off are not counted."""
        with self._ready:
            return len(self._jobs) + self._busy

    def submit(self, job: Job) -> None:
        """Do ``job`` after all submitted before it."""
        with self._ready:
            self._jobs.append(job)
            self._ready.notify()

    def submit_later(self, job: Job, delay_s: float) -> None:
        """Do ``job`` in ``delay_s`` seconds, or never, where the depot is stopped before."""
        with self._ready:
            self._count += 1
            heapq.heappush(self._later, (time.monotonic() + delay_s, self._count, job))
            self._ready.notify()

    async def run(self, call: Callable[[], T]) -> T:
        """The result of ``call`` done in the depot's thread, after all submitted before it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.submit(lambda: _settle(loop, future, call))
        return await future

    def stop(self) -> list[threading.Thread]:
        """Let the thread do what was submitted, then end; what was put off is left. Never waits."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return [self._thread]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:
                self._broken(error)
            del job
            with self._ready:
                self._busy = False

    def _next(self) -> Job | None:
        with self._ready:
            while True:
                wait_s = self._promote()
                if self._jobs:
                    self._busy = True
                    return self._jobs.popleft()
                if self._stopping:
                    return None
                self._ready.wait(wait_s)

    def _promote(self) -> float | None:
        """Queue what was put off until now; seconds until the next one is due."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._jobs.append(heapq.heappop(self._later)[2])
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:
        failure = error  # the name in the clause ends with it, before the loop gets there
        _tell(loop, future, lambda: future.set_exception(failure))
    else:
        _tell(loop, future, lambda: future.set_result(result))


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], tell: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(lambda: None if future.done() else tell())
    except RuntimeError:
        # The loop was closed: nobody waits for the result any more.
        return
