"""What a process does once, before its first capture, and not in the middle of it: late imports, a walk over garbage.

Python walks over all objects once those that are new are a quarter of the others, and after imports most are new: a
capture thread was held for 16 to 28 ms, once, some seconds after its start [measured]. After one walk nothing
is new, and what a stream makes and keeps needs hours to be a quarter of that. A library's late import holds a loop
for 8 to 20 ms.
"""

from __future__ import annotations

import gc
from functools import cache

import anyio

from atomstream.spool import load_locks
from atomstream.system import tuning


@cache
def get_ready() -> None:
    """Import and collect, for the first streamer of a process only: the next may be made while that one captures.

    No collection where the application has switched it off.
    """
    load_locks()
    if gc.isenabled() and tuning.enabled("gc"):
        gc.collect()


def get_loop_ready() -> None:
    """Have anyio load what it needs for the running loop: else it does at the first wait, perhaps hours later."""
    anyio.Event()
