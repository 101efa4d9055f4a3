"""The concurrent uploader: lowest index first, streams in turn, failed attempts are repeated.

Attempts run as tasks. At most ``concurrency`` run at once, or one for each live stream if there are more streams.
:meth:`Uploader._handle_error` decides what a failure means. A transient error repeats the upload later. A refused key
pauses its stream. An unreachable server pauses all streams, with one probe at a time. Any other error ends the upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Final

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
from atomstream.system.log_privacy import get_logger
from atomstream.system.scheduling import interpreter_is_exiting

log = get_logger("atomstream.uploader")

RECHECK_S: Final = 0.25
"""The shortest timer, in seconds, while all upload slots are occupied."""

READ_TRIES: Final = 5
"""Attempts to read a record from a failing disk. Then it is put into quarantine, where it can be read later."""


@dataclass(frozen=True, slots=True)
class UploadObserver:
    """Callbacks for the results of uploads. They run on the loop.

    ``stored(upload, receipt)``: the server has confirmed the chunk. ``rejected(upload, reason)``: it can't be
    delivered, because the server will never accept it or its record is damaged. ``stream_gone(upload, others, error)``:
    the server has no such stream; ``others`` are its uploads that had not started. ``failed(error)``: an
    unexpected error.
    """

    stored: Callable[[Upload, Receipt], None]
    rejected: Callable[[Upload, str], None]
    stream_gone: Callable[[Upload, list[Upload], StreamGoneError], None]
    failed: Callable[[BaseException], None]


class Uploader:
    """Sends uploads through ``transport``. Construct and use it on one running loop."""

    def __init__(self, transport: UploadTransport, observer: UploadObserver, concurrency: int) -> None:
        self._transport = transport
        self._observer = observer
        self._concurrency = concurrency
        self._loop = asyncio.get_running_loop()
        self._queue = UploadQueue(self._loop.time)
        self._endpoint = CircuitBreaker(self._loop.time)
        self._attempts: dict[asyncio.Task[None], Upload] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def backlog(self) -> int:
        """The number of uploads that are queued or being sent. Any thread may read this."""
        return len(self._queue) + len(self._attempts)

    @property
    def in_flight(self) -> int:
        """The number of attempts that run now."""
        return len(self._attempts)

    def submit(self, upload: Upload) -> None:
        """Queue ``upload`` and start it if a slot is free. Never waits."""
        self._queue.put(upload)
        self._start_ready()

    def evictable(self) -> list[Upload]:
        """Queued uploads that hold memory although they are on disk too. The highest index comes first."""
        return self._queue.evictable()

    def remove(self, data_id: str, indices: Collection[int]) -> list[Upload]:
        """Remove and return queued uploads of a stream. Those being sent are not included."""
        return self._queue.remove(data_id, indices)

    def remove_lowest(self, data_id: str) -> Upload | None:
        """Remove and return the stream's queued upload with the lowest index that is not durable."""
        return self._queue.remove_lowest(data_id)

    @property
    def failure(self) -> str:
        """Why uploads fail at present, of any stream; empty if they do not."""
        if self._endpoint.is_open:
            return self._endpoint.reason
        return next(iter(self._queue.stall_reasons().values()), "")

    def stall_reason(self, data_id: str) -> str:
        """Why uploads of a stream are paused; empty if they are not."""
        return (
            self._endpoint.reason if self._endpoint.is_open else self._queue.stall_reasons().get(data_id, "")
        )

    async def close(self) -> None:
        """Cancel all attempts and wait for their end. Their chunks stay undelivered."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._attempts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- starting -----------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        """Start every upload that may start now, and set a timer for those that may start later."""
        while not self._closed and self._endpoint.allows() and (upload := self._next()) is not None:
            self._start(upload)
        self._set_timer()

    def _next(self) -> Upload | None:
        if not self._full:
            return self._queue.pop(include_recovered=self._recovered_may_start())
        # The uploads of one stream may hang for minutes and occupy all slots. So each live stream may have one more.
        busy = {upload.spec.data_id for upload in self._attempts.values()}
        return self._queue.pop(include_recovered=False, exclude=busy)

    @property
    def _full(self) -> bool:
        return len(self._attempts) >= self._concurrency

    def _recovered_may_start(self) -> bool:
        recovered = sum(upload.recovered for upload in self._attempts.values())
        return not self._queue.has_live_work() or recovered < max(1, self._concurrency // 2)

    def _start(self, upload: Upload) -> None:
        tickets = self._endpoint.start(), self._queue.queue_of(upload).breaker.start()
        task = self._loop.create_task(
            self._attempt(upload, *tickets), name=f"atomstream-upload-{upload.index}"
        )
        self._attempts[task] = upload
        task.add_done_callback(self._attempt_done)

    def _attempt_done(self, task: asyncio.Task[None]) -> None:
        upload = self._attempts.pop(task)
        self._queue.discard_if_idle(upload.spec.data_id)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._observer.failed(error)
        self._start_ready()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._endpoint.retry_in() if self._endpoint.is_open else self._queue.next_change_in()
        if due is not None and len(self._queue) and not self._closed:
            # With all slots occupied a due upload may have to wait for one. The end of an attempt rechecks at once.
            self._timer = self._loop.call_later(max(due, RECHECK_S) if self._full else due, self._start_ready)

    # -- one attempt --------------------------------------------------------------------------------------

    async def _attempt(self, upload: Upload, endpoint_ticket: int, stream_ticket: int) -> None:
        breaker = self._queue.queue_of(upload).breaker
        try:
            with upload.spans.part(upload.index, "atomstream.upload") if upload.spans else nullcontext():
                receipt = await self._transport.deliver(upload)
        except (ServiceError, StreamGoneError) as error:
            self._handle_error(upload, error, endpoint_ticket, stream_ticket)
        except asyncio.CancelledError:
            self._endpoint.abandon(endpoint_ticket)
            breaker.abandon(stream_ticket)
            self._queue.put(upload)
            raise
        except RecordCorruptError as error:
            self._endpoint.abandon(endpoint_ticket)
            breaker.abandon(stream_ticket)
            self._observer.rejected(upload, str(error))
        except SpoolError as error:
            self._endpoint.abandon(endpoint_ticket)
            breaker.abandon(stream_ticket)
            self._retry_read(upload, error)
        except (TypeError, ValueError, OverflowError) as error:
            self._endpoint.abandon(endpoint_ticket)
            breaker.abandon(stream_ticket)
            if not upload.recovered:
                raise
            # A record of another program: its values have the right types, but can't be sent together.
            self._observer.rejected(upload, f"its record can't be sent: {error}")
        except Exception:
            # The chunk is not the cause: it stays pending, and its record stays on disk.
            self._endpoint.abandon(endpoint_ticket)
            breaker.abandon(stream_ticket)
            if not interpreter_is_exiting():
                raise
        else:
            self._endpoint_answered()
            if breaker.succeed():
                log.warning("Stream %s: uploads continue.", upload.spec.data_id)
            self._observer.stored(upload, receipt)

    def _retry_read(self, upload: Upload, error: SpoolError) -> None:
        upload.attempts += 1
        if upload.attempts >= READ_TRIES:
            self._observer.rejected(upload, str(error))
            return
        log.warning("%s The read is repeated.", error)
        self._queue.put_later(upload, delay_s(upload.attempts))

    def _endpoint_answered(self) -> None:
        if self._endpoint.succeed():
            log.warning("The server answers again; %d chunks are waiting.", self.backlog)

    def _handle_error(
        self, upload: Upload, error: ServiceError | StreamGoneError, endpoint_ticket: int, stream_ticket: int
    ) -> None:
        breaker = self._queue.queue_of(upload).breaker
        if isinstance(error, ConnectionFailedError) and error.never_sent:
            breaker.abandon(stream_ticket)
            self._server_unreachable(upload, error, endpoint_ticket)
            return
        self._endpoint_answered()
        if isinstance(error, StreamGoneError):
            self._observer.stream_gone(upload, self._queue.remove_stream(upload.spec.data_id), error)
        elif isinstance(error, AuthenticationError):
            if breaker.trip(stream_ticket, str(error)):
                log.warning("Stream %s is paused, nothing is lost: %s", upload.spec.data_id, error)
            self._queue.put(upload)
        elif error.retriable:
            self._retry_later(upload, error, breaker, stream_ticket)
        else:
            breaker.abandon(stream_ticket)
            self._observer.rejected(upload, str(error))

    def _retry_later(
        self, upload: Upload, error: ServiceError | StreamGoneError, breaker: CircuitBreaker, ticket: int
    ) -> None:
        retry_after = getattr(error, "retry_after_s", None)
        delay = delay_s(upload.attempts, retry_after)
        upload.attempts += 1
        if breaker.fail(ticket, str(error), retry_after):
            log.warning("Stream %s: uploads fail and are repeated: %s", upload.spec.data_id, error)
        log.info(
            "Chunk %d of %s is sent again in %.1f s: %s", upload.index, upload.spec.data_id, delay, error
        )
        self._queue.put_later(upload, delay)

    def _server_unreachable(self, upload: Upload, error: ConnectionFailedError, ticket: int) -> None:
        if self._endpoint.fail(ticket, str(error), error.retry_after_s):
            log.warning("%s Frames are kept, and sent when the server answers again.", error)
        if self._endpoint.is_open:
            self._queue.put(upload)  # the next probe decides when it starts
        else:
            self._queue.put_later(upload, delay_s(upload.attempts))
            upload.attempts += 1
