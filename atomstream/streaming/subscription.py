"""Following a stream's results: over the feed, through breaks of every kind, or by polling where there is none."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from atomstream.errors import AtomstreamError, NotFoundError, RejectedError, ServiceError
from atomstream.results import Measurement
from atomstream.retry import delay_s
from atomstream.streaming.result_batch import TIME, ResultBatch, from_message, without_first

if TYPE_CHECKING:
    from atomstream.service.results_api import Message, ResultsApi

log = logging.getLogger("atomstream")

POLL_S: Final = 2.0

POLL_POINTS: Final = 1000

LONGEST_PAUSE_S: Final = 5.0
"""Between attempts: a control loop waits at the other end."""

_OVER: Final = frozenset({"success", "error", "stream_error"})

_PLACE: Final = frozenset({"frame_number", "time_seconds", "relative_time_seconds", "unix_timestamp_ms"})

_LACKS: Final = {
    "late": "they came after their gap was passed. They are stored; their frames' own values are filled in, rates "
    "and other fits have them once the stream has ended (finalize it) and is analysed again, by itself.",
    "unreadable": "their files on the server are damaged, so look after its disk. All other results stand; where the "
    "files can be put back, have the finished stream analysed again (docs/live_api.md).",
}

_LATE_AGAIN: Final = (
    "they came after the end. They are stored, and the stream is being analysed again with them."
)

_LACK_UNKNOWN: Final = "the server's page of the stream says why."

Sleep = Callable[[float], Awaitable[None]]


class ResultSubscription:
    """One reader's place in one stream's results. ``announced`` None: it is not known whose server it is."""

    def __init__(
        self,
        api: ResultsApi,
        data_id: str,
        after: int = 0,
        announced: bool | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._api = api
        self._data_id = data_id
        self._place = after
        self._announced = announced
        self._sleep = sleep
        self._next_frame = 0
        self._went_back = False
        self._lost = 0
        self._failures = 0
        self._told_lacks: set[str] = set()

    async def batches(self) -> AsyncGenerator[ResultBatch, None]:
        """Every batch once and in order, from the place on, until the analysis has ended.

        Raises:
            NotFoundError: there is no such stream. AuthenticationError, RejectedError: as the server says.
        """
        if self._announced is not False:
            try:
                async with aclosing(self._over_feed()) as batches:
                    async for batch in batches:
                        yield batch
                return
            except RejectedError:
                if self._announced:
                    raise
        async with aclosing(self._by_polling()) as batches:
            async for batch in batches:
                yield batch

    async def _over_feed(self) -> AsyncGenerator[ResultBatch, None]:
        while True:
            try:
                async with aclosing(self._api.feed(self._data_id, self._place)) as messages:
                    async for message in messages:
                        self._failures, self._announced = 0, True
                        if message["type"] == "end":
                            return
                        batch = self._take(message)
                        if batch is not None:
                            yield batch
            except ServiceError as error:
                await self._pause(error)
            else:
                await self._sleep(delay_s(0))  # the server stops: it comes back, or refuses the connection

    async def _pause(self, error: ServiceError) -> None:
        """Wait for the next attempt, or raise what another one would not change."""
        if not error.retriable:
            raise error
        if self._failures == 0:
            log.warning("The results of stream %s pause: %s", self._data_id, error)
        wait_s = delay_s(self._failures, error.retry_after_s)
        self._failures += 1
        await self._sleep(min(wait_s, LONGEST_PAUSE_S))

    def _take(self, message: Message) -> ResultBatch | None:
        """The batch in a message, None where it has none, or none that is new."""
        match message["type"]:
            case "hello":
                # After a power cut the server may have lost its last records, and number their frames anew.
                self._went_back = message["seq"] < self._place
                self._place = min(self._place, message["seq"])
            case "lost":
                self._lost += message["count"]
                self._place = message["last"]
            case "missing":
                self._tell_lacks(message)
            case "event" | "regions":
                self._place = message["seq"]
            case "batch":
                self._place = message["seq"]
                return self._fresh(from_message(self._data_id, message, self._lost))
        return None

    def _tell_lacks(self, message: Message) -> None:
        """Warn of chunks that the results lack: once a kind, for a stream with one hole tends to have more."""
        again = bool(message.get("reanalysis"))
        for lack in message.get("missing") or ():
            kind = str(lack.get("why"))
            if kind in self._told_lacks:
                continue
            self._told_lacks.add(kind)
            said = _LACKS.get(kind, _LACK_UNKNOWN) if not (again and kind == "late") else _LATE_AGAIN
            log.warning("The results of stream %s lack chunks %s: " + said, self._data_id, lack.get("chunks"))

    def _fresh(self, batch: ResultBatch) -> ResultBatch | None:
        self._lost = 0
        known = self._next_frame - batch.start if batch.count and self._went_back else 0
        self._next_frame = max(self._next_frame, batch.start + batch.count)
        if known <= 0:
            return batch
        return (
            None
            if known >= batch.count and not batch.final
            else without_first(batch, min(known, batch.count))
        )

    # -- where there is no feed --------------------------------------------------------------------------

    async def _by_polling(self) -> AsyncGenerator[ResultBatch, None]:
        seen: dict[float, int] = {}
        points: int | None = None
        over = False
        while True:
            try:
                series = await self._api.series(self._data_id, points)
                self._failures = 0
            except NotFoundError:
                raise
            except ServiceError as error:
                await self._pause(error)
                continue
            fresh = [batch for entry in series if (batch := self._polled(entry, seen)) is not None]
            for batch in fresh:
                yield batch
            if over and not fresh:
                return
            points = POLL_POINTS
            over = await self._is_over()
            await self._sleep(POLL_S)

    async def _is_over(self) -> bool:
        try:
            return await self._api.status(self._data_id) in _OVER
        except ServiceError as error:
            await self._pause(error)
            return False

    def _polled(self, entry: Message, seen: dict[float, int]) -> ResultBatch | None:
        """What is new in one azimuth's series."""
        angle = float(entry.get("angle") or 0.0)
        known = seen.get(angle, -1)
        fresh = [point for point in entry["series"] if int(point.get("frame_number") or 0) > known]
        if not fresh:
            return None
        first, last = (int(fresh[place].get("frame_number") or 0) for place in (0, -1))
        seen[angle] = last
        return ResultBatch(
            data_id=self._data_id,
            seq=0,
            start=first,
            count=len(fresh),
            columns=_columns(fresh),
            values={
                name: _polled_value(fresh[-1], name) for name in fresh[-1] if _is_number(fresh[-1], name)
            },
            angle_deg=angle,
        )


