"""Splits the duration of a callback: CPU time of its thread, waiting for a core, or neither."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """Elapsed time in s, and of it CPU time and time in the run queue of a core.

    The rest is sleep (for example, another thread had the GIL), or the host of the virtual machine stopped the core.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    queued_s: float = 0.0

    @property
    def rest_s(self) -> float:
        """Time neither running nor waiting for a core, in s."""
        return max(0.0, self.wall_s - self.cpu_s - self.queued_s)

    def since(self, earlier: Self) -> ThreadTime:
        """Return the difference to an ``earlier`` reading."""
        return ThreadTime(
            self.wall_s - earlier.wall_s, self.cpu_s - earlier.cpu_s, self.queued_s - earlier.queued_s
        )

    def milliseconds(self) -> dict[str, float]:
        """Return all parts in ms, for the JSON result of a worker."""
        parts = {"wall": self.wall_s, "cpu": self.cpu_s, "queued": self.queued_s, "rest": self.rest_s}
        return {name: 1e3 * seconds for name, seconds in parts.items()}


class ThreadClock:
    """Reads the times of the thread that created it."""

    def __init__(self) -> None:
        # Linux reports the time in the run queue (sched-stats.rst of the kernel); elsewhere it is in the rest.
        path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._file = os.open(path, os.O_RDONLY) if path.exists() else None

    def now(self) -> ThreadTime:
        """Return the present readings; the difference of two is the time between them."""
        return ThreadTime(time.perf_counter(), time.thread_time(), self._queued_s())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _queued_s(self) -> float:
        if self._file is None:
            return 0.0
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
