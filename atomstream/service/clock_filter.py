"""From exchanges of time stamps to the offset of this host's monotonic clock to reference UTC; pure.

NTP's way (RFC 5905, sections 8 and 10): the reference lies within half the round trip of what an exchange
says, plus what two crystals drift apart while it ages; of the last eight the tightest one counts. It rests
on the monotonic clock, so a step of the host's UTC changes nothing here. All times are milliseconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW: Final = 8
DRIFT: Final = 15e-6
"""PHI of RFC 5905: how fast two clocks may part, as a fraction."""
SLEW_RATE: Final = 500e-6
"""The fastest that stamps are pulled over, as a fraction: frame intervals stay true to 0.05 %."""
STEP_MS: Final = 1000.0
"""From this difference on the clock steps: slewing a second takes half an hour."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answer of the server: reference UTC is monotonic + ``theta_ms``, within half of ``delay_ms``."""

    mono_ms: float
    theta_ms: float
    delay_ms: float

    @classmethod
    def between(cls, sent_ms: float, received_ms: float, server: tuple[float, float]) -> Exchange:
        """From our two monotonic stamps and the server's two of Unix time (received, transmitted)."""
        rx, tx = server
        trip, held = received_ms - sent_ms, tx - rx
        # A server that claims to have held the request longer than it was under way is not believed in that.
        delay = trip - held if 0.0 <= held <= trip else trip
        return cls(received_ms, ((rx - sent_ms) + (tx - received_ms)) / 2, delay)

    def distance_ms(self, mono_ms: float) -> float:
        """How far off it can be at ``mono_ms``."""
        return self.delay_ms / 2 + DRIFT * abs(mono_ms - self.mono_ms)

    def agrees_with(self, other: Exchange) -> bool:
        """Whether both can be true; where not, a clock stepped or slept in between."""
        room = self.distance_ms(other.mono_ms) + other.distance_ms(other.mono_ms)
        return abs(self.theta_ms - other.theta_ms) <= room


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is held true from ``since_ms`` on: ``start_ms`` pulled over to ``best``'s theta."""

    best: Exchange
    start_ms: float
    since_ms: float

    def theta_ms(self, mono_ms: float) -> float:
        """Reference UTC minus monotonic time, as applied at ``mono_ms``."""
        gap = self.best.theta_ms - self.start_ms
        reach = SLEW_RATE * max(mono_ms - self.since_ms, 0.0)
        return self.start_ms + max(-reach, min(reach, gap)) if abs(gap) > reach else self.best.theta_ms

    def uncertainty_ms(self, mono_ms: float) -> float:
        """How far off :meth:`theta_ms` can be: the exchange's own, and what is still to be pulled over."""
        return self.best.distance_ms(mono_ms) + abs(self.best.theta_ms - self.theta_ms(mono_ms))


class ClockFilter:
    """Takes exchanges, keeps the :class:`Estimate`; ``estimate`` is None before the first."""

    def __init__(self) -> None:
        self._window: deque[Exchange] = deque(maxlen=WINDOW)
        self.estimate: Estimate | None = None

    def add(self, exchange: Exchange) -> Estimate:
        """Weigh one more exchange, the newest."""
        kept = [old for old in self._window if old.agrees_with(exchange)]
        self._window = deque([*kept, exchange], maxlen=WINDOW)
        now = exchange.mono_ms
        best = min(self._window, key=lambda candidate: candidate.distance_ms(now))
        self.estimate = Estimate(best, self._start(best, now), now)
        return self.estimate

    def _start(self, best: Exchange, now: float) -> float:
        if self.estimate is None:
            return best.theta_ms
        applied = self.estimate.theta_ms(now)
        return best.theta_ms if abs(best.theta_ms - applied) > STEP_MS else applied
