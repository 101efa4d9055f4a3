"""How old a record certainly is, whatever the wall clock was set to meanwhile.

The monotonic clock counts from the machine's start on Linux, macOS and Windows, for all processes alike. A
record keeps that uptime and the machine's name. While the machine runs, its age is the difference. After a
restart the true age is at least the new uptime, so the smaller of the two still never says too much: a
restart or a sleep may keep a record longer than asked, and no step of a clock can expire one (promise P6).
Records of another machine, whose uptime says nothing here, have no age at all.
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Written:
    """When a record was written: the machine's name, and its uptime in seconds."""

    host: str
    uptime_s: float

    @classmethod
    def now(cls) -> Written:
        """This machine, this moment."""
        return cls(platform.node(), time.monotonic())

    def certain_age_s(self, now: Written) -> float:
        """Seconds that certainly went by from this moment to ``now``; 0 where nothing can be known."""
        if self.host != now.host:
            return 0.0
        if now.uptime_s < self.uptime_s:  # the machine has been restarted since
            return now.uptime_s
        return now.uptime_s - self.uptime_s
