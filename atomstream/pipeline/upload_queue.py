"""Which parcel goes next: streams in turn, the lowest index first within one. Pure, clock injected.

A parcel that waits for its retry lies in its lane's waiting heap: it holds no upload slot (promise P17). Each
lane has a breaker of its own, so that a stuck stream does not slow another.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from atomstream.pipeline.upload import Upload
from atomstream.retry import delay_s

# A circuit breaker: after repeated failures, one probe at a time until one succeeds. Pure, clock injected.

FAILURES_TO_OPEN: Final = 3
"""A single reset is bad luck; three failures without a success between them are an outage."""


class CircuitBreaker:
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


@dataclass(slots=True)
class StreamQueue:
    """One stream's parcels: ready ones by index, waiting ones by the time they may go again."""

    breaker: CircuitBreaker
    recovered: bool = False
    ready: list[Upload] = field(default_factory=list)
    waiting: list[tuple[float, Upload]] = field(default_factory=list)

    def wake(self, now: float) -> None:
        """Move what has waited long enough to the ready ones."""
        while self.waiting and self.waiting[0][0] <= now:
            heapq.heappush(self.ready, heapq.heappop(self.waiting)[1])

    def parcels(self) -> list[Upload]:
        """All of them."""
        return [*self.ready, *(parcel for _, parcel in self.waiting)]

    def __len__(self) -> int:
        return len(self.ready) + len(self.waiting)


class UploadQueue:
    """All streams' lanes in round-robin order; owned by the loop.

    Those in memory are looked through at each push that waits: they are kept apart, for in a long outage they are
    few among many on disk.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lanes: dict[str, StreamQueue] = {}
        self._in_memory: set[Upload] = set()

    def __iter__(self) -> Iterator[Upload]:
        for lane in self._lanes.values():
            yield from lane.parcels()

    def __len__(self) -> int:
        return sum(map(len, list(self._lanes.values())))  # other threads ask too, while lanes come and go

    def lane(self, parcel: Upload) -> StreamQueue:
        """The lane of the parcel's stream, made at its first parcel."""
        data_id = parcel.spec.data_id
        if data_id not in self._lanes:
            self._lanes[data_id] = StreamQueue(CircuitBreaker(self._clock), recovered=parcel.recovered)
        return self._lanes[data_id]

    def put(self, parcel: Upload) -> None:
        """Ready to go at once; a live parcel makes its lane a live one."""
        lane = self.lane(parcel)
        lane.recovered = lane.recovered and parcel.recovered
        heapq.heappush(lane.ready, parcel)
        self._note(parcel)

    def put_later(self, parcel: Upload, delay_s: float) -> None:
        """Ready to go in ``delay_s`` seconds."""
        heapq.heappush(self.lane(parcel).waiting, (self._clock() + delay_s, parcel))
        self._note(parcel)

    def _note(self, parcel: Upload) -> None:
        if parcel.permit is not None:
            self._in_memory.add(parcel)

    def take(self, *, recovered_too: bool = True, but_not: Collection[str] = ()) -> Upload | None:
        """The next parcel that may go now, of any stream ``but_not`` these; its stream goes behind the others."""
        now = self._clock()
        for data_id, lane in list(self._lanes.items()):
            lane.wake(now)
            if data_id in but_not or (lane.recovered and not recovered_too):
                continue
            if lane.ready and lane.breaker.allows():
                self._lanes[data_id] = self._lanes.pop(data_id)
                parcel = heapq.heappop(lane.ready)
                self._in_memory.discard(parcel)
                return parcel
        return None

    def has_live_work(self) -> bool:
        """Whether a stream that is not a recovered one has something ready."""
        return any(lane.ready and not lane.recovered for lane in self._lanes.values())

    def next_change_in(self) -> float | None:
        """Seconds until a waiting parcel or a breaker's probe is due; None where no timer is needed."""
        now = self._clock()
        dues = [lane.waiting[0][0] - now for lane in self._lanes.values() if lane.waiting]
        dues += [
            due
            for lane in self._lanes.values()
            if lane.ready and (due := lane.breaker.retry_in()) is not None
        ]
        return max(0.0, min(dues)) if dues else None

    def remove(self, data_id: str, indices: Collection[int]) -> list[Upload]:
        """Remove and return these parcels of one stream, as far as they are not on their way."""
        removed = [parcel for parcel in self if parcel.spec.data_id == data_id and parcel.index in indices]
        self._cut(data_id, removed)
        return removed

    def _cut(self, data_id: str, removed: list[Upload]) -> None:
        lane = self._lanes.get(data_id)
        self._in_memory.difference_update(removed)
        if lane is not None and removed:
            lane.ready = [parcel for parcel in lane.ready if parcel not in removed]
            lane.waiting = [item for item in lane.waiting if item[1] not in removed]
            heapq.heapify(lane.ready)
            heapq.heapify(lane.waiting)

    def take_all(self, data_id: str) -> list[Upload]:
        """Remove and return everything of one stream."""
        lane = self._lanes.pop(data_id, None)
        removed = [] if lane is None else lane.parcels()
        self._in_memory.difference_update(removed)
        return removed

    def take_lowest(self, data_id: str) -> Upload | None:
        """Remove and return the stream's lowest parcel that is neither on its way nor durable; else None."""
        loose = [p for p in self._in_memory if p.spec.data_id == data_id and not p.durable]
        if not loose:
            return None
        lowest = min(loose)
        self._cut(data_id, [lowest])
        return lowest

    def evictable(self) -> list[Upload]:
        """Parcels that hold memory, are on disk too, and are not on their way; those to go last first."""
        self._in_memory = {parcel for parcel in self._in_memory if parcel.permit is not None}
        return sorted((parcel for parcel in self._in_memory if parcel.durable), reverse=True)

    def forget_if_idle(self, data_id: str) -> None:
        """Let go of an empty lane; one that stands still keeps its breaker."""
        lane = self._lanes.get(data_id)
        if lane is not None and not len(lane) and not lane.breaker.is_open:
            del self._lanes[data_id]

    def reasons(self) -> dict[str, str]:
        """Why lanes stand still, by stream."""
        return {data_id: lane.breaker.reason for data_id, lane in self._lanes.items() if lane.breaker.is_open}
