"""A file that a program is still writing: when nothing more comes, and its bytes as a stream that waits for more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

from atomstream.checks import number_in_range

POLL_S: Final = 0.1
"""Shortest interval, in s, at which a file is looked at."""


class Growth:
    """Whether a file still grows: until ``idle_end_s`` seconds without growth (None: no limit), or :meth:`stop`, which
    any thread may call.
    """

    def __init__(self, idle_end_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if idle_end_s is not None:
            number_in_range("idle_end_s", idle_end_s, 0.0, 1e9, "s")
        self._idle_end_s = idle_end_s
        self.clock = clock
        self._stop = threading.Event()
        self.grew_at = clock()

    def grew(self) -> None:
        """Note that something was added now."""
        self.grew_at = self.clock()

    @property
    def silent_s(self) -> float:
        """Seconds since something was added."""
        return self.clock() - self.grew_at

    def stop(self) -> None:
        """End the following: what is complete is still delivered."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    @property
    def ended(self) -> bool:
        """Whether nothing more is waited for."""
        return self.stopped or (self._idle_end_s is not None and self.silent_s >= self._idle_end_s)

    def wait(self, seconds: float = POLL_S) -> None:
        """Wait, at most until :meth:`stop`."""
        self._stop.wait(seconds)

    def pause(self, seconds: float) -> None:
        """Wait, also after :meth:`stop`."""
        time.sleep(seconds)


class GrowingBytes:
    """The bytes of a file from its beginning. At its present end :meth:`read` waits for more, until ``growth`` ends.

    It has no ``seek``: a parser that could jump to the end would take it for the end of the recording.
    """

    def __init__(self, path: Path, growth: Growth) -> None:
        self.name = str(path)
        self._file = FileIO(path)
        self._growth = growth

    def read(self, size: int) -> bytes:
        """Return 1 to ``size`` bytes; none at the end."""
        while not (data := self._file.read(size)) and not self._growth.ended:
            self._growth.wait()
        if data:
            self._growth.grew()
        return data or b""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
