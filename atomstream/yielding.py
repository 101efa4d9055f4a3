"""Threads that work for long without the GIL leave their core between two steps, to whoever waits for just that core.

Linux lets a thread keep its core until the next tick of the timer, 4 ms later on many machines, though another one
woke up there, and even with other cores idle. An event loop that had handed the GIL to such a thread, and a camera's
thread, waited for that long [measured: an application's loop was held 4 to 6 ms, and 1 to 2 ms with yields].
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Final

STEP_BYTES: Final = 2 << 20
"""What a thread may copy or write at once: half a millisecond."""


def _find() -> Callable[[], object]:
    if sys.version_info >= (3, 12) and hasattr(os, "sched_yield"):
        return os.sched_yield
    try:
        # Before Python 3.12 its own call holds the GIL while others run, and all of the process waits for them.
        return ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError, TypeError):  # Windows runs who wakes up at once
        return lambda: None


_sched_yield: Final = _find()


def yield_core() -> None:
    """Let whoever waits for the calling thread's core run first; at once back where nobody does (a microsecond)."""
    _sched_yield()
