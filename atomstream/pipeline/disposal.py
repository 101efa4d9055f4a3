"""Large chunks' memory goes back piece by piece, in a thread: at once it holds every thread up.

Freeing a shard of 100 MB returns its pages to the system with the GIL held, 6 to 25 ms in which neither the loop nor a
capture thread runs [measured]. Between two pieces the GIL is free.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


class Box(list[T]):
    """Holds one thing, so that whoever takes it out knows that its own reference is the last one of this box."""


def dispose(box: Box[Sequence[object]], threads: Executor) -> None:
    """Free the pieces in ``box`` in one of ``threads``; at once where they have ended.

    Who else holds a piece keeps it. The caller must keep no reference to the sequence itself.
    """
    try:
        threads.submit(_free, box)
    except RuntimeError:
        box.clear()


def _free(box: Box[Sequence[object]]) -> None:
    pieces = list(box.pop())
    while pieces:
        pieces.pop()
        time.sleep(0)  # lets the GIL go: a thread that asks for it is else given it after 5 ms only
