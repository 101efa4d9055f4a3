"""Reference time: this host's stamps corrected to the server's clock, measured while streams run.

The first exchange is made at once, three more 2 s apart, then one each 5 min. Where the server can't be
asked, stamps go uncorrected and say so; nothing waits for it and nothing fails with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from atomstream.errors import ServiceError
from atomstream.records import ClockStatus

# From exchanges of time stamps to the offset of this host's monotonic clock to reference UTC; pure.
#
# NTP's way (RFC 5905, sections 8 and 10): the reference lies within half the round trip of what an exchange
# says, plus what two crystals drift apart while it ages; of the last eight the tightest one counts. It rests
# on the monotonic clock, so a step of the host's UTC changes nothing here. All times are milliseconds.

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


_log = logging.getLogger(__name__)

FIRST_LIMIT_S: Final = 3.0
"""A server that is slower than this must not hold up a stream's start."""

SLOW_DELAY_MS: Final = 10.0
"""A first exchange slower than this most likely paid for the connection: one more is made at once."""

SETTLING: Final = 3

SETTLING_PERIOD_S: Final = 2.0

PERIOD_S: Final = 300.0

LOOK_S: Final = 10.0
"""How often the host's clock is looked at: after a sleep of the host the exchanges are worthless."""

JUMP_MS: Final = 1000.0


class TimeServer(Protocol):
    """What a reference clock asks; :class:`atomstream.service.api.ServiceApi` is one."""

    async def gateway_time(self) -> tuple[float, float]:
        """When the server received this request and when it answered, in its Unix ms."""


class ReferenceClock:
    """The server's time, as well as it is known. :meth:`now_ms` and :meth:`status` may be called anywhere.

    The host's clocks and the sleep can be given, in nanoseconds and seconds, for tests.
    """

    def __init__(
        self,
        api: TimeServer,
        *,
        monotonic_ns: Callable[[], int] = time.perf_counter_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._sleep = sleep
        self._filter = ClockFilter()
        self._task: asyncio.Task[None] | None = None
        self._first_made = asyncio.Event()
        self._closed = False
        self._failed = False

    async def start(self) -> None:
        """Make the first exchange, at most 3 s long, then go on in the background. Never raises for it."""
        if self._closed:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="atomstream clock")
        await self._first_made.wait()

    async def _run(self) -> None:
        try:
            await self._first()
        finally:
            self._first_made.set()
        for _ in range(SETTLING):
            await self._sleep(SETTLING_PERIOD_S)
            await self._measure()
        while True:
            await self._wait_for_period()
            await self._measure()

    async def _first(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LIMIT_S):
                exchange = await self._measure()
                if exchange is not None and exchange.delay_ms > SLOW_DELAY_MS:
                    await self._measure()

    async def _wait_for_period(self) -> None:
        """Wait five minutes, or less where the host's clock jumped against the monotonic one."""
        before = self._host_offset_ms()
        for _ in range(round(PERIOD_S / LOOK_S)):
            await self._sleep(LOOK_S)
            jump = self._host_offset_ms() - before
            if abs(jump) > JUMP_MS:
                _log.info("This host's clock jumped by %.1f s; measuring reference time again.", jump / 1e3)
                return

    async def _measure(self) -> Exchange | None:
        sent = self._mono_ms()
        try:
            server = await self._api.gateway_time()
        except ServiceError as error:
            self._note_failure(error)
            return None
        exchange = Exchange.between(sent, self._mono_ms(), server)
        self._filter.add(exchange)
        return exchange

    def _note_failure(self, error: ServiceError) -> None:
        if self._failed:
            return
        self._failed = True
        kept = "stamps stay uncorrected" if self._filter.estimate is None else "the last offset stays in use"
        _log.warning("Reference time could not be measured, so %s (said once). %s", kept, error)

    def status(self) -> ClockStatus | None:
        """How this host's clock stands to the server's now; None where it was never measured."""
        estimate, mono = self._filter.estimate, self._mono_ms()
        if estimate is None:
            return None
        return ClockStatus(
            offset_ms=mono + estimate.theta_ms(mono) - self._wall_ms(),
            uncertainty_ms=estimate.uncertainty_ms(mono),
            measured_at_unix_ms=estimate.best.mono_ms + estimate.best.theta_ms,
        )

    def now_ms(self) -> tuple[float, float | None, float | None]:
        """Now in reference UTC ms, the offset that is in it and its uncertainty (both None: host time)."""
        estimate, mono, wall = self._filter.estimate, self._mono_ms(), self._wall_ms()
        if estimate is None:
            return wall, None, None
        now = mono + estimate.theta_ms(mono)
        return now, now - wall, estimate.uncertainty_ms(mono)

    def _mono_ms(self) -> float:
        return self._monotonic_ns() / 1e6

    def _wall_ms(self) -> float:
        return self._wall_ns() / 1e6

    def _host_offset_ms(self) -> float:
        return self._wall_ms() - self._mono_ms()

    async def close(self) -> None:
        """Stop measuring; what was measured stays. Harmless when it was never started."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
