"""Subscription to the results of a stream: over the server's feed, or by polling if the server has no feed.

It continues after network failures and restarts of the server, without a lost or a repeated batch.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, ParamSpec

import numpy as np

from atomstream.errors import AtomstreamError, NotFoundError, RejectedError, ServerBusyError, ServiceError
from atomstream.results import Measurement, finite_or_none, received_maps
from atomstream.retry import delay_s
from atomstream.streaming.result_batch import (
    TIME,
    ResultBatch,
    from_message,
    whole_number,
    without_first,
)
from atomstream.system.log_privacy import get_logger

if TYPE_CHECKING:
    from atomstream.service.results_api import Message, ResultsApi

log = get_logger("atomstream")

LATEST_ONLY: Final = -1
"""Feed position of a subscription to the latest batch only."""

POLL_S: Final = 2.0
MAX_ANGLES: Final = 10_000
"""Most azimuths of a polled stream; a real one has a few."""

MAX_LOGGED_CHARS: Final = 200

POLL_POINTS: Final = 1000
"""Points of the time series per request; only the first request gets all points."""

MAX_PAUSE_S: Final = 5.0
"""Longest pause between two attempts. It is short because a control loop may wait for the results."""

_ENDED: Final = frozenset({"success", "error", "stream_error"})
"""Values of ``pipeline_status`` after which a polled stream gets no new points."""

_POSITION_NAMES: Final = frozenset(
    {"frame_number", "time_seconds", "relative_time_seconds", "unix_timestamp_ms"}
)
"""Entries of a polled point that are its position in time, not results."""

MISSING_REASONS: Final = {
    "late": "they arrived after the analysis had gone on without them. They are stored, and the values of their single "
    "frames are filled in. Rates and other fits include them when the stream has ended (finalize it) and is analysed "
    "again; the server does that itself.",
    "unreadable": "their files on the server are damaged. Check the disk of the server. All other results are valid. "
    "If the files can be restored, have the finished stream analysed again (docs/live_api.md).",
    "crashed": "their analysis failed repeatedly. They are stored, and all other results are valid. The log of the "
    "server has the reason; please report it.",
    "no_analysis": "the server can't start its analysis. They are stored. The log and the page of the server have the "
    "reason. When it is removed, have the finished stream analysed again (docs/live_api.md).",
}
"""What the log states for each reason of the server for which chunks are missing in the results."""

_LATE_AFTER_END: Final = (
    "they arrived after the end of the stream. They are stored. The stream is being analysed again with them."
)

_REASON_UNKNOWN: Final = "the server's page of the stream has the reason."

P = ParamSpec("P")

Sleep = Callable[[float], Awaitable[None]]


class ResultSubscription:
    """Reads the batches of one stream in order, and keeps its position among them.

    ``after`` is the ``seq`` of the last batch that the caller has. ``announced`` is True if the server is an
    atomstream server, which has a feed. None: not known; then the feed is tried first.
    """

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
        self._position = after
        self._announced = announced
        self._sleep = sleep
        self._next_frame = 0
        self._server_went_back = False
        self._lost = 0
        self._failures = 0
        self._reported_reasons: set[str] = set()

    async def batches(self) -> AsyncGenerator[ResultBatch, None]:
        """Yield every batch after the position once and in order, until the analysis of the stream has ended.

        Raises:
            NotFoundError: the server has no such stream.
            AuthenticationError, RejectedError: the server refuses the request.
        """
        if self._announced is not False:
            try:
                async with aclosing(self._from_feed()) as batches:
                    async for batch in batches:
                        yield batch
                return
            except RejectedError:
                if self._announced:
                    raise
        async with aclosing(self._from_polling()) as batches:
            async for batch in batches:
                yield batch

    async def _from_feed(self) -> AsyncGenerator[ResultBatch, None]:
        while True:
            try:
                async with aclosing(self._api.feed(self._data_id, self._position)) as messages:
                    async for message in messages:
                        self._announced = True
                        if message.get("type") == "end":
                            return
                        batch = self._checked(self._apply, message)
                        if message.get("type") != "hello":  # each attempt begins with one
                            self._failures = 0
                        if batch is not None:
                            yield batch
            except ServiceError as error:
                await self._pause(error)
            else:
                await self._sleep(
                    delay_s(0)
                )  # the server is stopping; the next attempts fail until it is back

    def _checked(
        self, read: Callable[P, ResultBatch | None], *args: P.args, **kwargs: P.kwargs
    ) -> ResultBatch | None:
        """Return what ``read`` returns. Its ValueError for a malformed message becomes a ServerBusyError."""
        try:
            return read(*args, **kwargs)
        except ValueError as error:
            raise ServerBusyError(
                f"Could not follow the results of stream {self._data_id}: the server sent a malformed "
                f"message ({str(error)[:100]}). Nothing of it was used."
            ) from None

    async def _pause(self, error: ServiceError) -> None:
        """Wait before the next attempt; raise ``error`` if a retry can't help."""
        if not error.retriable:
            raise error
        if self._failures == 0:
            log.warning("The results of stream %s are interrupted: %s", self._data_id, error)
        wait_s = delay_s(self._failures, error.retry_after_s)
        self._failures += 1
        await self._sleep(min(wait_s, MAX_PAUSE_S))

    def _apply(self, message: Message) -> ResultBatch | None:
        """Update the position from a message of the feed. Returns its batch; None if there is none or no new one."""
        match message.get("type"):
            case None:
                raise ValueError("it has no type")
            case "hello":
                # After a power failure the server may have lost its last records. It analyses their frames again, and
                # its new batches may begin at other frames.
                newest = whole_number(message.get("seq"))
                self._server_went_back = newest < self._position
                self._position = min(self._position, newest)
            case "lost":
                count, last = (whole_number(message.get(name)) for name in ("count", "last"))
                self._lost += count
                self._position = last
            case "missing":
                self._warn_about_missing(message)
            case "event" | "regions":
                self._position = whole_number(message.get("seq"))
            case "batch":
                batch = from_message(self._data_id, message, self._lost)
                self._position = batch.seq
                return self._new_frames_of(batch)
        return None

    def _warn_about_missing(self, message: Message) -> None:
        """Log which chunks are not in the results, once per reason: a stream with one missing chunk often has more."""
        reanalysis = bool(message.get("reanalysis"))
        for missing in received_maps(message.get("missing") or []):
            kind = missing.get("why")
            if not isinstance(kind, str) or kind not in MISSING_REASONS:
                kind = "other"
            if kind in self._reported_reasons:
                continue
            self._reported_reasons.add(kind)
            reason = MISSING_REASONS.get(kind, _REASON_UNKNOWN)
            if reanalysis and kind == "late":
                reason = _LATE_AFTER_END
            log.warning(
                "The results of stream %s do not include chunks %s: %s",
                self._data_id,
                _short(missing.get("chunks")),
                reason,
            )

    def _new_frames_of(self, batch: ResultBatch) -> ResultBatch | None:
        """Return the batch without the frames that an earlier batch had; None if it then has nothing new."""
        self._lost = 0
        repeated = self._next_frame - batch.start if batch.count and self._server_went_back else 0
        self._next_frame = max(self._next_frame, batch.start + batch.count)
        if repeated <= 0:
            return batch
        if repeated >= batch.count and not batch.final:
            return None
        return without_first(batch, min(repeated, batch.count))

    # -- polling, for a server without a feed -------------------------------------------------------------

    async def _from_polling(self) -> AsyncGenerator[ResultBatch, None]:
        last_frames: dict[float, int] = {}
        points: int | None = None
        ended = False
        while True:
            newest = dict(last_frames)  # a copy: if one entry is malformed, all are requested again
            try:
                series = await self._api.series(self._data_id, points)
                new_points = [self._checked(self._new_points, entry, newest) for entry in series]
            except NotFoundError:
                raise
            except ServiceError as error:
                await self._pause(error)
                continue
            last_frames, self._failures = newest, 0
            batches = [batch for batch in new_points if batch is not None]
            for batch in batches:
                yield batch
            if ended and not batches:
                return
            points = POLL_POINTS
            ended = await self._has_ended()
            await self._sleep(POLL_S)

    async def _has_ended(self) -> bool:
        try:
            return await self._api.status(self._data_id) in _ENDED
        except ServiceError as error:
            await self._pause(error)
            return False

    def _new_points(self, entry: Message, last_frames: dict[float, int]) -> ResultBatch | None:
        """Return the new points of the series of one azimuth; updates its last frame in ``last_frames``."""
        angle = finite_or_none(entry, "angle") or 0.0
        previous = last_frames.get(angle, -1)
        points = [point for point in received_maps(entry.get("series")) if _frame_number(point) > previous]
        if not points:
            return None
        if len(last_frames) > MAX_ANGLES:
            raise ValueError(f"it has series of more than {MAX_ANGLES} azimuths")
        first, last = (_frame_number(points[index]) for index in (0, -1))
        last_frames[angle] = last
        return ResultBatch(
            data_id=self._data_id,
            seq=0,
            start=first,
            count=len(points),
            columns=_columns(points),
            values={
                name: _polled_value(points[-1], name) for name in points[-1] if _is_number(points[-1], name)
            },
            angle_deg=angle,
        )


