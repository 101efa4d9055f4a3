"""The end of the interpreter, where executors refuse new work and no thread can be started any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

WAIT_S: Final = 5.0
LOOK_S: Final = 0.002


def interpreter_ends() -> bool:
    """Whether executors refuse work because the interpreter is on its way out.

    Between that moment and the exit hooks the loop of the blocking facade still runs: a look-up of a name or a
    read from disk fails there, and says nothing about the chunk or the server.
    """
    with ThreadPoolExecutor(1) as probe:
        try:
            probe.submit(int)
        except RuntimeError:
            return True
    return False


async def ended(threads: Iterable[threading.Thread], wait_s: float = WAIT_S) -> None:
    """Wait until these have ended, at most ``wait_s`` seconds, without the thread that ``to_thread`` takes."""
    deadline = time.monotonic() + wait_s
    for thread in threads:
        while thread.is_alive() and time.monotonic() < deadline:  # noqa: ASYNC110  (a thread rings no event)
            await asyncio.sleep(LOOK_S)