def _columns(points: list[Message]) -> dict[str, Any]:
    names = [name for name in points[-1] if name not in _PLACE and name != "low_level_features"]
    columns = {name: np.array([_float(point.get(name)) for point in points]) for name in names}
    times = [_float(point.get("relative_time_seconds", point.get("time_seconds"))) for point in points]
    return {TIME: np.array(times), **columns}


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _is_number(point: Message, name: str) -> bool:
    return name not in _PLACE and (point[name] is None or isinstance(point[name], (int, float)))


def _polled_value(point: Message, name: str) -> Measurement:
    value = point[name]
    return Measurement(None, why="the server has no value") if value is None else Measurement(float(value))


# The newest result of a stream, kept up to date in the background.

LATEST_ONLY = -1
"""Feed position of a subscription that wants only the latest batch."""


class LatestResult:
    """Follows one stream; ``batch`` is the newest, None before the first."""

    def __init__(self, follower: ResultSubscription, data_id: str) -> None:
        self.batch: ResultBatch | None = None
        self.running = True
        self._follower = follower
        self._data_id = data_id

    async def run(self) -> None:
        """Follow until the analysis ends."""
        try:
            async with aclosing(self._follower.batches()) as batches:
                async for batch in batches:
                    self.batch = batch
        except AtomstreamError as error:
            log.warning("The newest result of stream %s is no longer followed: %s", self._data_id, error)
        finally:
            self.running = False
