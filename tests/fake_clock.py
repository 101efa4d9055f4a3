"""A clock of the test's own."""

from __future__ import annotations


class Clock:
    """Time in s that passes when told to, by setting ``now``."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
