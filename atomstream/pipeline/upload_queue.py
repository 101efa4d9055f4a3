"""The order of uploads: one stream after the other, and the lowest index first within a stream.

An upload that waits for its retry is kept in its stream's queue, so it does not occupy an upload slot. Each stream has
its own circuit breaker, so that failures of one stream do not slow another one. No I/O; the clock is injected.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from atomstream.pipeline.upload import Upload
from atomstream.retry import delay_s

FAILURES_TO_OPEN: Final = 3
"""Number of failures in a row that count as an outage. A single connection reset may be chance."""


class CircuitBreaker:
    """After repeated failures, allow only one probe at a time until one succeeds.

    Closed: every attempt may start. Open: one probe at a time, each after a delay (``retry.delay_s``).
    """

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
        """True if only probes may start."""
        return self._failures >= self._threshold

    def allows(self) -> bool:
        """True if an attempt may start now."""
        return not self.is_open or (self._probe is None and self._clock() >= self._next_probe)

    def retry_in(self) -> float | None:
        """Seconds until the next probe may start; None if no timer is needed."""
        if not self.is_open or self._probe is not None:
            return None
        return max(0.0, self._next_probe - self._clock())

    def start(self) -> int:
        """Register the start of an attempt (of the probe, while open). Report its result with the returned ticket."""
        self._tickets += 1
        if self.is_open:
            self._probe = self._tickets
        return self._tickets

    def succeed(self) -> bool:
        """Report a success. Returns True if it ended an outage."""
        was_open, self._failures, self._probe, self.reason = self.is_open, 0, None, ""
        return was_open

    def fail(self, ticket: int, reason: str, retry_after_s: float | None = None) -> bool:
        """Report a failure. Returns True if it began an outage.

        Attempts that started before an outage may fail after its first probes. So during an outage only the failure
        of the probe itself sets the time of the next probe.
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
        """Open at once, without further failures (a refused key). Returns True if the breaker was closed."""
        self._failures = max(self._failures, self._threshold - 1)
        return self.fail(ticket, reason)

    def abandon(self, ticket: int) -> None:
        """Report an attempt without a result for the connection: cancelled, or refused because of its chunk."""
        if ticket == self._probe:
            self._probe = None


@dataclass(slots=True)
class StreamQueue:
    """The uploads of one stream: ready ones by index, waiting ones by the time of their retry."""

    breaker: CircuitBreaker
    recovered: bool = False
    ready: list[Upload] = field(default_factory=list)
    waiting: list[tuple[float, Upload]] = field(default_factory=list)

    def promote(self, now: float) -> None:
        """Move the uploads whose retry is due to the ready ones."""
        while self.waiting and self.waiting[0][0] <= now:
            heapq.heappush(self.ready, heapq.heappop(self.waiting)[1])

    def uploads(self) -> list[Upload]:
        """Ready and waiting uploads."""
        return [*self.ready, *(upload for _, upload in self.waiting)]

    def __len__(self) -> int:
        return len(self.ready) + len(self.waiting)


