"""What the system is told of threads that compute for long."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def compute_in_batches() -> None:
    """Say that the calling thread computes: on waking up it need not interrupt whoever runs.

    With as many encoders as cores an application's loop was interrupted by each slice of a chunk, for 5 to 10 ms
    (Linux; 3 to 7 ms so, measured with 1024x1024). A policy that somebody chose for the process is left alone.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may refuse it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Core:
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
        if sys.platform == "linux" and threads > 1:
            with suppress(OSError):
                cores = sorted(os.sched_getaffinity(0))
                self._usable = set(cores) if len(cores) == threads else set()
                self._mine = {cores[number % len(cores)]}

    def at_work(self) -> None:
        """Another turn of work: after more than ``patience`` of them without a rest, run on this core alone."""
        self._turns += 1
        self._change(self._turns > self._patience)

    def at_rest(self) -> None:
        """There is nothing to do just now: run anywhere again."""
        self._turns = 0
        self._change(False)

    def _change(self, keep: bool) -> None:
        if self._usable and keep != self._kept and sys.platform == "linux":
            self._kept = keep
            with suppress(OSError):  # somebody took cores away from the process meanwhile
                os.sched_setaffinity(0, self._mine if keep else self._usable)
