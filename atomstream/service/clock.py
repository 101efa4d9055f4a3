"""Reference time: timestamps of this host, corrected to the server's clock.

The first exchange is made at once, three more follow at intervals of 2 s, then one every 5 min. If the server can't be
reached, timestamps are sent uncorrected and marked so. No other part of the client waits for this or fails with it.

The method is that of NTP (RFC 5905, sections 8 and 10). The reference time lies within half of the round trip of an
exchange, plus the drift of the two clocks since then. Of the last eight exchanges the most precise one is used. The
result is relative to the monotonic clock, so a step of the host's UTC clock has no effect. All times are milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from atomstream.errors import ServiceError
from atomstream.records import ClockStatus
from atomstream.system.log_privacy import get_logger

_log = get_logger(__name__)

WINDOW: Final = 8
"""The number of exchanges that are kept."""

DRIFT: Final = 15e-6
"""PHI of RFC 5905: the assumed largest drift between two clocks, as a fraction."""

SLEW_RATE: Final = 500e-6
"""The largest rate of correction, as a fraction: frame intervals stay accurate to 0.05 %."""

STEP_MS: Final = 1000.0
"""A larger difference is corrected at once, because slewing by one second takes half an hour."""

FIRST_LIMIT_S: Final = 3.0
"""The longest time for the first exchange, in seconds: a slow server must not delay the start of a stream."""

SLOW_DELAY_MS: Final = 10.0
"""A slower first exchange probably included the connection set-up: one more is made at once."""

SETTLING: Final = 3
"""The number of exchanges at short intervals after the first one."""

SETTLING_PERIOD_S: Final = 2.0

PERIOD_S: Final = 300.0

CHECK_INTERVAL_S: Final = 10.0
"""Interval in seconds at which the host's clock is checked for jumps. After a sleep of the host the exchanges are
worthless."""

JUMP_MS: Final = 1000.0
"""A larger jump of the host's clock starts a new measurement."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One measurement: reference UTC = monotonic time + ``theta_ms``, with an error of at most ``delay_ms`` / 2."""

    mono_ms: float
    theta_ms: float
    delay_ms: float

    @classmethod
    def between(cls, sent_ms: float, received_ms: float, server: tuple[float, float]) -> Exchange:
        """From two monotonic times of this host and the two Unix times of the server (received, transmitted)."""
        rx, tx = server
        trip, held = received_ms - sent_ms, tx - rx
        # A server can't have held the request longer than the round trip took: such a claim is ignored.
        delay = trip - held if 0.0 <= held <= trip else trip
        return cls(received_ms, ((rx - sent_ms) + (tx - received_ms)) / 2, delay)

    def distance_ms(self, mono_ms: float) -> float:
        """The largest possible error of ``theta_ms`` at the time ``mono_ms``."""
        return self.delay_ms / 2 + DRIFT * abs(mono_ms - self.mono_ms)

    def agrees_with(self, other: Exchange) -> bool:
        """True if both can be correct. If not, a clock has stepped or slept between them."""
        room = self.distance_ms(other.mono_ms) + other.distance_ms(other.mono_ms)
        return abs(self.theta_ms - other.theta_ms) <= room


@dataclass(frozen=True, slots=True)
class Estimate:
    """The offset in use from ``since_ms`` on: it moves slowly from ``start_ms`` to the theta of ``best``."""

    best: Exchange
    start_ms: float
    since_ms: float

    def theta_ms(self, mono_ms: float) -> float:
        """Reference UTC minus monotonic time, as applied at ``mono_ms``."""
        gap = self.best.theta_ms - self.start_ms
        reach = SLEW_RATE * max(mono_ms - self.since_ms, 0.0)
        return self.start_ms + max(-reach, min(reach, gap)) if abs(gap) > reach else self.best.theta_ms

    def uncertainty_ms(self, mono_ms: float) -> float:
        """The largest possible error of :meth:`theta_ms`: that of the exchange, and the rest of the correction."""
        return self.best.distance_ms(mono_ms) + abs(self.best.theta_ms - self.theta_ms(mono_ms))


class ClockFilter:
    """Computes the :class:`Estimate` from exchanges. ``estimate`` is None before the first exchange."""

    def __init__(self) -> None:
        self._window: deque[Exchange] = deque(maxlen=WINDOW)
        self.estimate: Estimate | None = None

    def add(self, exchange: Exchange) -> Estimate:
        """Add the newest exchange and return the new estimate."""
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


class TimeServer(Protocol):
    """A server that reports its time, such as :class:`atomstream.service.api.ServiceApi`."""

    async def gateway_time(self) -> tuple[float, float]:
        """The times at which the server received this request and answered, in Unix ms."""


class ReferenceClock:
    """The best estimate of the server's time. Any thread may call :meth:`now_ms` and :meth:`status`.

    Tests can replace the host's clocks (nanoseconds) and the sleep (seconds).
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
        """Make the first exchange (at most 3 s), then continue in the background. Errors are logged, not raised."""
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
        """Wait five minutes, or less if the host's clock jumps relative to the monotonic one."""
        before = self._host_offset_ms()
        for _ in range(round(PERIOD_S / CHECK_INTERVAL_S)):
            await self._sleep(CHECK_INTERVAL_S)
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
        kept = (
            "timestamps are not corrected"
            if self._filter.estimate is None
            else "the last offset is still used"
        )
        _log.warning("Reference time could not be measured, so %s. This is logged once. %s", kept, error)

    def status(self) -> ClockStatus | None:
        """The offset of this host's clock to the server's clock now; None if it was never measured."""
        estimate, mono = self._filter.estimate, self._mono_ms()
        if estimate is None:
            return None
        return ClockStatus(
            offset_ms=mono + estimate.theta_ms(mono) - self._wall_ms(),
            uncertainty_ms=estimate.uncertainty_ms(mono),
            measured_at_unix_ms=estimate.best.mono_ms + estimate.best.theta_ms,
        )

    def now_ms(self) -> tuple[float, float | None, float | None]:
        """The present reference UTC in ms, the offset that it includes, and its uncertainty (both None: host time)."""
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
        """Stop measuring. The last estimate remains. This may be called without a start."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
