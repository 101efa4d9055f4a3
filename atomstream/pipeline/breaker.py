"""A circuit breaker: after repeated failures, one probe at a time until one succeeds. Pure, clock injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from atomstream.pipeline.retry import delay_s

FAILURES_TO_OPEN: Final = 3
"""A single reset is bad luck; three failures without a success between them are an outage."""


class Breaker:
    """Closed: everything may pass. Open: one probe at a time, each after a delay (``retry.delay_s``)."""

    def __init__(self, clock: Callable[[], float], threshold: int = FAILURES_TO_OPEN) -> None:
        self._clock = clock
        self._threshold = threshold
        self._failures = 0
        self._tickets = 0
        self._probe: int | None = None
        self._next_probe = 0.0
        self.reason = ""

    @property
    def is_open(self) -> bool:
        """Whether only probes pass."""
        return self._failures >= self._threshold

    def allows(self) -> bool:
        """Whether an attempt may start now."""
        return not self.is_open or (self._probe is None and self._clock() >= self._next_probe)

    def retry_in(self) -> float | None:
        """Seconds until the next probe may start; None where no timer is needed."""
        if not self.is_open or self._probe is not None:
            return None
        return max(0.0, self._next_probe - self._clock())

    def started(self) -> int:
        """An attempt goes out (while open: the probe); its ticket goes with the verdict."""
        self._tickets += 1
        if self.is_open:
            self._probe = self._tickets
        return self._tickets

    def succeeded(self) -> bool:
        """An attempt came through; True where that ended an outage."""
        was_open, self._failures, self._probe, self.reason = self.is_open, 0, None, ""
        return was_open

    def failed(self, ticket: int, reason: str, retry_after_s: float | None = None) -> bool:
        """An attempt failed; True where that began an outage.

        Attempts that began before the outage fail later than its first probes: only the probe's own verdict
        moves the next probe.
        """
        was_open = self.is_open
        if was_open and ticket != self._probe:
            return False
        self._probe = None
        self._failures += 1
        self.reason = reason
        self._next_probe = self._clock() + delay_s(max(0, self._failures - self._threshold), retry_after_s)
        return self.is_open and not was_open

    def trip(self, ticket: int, reason: str) -> bool:
        """Open at once (a refused key needs no second opinion); True where it was closed."""
        self._failures = max(self._failures, self._threshold - 1)
        return self.failed(ticket, reason)

    def gave_up(self, ticket: int) -> None:
        """The attempt ended without a verdict on the way (cancelled, or refused for the chunk's own sake)."""
        if ticket == self._probe:
            self._probe = None