class UploadQueue:
    """The queued uploads of all streams. Owned by one thread; other threads may only take its length.

    Each push that waits searches the uploads in memory. They are kept in a separate set, because in a long outage most
    uploads are on disk.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queues: dict[str, StreamQueue] = {}
        self._in_memory: set[Upload] = set()

    def __iter__(self) -> Iterator[Upload]:
        for queue in self._queues.values():
            yield from queue.uploads()

    def __len__(self) -> int:
        return sum(map(len, list(self._queues.values())))  # a copy: other threads call this during changes

    def queue_of(self, upload: Upload) -> StreamQueue:
        """The queue of the upload's stream. It is created on first use."""
        data_id = upload.spec.data_id
        if data_id not in self._queues:
            self._queues[data_id] = StreamQueue(CircuitBreaker(self._clock), recovered=upload.recovered)
        return self._queues[data_id]

    def put(self, upload: Upload) -> None:
        """Add an upload that may start at once. The first live upload makes its stream a live one."""
        queue = self.queue_of(upload)
        queue.recovered = queue.recovered and upload.recovered
        heapq.heappush(queue.ready, upload)
        self._note_memory(upload)

    def put_later(self, upload: Upload, delay_s: float) -> None:
        """Add an upload that may start in ``delay_s`` seconds."""
        heapq.heappush(self.queue_of(upload).waiting, (self._clock() + delay_s, upload))
        self._note_memory(upload)

    def _note_memory(self, upload: Upload) -> None:
        if upload.permit is not None:
            self._in_memory.add(upload)

    def pop(self, *, include_recovered: bool = True, exclude: Collection[str] = ()) -> Upload | None:
        """Remove and return the next upload that may start now, or None. Its stream moves behind the others.

        ``exclude`` lists the ids of streams that are skipped.
        """
        now = self._clock()
        for data_id, queue in list(self._queues.items()):
            queue.promote(now)
            if data_id in exclude or (queue.recovered and not include_recovered):
                continue
            if queue.ready and queue.breaker.allows():
                self._queues[data_id] = self._queues.pop(data_id)
                upload = heapq.heappop(queue.ready)
                self._in_memory.discard(upload)
                return upload
        return None

    def has_live_work(self) -> bool:
        """True if a stream of this process (not a recovered one) has a ready upload."""
        return any(queue.ready and not queue.recovered for queue in self._queues.values())

    def next_change_in(self) -> float | None:
        """Seconds until a retry or the probe of a breaker is due; None if no timer is needed."""
        now = self._clock()
        due_in = [queue.waiting[0][0] - now for queue in self._queues.values() if queue.waiting]
        due_in += [
            due
            for queue in self._queues.values()
            if queue.ready and (due := queue.breaker.retry_in()) is not None
        ]
        return max(0.0, min(due_in)) if due_in else None

    def remove(self, data_id: str, indices: Collection[int]) -> list[Upload]:
        """Remove and return the uploads of one stream with these indices. Those being sent are not included."""
        removed = [upload for upload in self if upload.spec.data_id == data_id and upload.index in indices]
        self._remove(data_id, removed)
        return removed

    def remove_stream(self, data_id: str) -> list[Upload]:
        """Remove and return all uploads of one stream."""
        queue = self._queues.pop(data_id, None)
        removed = [] if queue is None else queue.uploads()
        self._in_memory.difference_update(removed)
        return removed

    def remove_lowest(self, data_id: str) -> Upload | None:
        """Remove and return the stream's upload with the lowest index that is not durable; None if there is none."""
        candidates = [u for u in self._in_memory if u.spec.data_id == data_id and not u.durable]
        if not candidates:
            return None
        lowest = min(candidates)
        self._remove(data_id, [lowest])
        return lowest

    def _remove(self, data_id: str, removed: list[Upload]) -> None:
        queue = self._queues.get(data_id)
        self._in_memory.difference_update(removed)
        if queue is not None and removed:
            queue.ready = [upload for upload in queue.ready if upload not in removed]
            queue.waiting = [item for item in queue.waiting if item[1] not in removed]
            heapq.heapify(queue.ready)
            heapq.heapify(queue.waiting)

    def evictable(self) -> list[Upload]:
        """Uploads that hold memory although they are on disk too. The highest index comes first."""
        self._in_memory = {upload for upload in self._in_memory if upload.permit is not None}
        return sorted((upload for upload in self._in_memory if upload.durable), reverse=True)

    def discard_if_idle(self, data_id: str) -> None:
        """Remove the queue of a stream if it is empty. While its breaker is open it is kept, with the breaker."""
        queue = self._queues.get(data_id)
        if queue is not None and not len(queue) and not queue.breaker.is_open:
            del self._queues[data_id]

    def stall_reasons(self) -> dict[str, str]:
        """Why uploads are paused, for each stream whose breaker is open."""
        return {
            data_id: queue.breaker.reason for data_id, queue in self._queues.items() if queue.breaker.is_open
        }
