"""The garbage collector's first walk over all that was imported: before the capture, not in its middle.

Python walks over all objects once those that are new are a quarter of the others, and after imports most are new: a
capture thread was held for 16 to 28 ms, once, some seconds after its start [measured]. After one walk nothing
is new, and what a stream makes and keeps needs hours to be a quarter of that.
"""

from __future__ import annotations

import gc
from functools import cache


@cache
def collect_once() -> None:
    """Collect garbage, for the first streamer of a process only: the next may be made while that one captures.

    Nothing where the application has switched collection off.
    """
    if gc.isenabled():
        gc.collect()
