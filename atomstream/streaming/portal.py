"""An event loop in a daemon thread, and calls into it that a person can interrupt.

The thread is ours and a daemon: a portal of an executor that nobody closes hangs the interpreter for ever
(DECISIONS, "Exit"). Waiting is done in short slices, because a lock on Windows does not hear Ctrl-C.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from atomstream.errors import ClosedError

T = TypeVar("T")

SLICE_S: Final = 0.2
CANCEL_S: Final = 0.4
"""How long a cancelled call may take to come back: Ctrl-C returns within half a second (promise P22)."""


class LoopThread:
    """A loop of its own for blocking callers, from any number of threads."""

    def __init__(self) -> None:
        self._started: concurrent.futures.Future[BlockingPortal] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, name="atomstream-portal", daemon=True)
        self._thread.start()
        self._portal = self._started.result()

    @property
    def running(self) -> bool:
        """Whether calls are taken."""
        return self._thread.is_alive()

    def call(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run ``await verb()`` in the loop and wait for it; whatever interrupts the wait cancels it there.

        Raises:
            ClosedError: the portal was stopped. Else what ``verb`` raises, itself.
        """
        over = threading.Event()
        future = self.start(partial(_told_when_over, verb, over))
        try:
            return result_of(future)
        except BaseException:
            if not future.done():
                future.cancel()
                over.wait(CANCEL_S)  # the caller's array may still be read until then
            raise

    def start(self, verb: Callable[[], Awaitable[T]]) -> concurrent.futures.Future[T]:
        """Begin ``await verb()`` in the loop.

        Raises:
            ClosedError: the portal was stopped.
        """
        try:
            return self._portal.start_task_soon(verb)
        except RuntimeError as error:
            raise ClosedError("The streamer is closed.") from error

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the loop and its thread; harmless when repeated."""
        if self._thread.is_alive():
            self._portal.start_task_soon(self._portal.stop, True)
            self._thread.join(timeout_s)

    def _main(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except BaseException as error:
            if not self._started.done():
                self._started.set_exception(error)
            raise

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            self._started.set_result(portal)
            await portal.sleep_until_stopped()


async def _told_when_over(verb: Callable[[], Awaitable[T]], over: threading.Event) -> T:
    # A cancelled future does not say when its task has ended.
    try:
        return await verb()
    finally:
        over.set()


def result_of(future: concurrent.futures.Future[T]) -> T:
    """The result, waited for in a way that Ctrl-C can end."""
    while not future.done():
        concurrent.futures.wait([future], timeout=SLICE_S)
    return future.result()


def completed(future: concurrent.futures.Future[T]) -> T:
    """As :func:`result_of`, for work that nobody can cancel: an interrupt waits a little for its end.

    The caller's array may still be read until then.
    """
    try:
        return result_of(future)
    except BaseException:
        concurrent.futures.wait([future], timeout=CANCEL_S)
        raise
