"""Shutdown of a server process: at a signal, one part after the other; a failure in one part does not stop the
others.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from atomstream.server.disk_errors import log_failure
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    pass

log = get_logger("atomstream.server")

_STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")
"""Signals that stop the server, where the system has them; SIGBREAK is Ctrl-Break on Windows."""


@contextmanager
def set_at_signals(event: asyncio.Event) -> Iterator[None]:
    """Set ``event`` at the first signal that asks this process to end. The earlier handlers are restored at the end.

    Does nothing outside the main thread, because Python delivers signals only there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()

    def note(_number: int, _frame: FrameType | None) -> None:
        # loop.add_signal_handler does not exist on Windows. Python's wakeup file descriptor wakes the loop.
        loop.call_soon_threadsafe(event.set)

    numbers = [getattr(signal, name) for name in _STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def at_the_end(stack: AsyncExitStack, what: str, close: Callable[[], Awaitable[None]]) -> None:
    """Call ``close`` when the server stops. An error is logged, so that the steps after it are done as well.

    ``what`` names the step for the log.
    """

    async def call() -> None:
        try:
            await close()
        except Exception as error:
            log_failure(log, error, "stopping: %s failed", what)

    stack.push_async_callback(call)


async def cancel_task(task: asyncio.Task[None]) -> None:
    """Cancel ``task`` and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
