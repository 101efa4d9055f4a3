"""Which operating-system optimisations this process uses; all by default.

``ATOMSTREAM_PLAIN_OS=1`` turns all of them off: nothing but portable Python is left, which helps to find out whether
one of them causes a problem. ``ATOMSTREAM_PLAIN_OS=mmap,recycle`` turns off those named, so that each can be
measured alone. The setting is read once, at import.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

from atomstream import config

Optimisation: TypeAlias = Literal[
    "yield",  # long native work calls sched_yield in between (scheduling.yield_core)
    "prefault",  # the pages of a new frame buffer are populated by a thread (memory.populate)
    "mmap",  # each large buffer is a separate memory map, with huge pages (memory.allocate)
    "recycle",  # the files of delivered records are written over (spool.record_store.RecycledFiles)
    "gc",  # one garbage collection before the first capture (streaming.warm_up)
]

ALL: Final[frozenset[str]] = frozenset(get_args(Optimisation))

_off: frozenset[str] = config.plain_os(ALL)


def enabled(optimisation: Optimisation) -> bool:
    """False where the environment turned that one off."""
    return optimisation not in _off
