"""One copy of a chunk, by two threads where a second one is free: it halves the time that ``push`` holds its caller.

In halves and not finer: beside a busy Python thread each numpy copy waits up to a switch interval (5 ms) for the GIL
to come back (DECISIONS, "push").
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future
from typing import Any, Final

import numpy as np
import numpy.typing as npt

SHARED_BYTES: Final = 16 << 20
"""Below this waking a second thread takes longer than it saves."""


def copy_together(target: npt.NDArray[Any], source: npt.NDArray[Any], helpers: Executor) -> None:
    """Copy ``source`` (N, ...) into ``target`` of its shape; a thread of ``helpers`` takes a half if it comes in time.

    Never waits for a helper that has not begun.
    """
    half = len(source) // 2
    if source.nbytes < SHARED_BYTES or not half:
        np.copyto(target, source)
        return
    left = deque([slice(0, half), slice(half, len(source))])

    def work() -> None:
        while left:
            try:
                part = left.popleft()
            except IndexError:  # the other thread took the last one
                return
            np.copyto(target[part], source[part])

    helper = _asked(helpers, work)
    try:
        work()
    finally:  # it may be in the middle of its half, and the caller's array must not change under it
        if helper is not None and not helper.cancel():
            helper.result()


def _asked(helpers: Executor, work: Any) -> Future[None] | None:
    try:
        return helpers.submit(work)
    except RuntimeError:  # shut down meanwhile, by a close() beside this copy
        return None
