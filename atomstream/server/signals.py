"""Ctrl-C and SIGTERM as an event, on Windows too."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")


@contextmanager
def set_at_signals(event: asyncio.Event) -> Iterator[None]:
    """Set ``event`` at the first signal that asks this process to end; the handlers before come back after.

    Does nothing outside the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def note(_number: int, _frame: FrameType | None) -> None:
        # Not loop.add_signal_handler: Windows' loop has none. The loop itself is woken by Python's wakeup pipe.
        loop.call_soon_threadsafe(event.set)

    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
