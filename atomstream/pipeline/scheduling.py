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


def keep_to_a_core(number: int, threads: int) -> None:
    """Give the calling thread, the ``number``-th (from 0) of ``threads``, a core of its own where there are as many.

    The rest of a pipeline wakes and sleeps a thousand times a second, and a busy machine's scheduler leaves two
    encoders on one core for milliseconds while the other idles: 3 per cent of all time (Linux, two cores). The slices
    that an encoder does not get to because its core is taken are the others' to take. Where there are more
    cores than encoders, the scheduler knows better.
    """
    if sys.platform == "linux" and threads > 1:
        with suppress(OSError):
            cores = sorted(os.sched_getaffinity(0))
            if len(cores) == threads:
                os.sched_setaffinity(0, {cores[number]})