def _columns(points: list[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in points[-1] if name not in _POSITION_NAMES and name != "low_level_features"]
    columns = {name: np.array([_float(point.get(name)) for point in points]) for name in names}
    times = [_float(point.get("relative_time_seconds", point.get("time_seconds"))) for point in points]
    return {TIME: np.array(times), **columns}


def _frame_number(point: Mapping[str, Any]) -> int:
    number = point.get("frame_number")
    if isinstance(number, float) and number.is_integer():  # JSON does not distinguish 12.0 from 12
        number = int(number)
    return 0 if number is None else whole_number(number)


def _short(text: Any) -> str:
    """A text of the server in a line of the log."""
    shown = str(text)[:MAX_LOGGED_CHARS]
    return "".join(char if char.isprintable() else "?" for char in shown)


def _float(value: Any) -> float:
    if not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None


def _is_number(point: Mapping[str, Any], name: str) -> bool:
    return name not in _POSITION_NAMES and (point[name] is None or isinstance(point[name], (int, float)))


def _polled_value(point: Mapping[str, Any], name: str) -> Measurement:
    value = point[name]
    return Measurement(None, why="the server has no value") if value is None else Measurement(_float(value))


class LatestResult:
    """Keeps the latest batch of one subscription in ``batch``; it is None before the first."""

    def __init__(self, subscription: ResultSubscription, data_id: str) -> None:
        self.batch: ResultBatch | None = None
        self.running = True
        self._subscription = subscription
        self._data_id = data_id

    async def run(self) -> None:
        """Read batches until the analysis of the stream ends. An error is logged, and ends it."""
        try:
            async with aclosing(self._subscription.batches()) as batches:
                async for batch in batches:
                    self.batch = batch
        except AtomstreamError as error:
            log.warning("The latest result of stream %s is not updated any more: %s", self._data_id, error)
        finally:
            self.running = False
