"""Retry delays: exponential backoff with full jitter, at least the server's ``Retry-After``.

The error's ``retriable`` is True if a request may be repeated; this module computes the delay.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from atomstream.errors import ServiceError

T = TypeVar("T")

CEILING_S: Final = 30.0
BASE_S: Final = 0.5
_LARGEST_EXPONENT: Final = 16


def ceiling_s(attempt: int) -> float:
    """Longest delay in seconds after failed attempt number ``attempt`` (0 is the first): min(30, 0.5 * 2^n)."""
    return float(min(CEILING_S, BASE_S * 2 ** min(attempt, _LARGEST_EXPONENT)))


def delay_s(
    attempt: int, retry_after_s: float | None = None, draw: Callable[[], float] = random.random
) -> float:
    """Delay in seconds before the next attempt: uniform in (0, ceiling), but at least ``retry_after_s``."""
    return max(draw() * ceiling_s(attempt), retry_after_s or 0.0)


def is_transient(error: BaseException) -> bool:
    """True if the same request may succeed later."""
    return isinstance(error, ServiceError) and error.retriable


def certainly_not_received(error: BaseException) -> bool:
    """True if the request did not reach the server, so even one that creates something may be repeated."""
    return bool(getattr(error, "never_sent", False))


async def retrying(
    call: Callable[[], Awaitable[T]],
    *,
    attempts: int,
    may_repeat: Callable[[BaseException], bool] = is_transient,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> T:
    """Await ``call()`` up to ``attempts`` times; raises the error of the last attempt."""
    for attempt in range(attempts - 1):
        try:
            return await call()
        except ServiceError as error:
            if not may_repeat(error):
                raise
            await sleep(delay_s(attempt, error.retry_after_s))
    return await call()
