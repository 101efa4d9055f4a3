"""Threads that work for long without the GIL leave their core in between, to whoever waits for just that core.

Linux lets a thread keep its core until the next tick of the timer, 4 ms later on many machines, though another one
woke up there, and even with other cores idle. An event loop that had handed the GIL to such a thread, and a camera's
thread, waited for that long [measured: an application's loop was held 4 to 6 ms, and 2 to 3 ms with yields].
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from atomstream.records import Piece
from atomstream.system import tuning

STEP_BYTES: Final = 2 << 20
"""What a thread may copy or write at once: half a millisecond."""

YIELD_INTERVAL_S: Final = 0.001
"""Between two yields: where somebody computes on that core, a yield may take until the tick itself."""


def yield_core() -> None:
    """Let whoever waits for the calling thread's core run first; where nobody does, at once back.

    Releases the GIL, from Python 3.11.1 on.
    """
    if hasattr(os, "sched_yield") and tuning.enabled("yield"):  # Windows runs who wakes up at once
        os.sched_yield()


class CoopYield:
    """Yields the core between the steps of one piece of work, at most once a millisecond."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def yield_if_due(self) -> None:
        """Before a step: yield, where the work has gone on for long enough; a short one never does."""
        if time.perf_counter() - self._since >= YIELD_INTERVAL_S:
            yield_core()
            self._since = time.perf_counter()


# The end of the interpreter, where executors refuse new work and no thread can be started any more.

WAIT_S: Final = 5.0

LOOK_S: Final = 0.002


def interpreter_is_exiting() -> bool:
    """Whether executors refuse work because the interpreter is on its way out.

    Between that moment and the exit hooks the loop of the blocking facade still runs: a look-up of a name or a
    read from disk fails there, and says nothing about the chunk or the server.
    """
    with ThreadPoolExecutor(1) as probe:
        try:
            probe.submit(int)
        except RuntimeError:
            return True
    return False


async def wait_for_threads(threads: Iterable[threading.Thread], wait_s: float = WAIT_S) -> None:
    """Wait until these have ended, at most ``wait_s`` seconds, without the thread that ``to_thread`` takes."""
    deadline = time.monotonic() + wait_s
    for thread in threads:
        while thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  (a thread rings no event)
            await asyncio.sleep(LOOK_S)


# What the system is told of threads that compute for long.


def use_batch_policy() -> None:
    """Say that the calling thread computes: on waking up it need not interrupt whoever runs.

    With as many encoders as cores an application's loop was interrupted by each slice of a chunk, for 5 to 10 ms
    (Linux; 3 to 7 ms so, measured with 1024x1024). A policy that somebody chose for the process is left alone.
    """
    if sys.platform == "linux" and tuning.enabled("batch"):
        with suppress(OSError):  # a sandbox may refuse it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class CoreAffinity:
    """The core of the calling thread, the ``number``-th (from 0) of ``threads``, where there are as many cores.

    Kept while there is no end of work: the rest of a pipeline wakes and sleeps a thousand times a second, and a
    busy machine's scheduler leaves two encoders on one core for milliseconds while the other idles: 3 per cent of
    all time (Linux, two cores). Not for a chunk now and then: an encoder that holds the GIL while another program has
    its core would keep the camera's thread waiting. Where there are more cores than encoders, nothing is kept.
    """

    def __init__(self, number: int, threads: int, patience: int) -> None:
        self._patience = patience
        self._turns = 0
        self._usable: set[int] = set()
        self._mine: set[int] = set()
        self._kept = False
        if sys.platform == "linux" and threads > 1 and tuning.enabled("affinity"):
            with suppress(OSError):
                cores = sorted(os.sched_getaffinity(0))
                self._usable = set(cores) if len(cores) == threads else set()
                self._mine = {cores[number % len(cores)]}

    def pin_if_busy(self) -> None:
        """Another turn of work: after more than ``patience`` of them without a rest, run on this core alone."""
        self._turns += 1
        self._change(self._turns > self._patience)

    def unpin(self) -> None:
        """There is nothing to do just now: run anywhere again."""
        self._turns = 0
        self._change(False)

    def _change(self, keep: bool) -> None:
        if self._usable and keep != self._kept and sys.platform == "linux":
            self._kept = keep
            with suppress(OSError):  # somebody took cores away from the process meanwhile
                os.sched_setaffinity(0, self._mine if keep else self._usable)


def split_piece(piece: Piece, nbytes: int) -> Iterator[Piece]:
    """The piece itself, or views of its parts of at most ``nbytes``."""
    if len(piece) <= nbytes:
        yield piece
        return
    view = memoryview(piece)
    for at in range(0, len(view), nbytes):
        yield view[at : at + nbytes]
