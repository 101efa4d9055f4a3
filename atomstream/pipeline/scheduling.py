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
