"""The concurrent uploader: lowest index first, streams in turn, retries in place.

Attempts run as tasks, at most ``concurrency`` at once (or one for each live stream, where those are more).
What an attempt's failure means is decided in one place (:meth:`Uploader._judge`): it waits and goes again, it
stands for its whole stream (a refused key), it tells of an outage (the endpoint can't be reached: one probe at
a time), or it is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Final, Protocol

from atomstream.errors import (
    AuthenticationError,
    ConnectionFailedError,
    RecordCorruptError,
    ServiceError,
    SpoolError,
    StreamGoneError,
)
from atomstream.pipeline.upload import Upload, UploadTransport
from atomstream.pipeline.upload_queue import CircuitBreaker, UploadQueue
from atomstream.records import Receipt
from atomstream.retry import delay_s
from atomstream.system.scheduling import interpreter_is_exiting

log = logging.getLogger("atomstream.uploader")

LOOK_S: Final = 0.25
READ_TRIES: Final = 5
"""Of a record that the disk can't read; then it is put into quarantine, where it can be read again later."""


class UploadObserver(Protocol):
    """Who learns what became of a parcel; called on the loop."""

    def stored(self, parcel: Upload, receipt: Receipt) -> None:
        """The server has it."""

    def refused(self, parcel: Upload, reason: str) -> None:
        """It can't be delivered: the server will never take it, or its record is damaged."""

    def gone(self, parcel: Upload, others: list[Upload], error: StreamGoneError) -> None:
        """The server does not know the stream; ``others`` are its parcels that had not begun."""

    def broken(self, error: BaseException) -> None:
        """Something that should not happen, happened."""


