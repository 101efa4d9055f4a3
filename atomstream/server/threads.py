"""Running blocking work in threads so that a cancelled waiter never leaves it half overlapped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in(
    pool: ThreadPoolExecutor | None, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """``call(...)`` in a thread of ``pool`` (None: the loop's own).

    A thread can't be cancelled: where the waiting task is, this first waits for the call to end, so that
    nothing closes a file under a write or removes one under a commit.
    """
    future = asyncio.get_running_loop().run_in_executor(pool, lambda: call(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
