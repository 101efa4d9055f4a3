"""CPU scheduling hints for threads that compute for long, and waiting for threads at interpreter exit.

Linux lets a running thread keep its core until the next timer tick, 4 ms later on many machines, even if another
thread has become ready on that core and other cores are idle. So a thread that works without the GIL for longer than
a millisecond calls ``sched_yield`` in between. Measured: an application's event loop was blocked for 4 to 6 ms
without, and for 2 to 3 ms with these calls.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from atomstream.system import tuning

if TYPE_CHECKING:  # it imports numpy, which the command line does not need
    from atomstream.records import Piece

STEP_BYTES: Final = 2 << 20
"""Bytes that a thread copies or writes between two yields: about half a millisecond."""

YIELD_INTERVAL_S: Final = 0.001
"""Least time between two yields: if another thread computes on that core, a yield may take a whole timer tick."""


def yield_core() -> None:
    """Let other threads that are ready on this core run first; returns at once if there are none.

    Releases the GIL, from Python 3.11.1 on.
    """
    if hasattr(os, "sched_yield") and tuning.enabled(
        "yield"
    ):  # Windows runs a thread that becomes ready at once
        os.sched_yield()


class CoopYield:
    """Yields the core between the steps of one piece of work, at most once a millisecond."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def yield_if_due(self) -> None:
        """Call it before each step; yields if ``YIELD_INTERVAL_S`` has passed, so short work never does."""
        if time.perf_counter() - self._since >= YIELD_INTERVAL_S:
            yield_core()
            self._since = time.perf_counter()


WAIT_S: Final = 5.0
"""Default limit of :func:`wait_for_threads`, in seconds."""

POLL_INTERVAL_S: Final = 0.002


def interpreter_is_exiting() -> bool:
    """True once executors refuse work because the interpreter is shutting down.

    The event loop of the blocking facade still runs for a moment after that. A name look-up or a disk read that fails
    then is not a fault of the chunk or the server.
    """
    with ThreadPoolExecutor(1) as probe:
        try:
            probe.submit(int)
        except RuntimeError:
            return True
    return False


async def wait_for_threads(threads: Iterable[threading.Thread], wait_s: float = WAIT_S) -> None:
    """Wait until the threads have ended, at most ``wait_s`` seconds.

    It polls, because ``asyncio.to_thread`` can't start a thread at interpreter exit.
    """
    deadline = time.monotonic() + wait_s
    for thread in threads:
        while thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  (a thread's end sets no event)
            await asyncio.sleep(POLL_INTERVAL_S)


def split_piece(piece: Piece, nbytes: int) -> Iterator[Piece]:
    """The piece itself, or views of at most ``nbytes`` each."""
    if len(piece) <= nbytes:
        yield piece
        return
    view = memoryview(piece)
    for at in range(0, len(view), nbytes):
        yield view[at : at + nbytes]
