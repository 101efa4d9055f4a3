"""Cancellation of work in a thread. A thread can't be cancelled from outside, so the work checks a flag itself.

:func:`abandonable` runs a call together with an event; the call's loops over files call :func:`check_wanted`, which
raises once the event is set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class AbandonedError(Exception):
    """Nobody waits for the result of this work any more."""


_LEFT: ContextVar[threading.Event | None] = ContextVar("atomstream_left", default=None)


def abandonable(left: threading.Event, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``call(...)`` in this thread. After ``left`` is set, its next :func:`check_wanted` raises.

    Raises:
        AbandonedError: ``left`` was set before the end.
    """
    token = _LEFT.set(left)
    try:
        check_wanted()
        return call(*args, **kwargs)
    finally:
        _LEFT.reset(token)


def check_wanted() -> None:
    """Called between two steps of long work; does nothing outside of :func:`abandonable`.

    Raises:
        AbandonedError: nobody waits for the result.
    """
    left = _LEFT.get()
    if left is not None and left.is_set():
        raise AbandonedError
