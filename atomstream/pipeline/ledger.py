"""The state of each chunk of one stream. This is the only place that holds it.

An accepted index is in exactly one state: first pending, then one of stored, quarantined, dropped or purged. A chunk
that is no longer pending is called resolved. The counts are kept up to date with each change, so they always add up.
The watermark never decreases. See docs/decisions/0001-ledger-is-the-state.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import cast

from atomstream.errors import StreamFinalizedError
from atomstream.html import Report
from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_LOST
from atomstream.records import ChunkState, Loss, StreamReport
from atomstream.system.tracing import OpenSpans


@dataclass(slots=True)
class ChunkRecord:
    """One accepted index. ``digest`` is None until the chunk is encoded, and stays None if it is dropped before."""

    state: ChunkState = "pending"
    digest: bytes | None = None
    reason: str = ""
    durable: bool = False


class Ledger:
    """The chunk states of one stream. Any thread may change them; ``changed`` is notified after each change.

    ``on_accept(index)`` is called at each acceptance, with the lock held, so it must not block.
    """

    def __init__(self, data_id: str, on_accept: Callable[[int], None] | None = None) -> None:
        self.spans = OpenSpans("atomstream.chunk")
        """The spans of the pending chunks, by index; see :mod:`atomstream.system.tracing`."""
        self.data_id = data_id
        self.changed = AsyncCondition()
        self._on_accept = on_accept
        self._lock = threading.Lock()
        self._records: dict[int, ChunkRecord] = {}
        self._counts: Counter[ChunkState] = Counter()
        self._in_memory_only = 0
        self._watermark = -1
        self._next = 0
        self._sealed = False
        self._closed = False
        self._absent_reason = "never pushed"

    # -- changes ------------------------------------------------------------------------------------------

    def accept(self, index: int | None = None) -> int | None:
        """Accept ``index`` as pending and return it; None means the stream's next index.

        Returns None if the index was accepted before.

        Raises:
            StreamFinalizedError: the stream accepts no more chunks.
        """
        with self._lock:
            if self._sealed:
                raise StreamFinalizedError(
                    f"Stream {self.data_id} was finalized: it accepts no more frames. Initialize a new stream.",
                    data_id=self.data_id,
                    index=index,
                )
            chosen = self._next if index is None else index
            if chosen in self._records:
                return None
            self._records[chosen] = ChunkRecord()
            self._counts["pending"] += 1
            self._in_memory_only += 1
            self._next = max(self._next, chosen + 1)
            if self._on_accept is not None:
                self._on_accept(chosen)  # under the lock: the journal lists chunks in the order of acceptance
        self.changed.notify_all()
        return chosen

    def set_digest(self, index: int, digest: bytes) -> None:
        """Store the digest of the chunk's frames. A later push of the same index is compared with it."""
        with self._lock:
            self._records[index].digest = digest
        self.changed.notify_all()

    def mark_durable(self, index: int) -> None:
        """The chunk is on disk: it would survive a power cut."""
        with self._lock:
            record = self._records[index]
            self._in_memory_only -= record.state == "pending" and not record.durable
            record.durable = True
        self.changed.notify_all()

    def resolve(self, index: int, state: ChunkState, reason: str = "") -> bool:
        """Move ``index`` from pending to ``state``. Returns False if it was resolved before: the first state stays."""
        with self._lock:
            record = self._records[index]
            if record.state != "pending":
                return False
            record.state, record.reason = state, reason
            self._in_memory_only -= not record.durable
            self._counts["pending"] -= 1
            self._counts[state] += 1
            self._raise_watermark()
        self.changed.notify_all()
        self.spans.end(index, "" if state == "stored" else f"{state}: {reason}", state=state)
        return True

    def restore(
        self, states: Mapping[int, ChunkState], digests: Mapping[int, bytes], reasons: Mapping[int, str]
    ) -> None:
        """Load the chunk states that an earlier process left in the journal. All these chunks are on disk."""
        with self._lock:
            for index in sorted(states):
                state = states[index]
                self._records[index] = ChunkRecord(
                    state, digests.get(index), reasons.get(index, ""), durable=True
                )
                self._counts[state] += 1
                self._next = max(self._next, index + 1)
            self._raise_watermark()
            self._absent_reason = "never pushed, or lost with the memory of an earlier process"
        self.changed.notify_all()

    def add_stored(self, stored: IndexSet) -> list[int]:
        """Add chunks that the server has and this ledger does not list, as stored. Returns their sorted indices."""
        with self._lock:
            # All indices up to the watermark are listed, so only the few above it are compared.
            above = stored.copy()
            above.discard_range(0, self._watermark)
            unknown = [index for index in above if index not in self._records]
            for index in unknown:
                self._records[index] = ChunkRecord("stored", durable=True)
            self._counts["stored"] += len(unknown)
            self._next = max(self._next, unknown[-1] + 1 if unknown else 0)
            self._raise_watermark()
        self.changed.notify_all()
        return unknown

    def seal(self) -> None:
        """Accept no more chunks, permanently."""
        with self._lock:
            self._sealed = True
        self.changed.notify_all()

    def close(self) -> None:
        """The server has acknowledged the end of the stream."""
        with self._lock:
            self._closed = True
        self.changed.notify_all()

    def _raise_watermark(self) -> None:
        while (record := self._records.get(self._watermark + 1)) is not None and record.state != "pending":
            self._watermark += 1

    # -- one chunk ----------------------------------------------------------------------------------------

    def contains(self, index: int) -> bool:
        """True if ``index`` was accepted before."""
        with self._lock:
            return index in self._records

    def get(self, index: int) -> ChunkRecord | None:
        """A copy of the record of ``index``; None if it was never accepted."""
        with self._lock:
            record = self._records.get(index)
            return None if record is None else replace(record)

    def is_resolved(self, index: int) -> bool:
        """True if ``index`` is no longer pending."""
        with self._lock:
            return self._records[index].state != "pending"

    def is_safe(self, index: int) -> bool:
        """True if the chunk is durable or resolved. ``durability="disk"`` waits for this."""
        with self._lock:
            record = self._records[index]
            return record.durable or record.state != "pending"

    # -- all chunks ---------------------------------------------------------------------------------------

    @property
    def sealed(self) -> bool:
        """True once finalize was called."""
        return self._sealed

    @property
    def closed(self) -> bool:
        """True once the server has acknowledged the end."""
        return self._closed

    @property
    def watermark(self) -> int:
        """The largest k for which the chunks 0..k are all resolved; -1 at first."""
        return self._watermark

    @property
    def next_index(self) -> int:
        """The index after the largest accepted one."""
        return self._next

    @property
    def pending(self) -> int:
        """The number of chunks that are not resolved."""
        return self._counts["pending"]

    @property
    def in_memory_only(self) -> int:
        """The number of pending chunks that are not on disk: they would be lost if this process ended now."""
        return self._in_memory_only

    def counts(self) -> Counter[ChunkState]:
        """The number of accepted chunks in each state."""
        with self._lock:
            return Counter(self._counts)

    def pending_indices(self) -> list[int]:
        """The sorted indices of the pending chunks."""
        with self._lock:
            return sorted(k for k, record in self._records.items() if record.state == "pending")

    def resolved_below(self, index: int) -> bool:
        """True if every accepted chunk with a lower index is resolved."""
        if self._watermark >= index - 1:
            return True
        with self._lock:
            return all(record.state != "pending" for k, record in self._records.items() if k < index)

    def losses(self) -> list[Loss]:
        """The first ``MAX_LOST`` indices below ``next_index`` that are lost or were never pushed, with the reasons.

        There can be millions only after a mistake, such as a spool that another program wrote to.
        """
        with self._lock:
            found = (loss for k in range(self._next) if (loss := self._loss(k)) is not None)
            return list(islice(found, MAX_LOST))

    def _loss(self, index: int) -> Loss | None:
        record = self._records.get(index)
        if record is None:
            return Loss(index, self._absent_reason)
        if record.state in {"quarantined", "dropped", "purged"}:
            return Loss(index, f"{record.state}: {record.reason}" if record.reason else record.state)
        return None

    def report(self) -> StreamReport:
        """The present counts and losses, as ``finalize`` returns them."""
        losses = self.losses()
        with self._lock:
            counts, total = Counter(self._counts), len(self._records)
        report = StreamReport(
            chunks_spooled=total,
            chunks_uploaded=counts["stored"],
            chunks_dropped=counts["dropped"],
            chunks_failed=counts["quarantined"],
            chunks_purged=counts["purged"],
            chunks_not_uploaded=total - counts["stored"],
            chunks_pending=counts["pending"],
            drained=counts["pending"] == 0,
            closed=self._closed,
            lost=[(loss.index, loss.reason) for loss in losses],
        )
        return cast("StreamReport", Report(report))


class AsyncCondition:
    """A condition that any thread may notify and any coroutine may wait for.

    The state that a condition depends on is owned elsewhere (here: by the ledger's lock). A notification that
    changes nothing is harmless. None is missed, because a waiter registers before it checks its condition.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def notify_all(self) -> None:
        """Let all waiting coroutines check their condition. Any thread may call this."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            _wake_from_thread(future)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` is true. It is evaluated in this task, now and after each notification."""
        loop = asyncio.get_running_loop()
        while True:
            future: asyncio.Future[None] = loop.create_future()
            with self._lock:
                self._waiting.add(future)
            try:
                if condition():
                    return
                await future
            finally:
                with self._lock:
                    self._waiting.discard(future)


def _wake_from_thread(future: asyncio.Future[None]) -> None:
    try:
        future.get_loop().call_soon_threadsafe(_wake, future)
    except RuntimeError:
        # The loop of this waiter was closed: no task waits there any more.
        return


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
