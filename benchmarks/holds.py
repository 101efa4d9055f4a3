"""Where the time of a callback went: its thread at work, its core another thread's, or neither."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Hold:
    """Seconds by the clock, and of them: of processor time, and in the queue for a core.

    The rest was spent asleep (the GIL was another thread's), or the machine's host had stopped the core.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    queued_s: float = 0.0

    @property
    def rest_s(self) -> float:
        """Neither at work nor in a queue."""
        return max(0.0, self.wall_s - self.cpu_s - self.queued_s)

    def since(self, earlier: Self) -> Hold:
        """From ``earlier`` to this moment."""
        return Hold(
            self.wall_s - earlier.wall_s, self.cpu_s - earlier.cpu_s, self.queued_s - earlier.queued_s
        )

    def milliseconds(self) -> dict[str, float]:
        """As a worker answers."""
        parts = {"wall": self.wall_s, "cpu": self.cpu_s, "queued": self.queued_s, "rest": self.rest_s}
        return {name: 1e3 * seconds for name, seconds in parts.items()}


class ThreadClock:
    """Reads what the calling thread, the one that made it, has had of each so far."""

    def __init__(self) -> None:
        # Linux tells the time in the queue (Documentation/scheduler/sched-stats.rst); elsewhere it is in the rest.
        path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._file = os.open(path, os.O_RDONLY) if path.exists() else None

    def now(self) -> Hold:
        """Differences of two of these are a hold."""
        return Hold(time.perf_counter(), time.thread_time(), self._queued_s())

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _queued_s(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