class Uploader:
    """Carries parcels through ``courier``; owned by the running loop."""

    def __init__(self, courier: UploadTransport, outcomes: UploadObserver, concurrency: int) -> None:
        self._courier = courier
        self._outcomes = outcomes
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._lanes = UploadQueue(self._loop.time)
        self._endpoint = CircuitBreaker(self._loop.time)
        self._attempts: dict[asyncio.Task[None], Upload] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def backlog(self) -> int:
        """Parcels not yet delivered, those on their way included."""
        return len(self._lanes) + len(self._attempts)

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return len(self._attempts)

    def offer(self, parcel: Upload) -> None:
        """Take ``parcel``; never waits."""
        self._lanes.put(parcel)
        self._pump()

    def evictable(self) -> list[Upload]:
        """Parcels whose memory may be given back now, those to go last first."""
        return self._lanes.evictable()

    def take_back(self, data_id: str, indices: Collection[int]) -> list[Upload]:
        """Take back these parcels of a stream, as far as they are not on their way."""
        return self._lanes.remove(data_id, indices)

    def drop_lowest(self, data_id: str) -> Upload | None:
        """Take back the stream's lowest parcel that is neither on its way nor durable."""
        return self._lanes.take_lowest(data_id)

    def standing_still(self, data_id: str) -> str:
        """Why the stream's parcels do not move; empty where they do."""
        return self._endpoint.reason if self._endpoint.is_open else self._lanes.reasons().get(data_id, "")

    async def close(self) -> None:
        """Cancel what is under way and await its end; parcels stay undelivered."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._attempts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pump(self) -> None:
        """Start what may start now; set a timer for what may start later."""
        while not self._closed and self._endpoint.allows() and (parcel := self._next()) is not None:
            self._start(parcel)
        self._set_timer()

    def _next(self) -> Upload | None:
        if not self._full:
            return self._lanes.take(recovered_too=self._recovered_may_go())
        # One stream's uploads may hang for minutes and hold every slot: each live stream has one of its own.
        busy = {parcel.spec.data_id for parcel in self._attempts.values()}
        return self._lanes.take(recovered_too=False, but_not=busy)

    @property
    def _full(self) -> bool:
        return len(self._attempts) >= self._concurrency

    def _recovered_may_go(self) -> bool:
        recovered = sum(parcel.recovered for parcel in self._attempts.values())
        return not self._lanes.has_live_work() or recovered < max(1, self._concurrency // 2)

    def _start(self, parcel: Upload) -> None:
        tickets = self._endpoint.started(), self._lanes.lane(parcel).breaker.started()
        task = self._loop.create_task(
            self._attempt(parcel, *tickets), name=f"atomstream-upload-{parcel.index}"
        )
        self._attempts[task] = parcel
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        parcel = self._attempts.pop(task)
        self._lanes.forget_if_idle(parcel.spec.data_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._outcomes.broken(error)
        self._pump()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._endpoint.retry_in() if self._endpoint.is_open else self._lanes.next_change_in()
        if due is not None and len(self._lanes) and not self._closed:
            # With all slots taken what is due may have to wait for one, whose end looks again at once.
            self._timer = self._loop.call_later(max(due, LOOK_S) if self._full else due, self._pump)

    async def _attempt(self, parcel: Upload, endpoint_ticket: int, lane_ticket: int) -> None:
        lane = self._lanes.lane(parcel)
        try:
            receipt = await self._courier.deliver(parcel)
        except (ServiceError, StreamGoneError) as error:
            self._judge(parcel, error, endpoint_ticket, lane_ticket)
        except asyncio.CancelledError:
            self._endpoint.gave_up(endpoint_ticket)
            lane.breaker.gave_up(lane_ticket)
            self._lanes.put(parcel)
            raise
        except RecordCorruptError as error:
            self._endpoint.gave_up(endpoint_ticket)
            lane.breaker.gave_up(lane_ticket)
            self._outcomes.refused(parcel, str(error))
        except SpoolError as error:
            self._endpoint.gave_up(endpoint_ticket)
            lane.breaker.gave_up(lane_ticket)
            self._unreadable(parcel, error)
        except Exception:
            # Nothing is known against the chunk: it stays pending, and what is on disk stays there.
            self._endpoint.gave_up(endpoint_ticket)
            lane.breaker.gave_up(lane_ticket)
            if not interpreter_is_exiting():
                raise
        else:
            self._reached(parcel)
            if lane.breaker.succeeded():
                log.warning("Stream %s: uploads go on.", parcel.spec.data_id)
            self._outcomes.stored(parcel, receipt)

    def _unreadable(self, parcel: Upload, error: SpoolError) -> None:
        parcel.attempts += 1
        if parcel.attempts >= READ_TRIES:
            self._outcomes.refused(parcel, str(error))
            return
        log.warning("%s It is read again.", error)
        self._lanes.put_later(parcel, delay_s(parcel.attempts))

    def _reached(self, parcel: Upload) -> None:
        if self._endpoint.succeeded():
            log.warning("The server answers again; %d chunks are waiting.", self.backlog)

    def _judge(
        self, parcel: Upload, error: ServiceError | StreamGoneError, endpoint_ticket: int, lane_ticket: int
    ) -> None:
        breaker = self._lanes.lane(parcel).breaker
        if isinstance(error, ConnectionFailedError) and error.never_sent:
            breaker.gave_up(lane_ticket)
            self._unreachable(parcel, error, endpoint_ticket)
            return
        self._reached(parcel)
        if isinstance(error, StreamGoneError):
            self._outcomes.gone(parcel, self._lanes.take_all(parcel.spec.data_id), error)
        elif isinstance(error, AuthenticationError):
            if breaker.trip(lane_ticket, str(error)):
                log.warning("Stream %s is paused, nothing is lost: %s", parcel.spec.data_id, error)
            self._lanes.put(parcel)
        elif error.retriable:
            self._again(parcel, error, breaker, lane_ticket)
        else:
            breaker.gave_up(lane_ticket)
            self._outcomes.refused(parcel, str(error))

    def _again(
        self, parcel: Upload, error: ServiceError | StreamGoneError, breaker: CircuitBreaker, ticket: int
    ) -> None:
        retry_after = getattr(error, "retry_after_s", None)
        delay = delay_s(parcel.attempts, retry_after)
        parcel.attempts += 1
        if breaker.failed(ticket, str(error), retry_after):
            log.warning("Stream %s: uploads fail and are tried again: %s", parcel.spec.data_id, error)
        log.info("Chunk %d of %s goes again in %.1f s: %s", parcel.index, parcel.spec.data_id, delay, error)
        self._lanes.put_later(parcel, delay)

    def _unreachable(self, parcel: Upload, error: ConnectionFailedError, ticket: int) -> None:
        if self._endpoint.failed(ticket, str(error), error.retry_after_s):
            log.warning("%s Frames are kept and sent when it is back.", error)
        if self._endpoint.is_open:
            self._lanes.put(parcel)  # the breaker's probe says when
        else:
            self._lanes.put_later(parcel, delay_s(parcel.attempts))
            parcel.attempts += 1
