"""Threads that work for long without the GIL leave their core in between, to whoever waits for just that core.

Linux lets a thread keep its core until the next tick of the timer, 4 ms later on many machines, though another one
woke up there, and even with other cores idle. An event loop that had handed the GIL to such a thread, and a camera's
thread, waited for that long [measured: an application's loop was held 4 to 6 ms, and 2 to 3 ms with yields].
"""

from __future__ import annotations

import os
import time
from typing import Final

STEP_BYTES: Final = 2 << 20
"""What a thread may copy or write at once: half a millisecond."""
TURN_S: Final = 0.001
"""Between two yields: where somebody computes on that core, a yield may take until the tick itself."""


def yield_core() -> None:
    """Let whoever waits for the calling thread's core run first; where nobody does, at once back.

    Releases the GIL, from Python 3.11.1 on.
    """
    if hasattr(os, "sched_yield"):  # Windows runs who wakes up at once
        os.sched_yield()


class Turns:
    """Yields the core between the steps of one piece of work, at most once a millisecond."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def offer(self) -> None:
        """Before a step: yield, where the work has gone on for long enough; a short one never does."""
        if time.perf_counter() - self._since >= TURN_S:
            yield_core()
            self._since = time.perf_counter()
