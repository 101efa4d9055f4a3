"""An event loop in its own thread, and blocking calls into it that Ctrl-C can interrupt.

The thread is a daemon thread of this module, not of an executor: an executor's thread that is never closed would keep
the interpreter from exiting. Waits are divided into slices, because on Windows Ctrl-C does not interrupt a wait for a
lock.
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

WAIT_SLICE_S: Final = 0.2
CANCEL_WAIT_S: Final = 0.4
"""How long a cancelled call may take to end. Ctrl-C must return within 0.5 s."""


class LoopThread:
    """An asyncio event loop in a daemon thread; any number of threads may call into it."""

    def __init__(self) -> None:
        self._started: concurrent.futures.Future[BlockingPortal] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, name="atomstream-loop", daemon=True)
        self._thread.start()
        self._portal = self._started.result()

    @property
    def running(self) -> bool:
        """True until the loop has stopped."""
        return self._thread.is_alive()

    def call(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Run ``await verb()`` in the loop and return its result. An interrupted wait cancels the call.

        Raises:
            ClosedError: the loop was stopped. All errors of ``verb`` are raised unchanged.
        """
        ended = threading.Event()
        future = self.start(partial(_run_and_set, verb, ended))
        try:
            return wait_interruptibly(future)
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(CANCEL_WAIT_S)  # until then the call may still read the caller's array
            raise

    def start(self, verb: Callable[[], Awaitable[T]]) -> concurrent.futures.Future[T]:
        """Start ``await verb()`` in the loop and return its future.

        Raises:
            ClosedError: the loop was stopped.
        """
        try:
            return self._portal.start_task_soon(verb)
        except RuntimeError as error:
            raise ClosedError("The streamer is closed.") from error

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the loop and wait for its thread. Does nothing if it has stopped already."""
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


async def _run_and_set(verb: Callable[[], Awaitable[T]], ended: threading.Event) -> T:
    # A cancelled future is done at once, while its task may still run.
    try:
        return await verb()
    finally:
        ended.set()


def wait_interruptibly(future: concurrent.futures.Future[T]) -> T:
    """Wait for the future and return its result; Ctrl-C interrupts the wait."""
    while not future.done():
        concurrent.futures.wait([future], timeout=WAIT_SLICE_S)
    return future.result()


def wait_for_copy(future: concurrent.futures.Future[T]) -> T:
    """As :func:`wait_interruptibly`, for work that can't be cancelled because it reads the caller's array.

    After an interrupt it waits up to ``CANCEL_WAIT_S`` for the end of the work.
    """
    try:
        return wait_interruptibly(future)
    except BaseException:
        concurrent.futures.wait([future], timeout=CANCEL_WAIT_S)
        raise
