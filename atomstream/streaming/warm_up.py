"""Work that is done once per process before the first capture, so that it does not delay a capture that is running.

Late imports hold the event loop for 8 to 20 ms. Python's full garbage collection runs when the new objects are more
than a quarter of all others. After many imports this is soon the case: it stopped a capture thread for 16 to 28 ms,
once, some seconds after the start (measured). After one collection here, the next full one is hours away.
"""

from __future__ import annotations

import gc
from functools import cache

import anyio

from atomstream.spool import load_locks
from atomstream.system import tuning


@cache
def warm_up_process() -> None:
    """Import what is needed later, and collect garbage; only at the first call in a process.

    A second streamer may be made while the first one captures. There is no collection if the application or
    ``system/tuning`` has disabled it.
    """
    load_locks()
    if gc.isenabled() and tuning.enabled("gc"):
        gc.collect()


def warm_up_loop() -> None:
    """Make anyio import its backend for the running loop now; otherwise the first wait does it, maybe hours later."""
    anyio.Event()
