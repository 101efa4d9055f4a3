"""A limit on the rate of reading: a backup or check must leave the disk's speed to running streams."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Sleeps so that on average at most ``bytes_per_s`` are read (None: no limit), and counts what was read."""

    def __init__(
        self,
        bytes_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._began = clock()
        self.nbytes = 0

    def note(self, nbytes: int) -> None:
        """Count ``nbytes`` that were read; waits until the next ones may be read."""
        self.nbytes += nbytes
        if self._bytes_per_s:
            wait_s = self._began + self.nbytes / self._bytes_per_s - self._clock()
            if wait_s > 0:
                self._sleep(wait_s)

    @property
    def seconds(self) -> float:
        """Time since the beginning in s."""
        return self._clock() - self._began
