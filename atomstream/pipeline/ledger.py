"""What became of each chunk of one stream: the one owner of that truth.

Each accepted index is in exactly one state (promise P9): pending, then one of stored, quarantined, dropped,
purged. Counts are kept as they change and always sum; the watermark only grows.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from atomstream.errors import StreamFinalizedError
from atomstream.records import ChunkState, Loss, StreamReport

# A bell that any thread may ring and any coroutine may wait by: conditions over state that threads own.


class AsyncCondition:
    """Wakes all waiting coroutines to look at their condition again.

    The state itself belongs to others (a ledger's lock); the pulse only says that it moved, so a wake-up too
    many is harmless and one too few impossible: the future is registered before the condition is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake everybody; from any thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for future in waiting:
            _set_soon(future)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` holds; it is read in this task, after each ring."""
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


def _set_soon(future: asyncio.Future[None]) -> None:
    try:
        future.get_loop().call_soon_threadsafe(_set, future)
    except RuntimeError:
        # The waiter's loop was closed: nobody waits there any more.
        return


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass(slots=True)
class ChunkRecord:
    """One accepted index; ``digest`` is None until its encoding (for ever, where it was dropped before)."""

    state: ChunkState = "pending"
    digest: bytes | None = None
    reason: str = ""
    durable: bool = False


class Ledger:
    """The states of one stream's chunks; any thread may write, ``pulse`` rings after each change.

    ``on_accept(index)`` is told of each acceptance and must not wait.
    """

    def __init__(self, data_id: str, on_accept: Callable[[int], None] | None = None) -> None:
        self.data_id = data_id
        self._on_accept = on_accept
        self.pulse = AsyncCondition()
        self._lock = threading.Lock()
        self._entries: dict[int, ChunkRecord] = {}
        self._counts: Counter[ChunkState] = Counter()
        self._unsafe = 0
        self._watermark = -1
        self._next = 0
        self._sealed = False
        self._closed = False
        self._absent = "never pushed"

    def knows(self, index: int) -> bool:
        """Whether ``index`` was accepted before."""
        with self._lock:
            return index in self._entries

    def entry(self, index: int) -> ChunkRecord | None:
        """A copy of what is known of ``index``."""
        with self._lock:
            entry = self._entries.get(index)
            return None if entry is None else replace(entry)

    def accept(self, index: int | None = None) -> int | None:
        """Accept ``index`` (None: the stream's next one) as pending; None where it is known already.

        Raises:
            StreamFinalizedError: the stream takes no more.
        """
        with self._lock:
            if self._sealed:
                raise StreamFinalizedError(
                    f"Stream {self.data_id} was finalized: it takes no more frames. Initialize a new stream.",
                    data_id=self.data_id,
                    index=index,
                )
            chosen = self._next if index is None else index
            if chosen in self._entries:
                return None
            self._entries[chosen] = ChunkRecord()
            self._counts["pending"] += 1
            self._unsafe += 1
            self._next = max(self._next, chosen + 1)
            if self._on_accept is not None:
                self._on_accept(chosen)  # under the lock: the journal's order is the order of acceptance
        self.pulse.ring()
        return chosen

    def encoded(self, index: int, digest: bytes) -> None:
        """The chunk's content is known from now on."""
        with self._lock:
            self._entries[index].digest = digest
        self.pulse.ring()

    def mark_durable(self, index: int) -> None:
        """The chunk would survive a power cut from now on."""
        with self._lock:
            entry = self._entries[index]
            self._unsafe -= entry.state == "pending" and not entry.durable
            entry.durable = True
        self.pulse.ring()

    def is_settled(self, index: int) -> bool:
        """Whether ``index`` is no longer pending."""
        with self._lock:
            return self._entries[index].state != "pending"

    def is_safe(self, index: int) -> bool:
        """Whether the chunk is durable or settled: what ``durability="disk"`` waits for."""
        with self._lock:
            entry = self._entries[index]
            return entry.durable or entry.state != "pending"

    @property
    def unsafe(self) -> int:
        """How many chunks would be lost if this process ended now."""
        return self._unsafe

    def restore(
        self, states: Mapping[int, ChunkState], digests: Mapping[int, bytes], reasons: Mapping[int, str]
    ) -> None:
        """Take over what a journal says of chunks that an earlier process accepted; all of them are on disk."""
        with self._lock:
            for index in sorted(states):
                state = states[index]
                self._entries[index] = ChunkRecord(
                    state, digests.get(index), reasons.get(index, ""), durable=True
                )
                self._counts[state] += 1
                self._next = max(self._next, index + 1)
            self._raise_watermark()
            self._absent = "never pushed, or lost with the memory of an earlier process"
        self.pulse.ring()

    def learn(self, stored: Iterable[range]) -> list[int]:
        """Count chunks as accepted and stored that the server has and nobody here knows; their indices, sorted."""
        with self._lock:
            # Below the watermark all are known: of a day's stream only the last few are looked at.
            above = (range(max(one.start, self._watermark + 1), one.stop) for one in stored)
            unknown = sorted(index for one in above for index in one if index not in self._entries)
            for index in unknown:
                self._entries[index] = ChunkRecord("stored", durable=True)
            self._counts["stored"] += len(unknown)
            self._next = max(self._next, unknown[-1] + 1 if unknown else 0)
            self._raise_watermark()
        self.pulse.ring()
        return unknown

    def settle(self, index: int, state: ChunkState, reason: str = "") -> bool:
        """Move ``index`` from pending to ``state``; False where it was settled before (the first word counts)."""
        with self._lock:
            entry = self._entries[index]
            if entry.state != "pending":
                return False
            entry.state, entry.reason = state, reason
            self._unsafe -= not entry.durable
            self._counts["pending"] -= 1
            self._counts[state] += 1
            self._raise_watermark()
        self.pulse.ring()
        return True

    def _raise_watermark(self) -> None:
        while (entry := self._entries.get(self._watermark + 1)) is not None and entry.state != "pending":
            self._watermark += 1

    def seal(self) -> None:
        """Accept nothing more, for ever."""
        with self._lock:
            self._sealed = True
        self.pulse.ring()

    def close(self) -> None:
        """The server knows that the stream has ended."""
        with self._lock:
            self._closed = True
        self.pulse.ring()

    @property
    def sealed(self) -> bool:
        """Whether finalize was called."""
        return self._sealed

    @property
    def closed(self) -> bool:
        """Whether the end was acknowledged."""
        return self._closed

    @property
    def watermark(self) -> int:
        """Largest k with 0..k all settled; -1 at first."""
        return self._watermark

    @property
    def next_index(self) -> int:
        """The index after the largest one accepted."""
        return self._next

    @property
    def pending(self) -> int:
        """How many accepted chunks are neither stored nor given up."""
        return self._counts["pending"]

    def counts(self) -> Counter[ChunkState]:
        """How many accepted chunks are in each state."""
        with self._lock:
            return Counter(self._counts)

    def pending_indices(self) -> list[int]:
        """The pending indices, sorted."""
        with self._lock:
            return sorted(k for k, entry in self._entries.items() if entry.state == "pending")

    def settled_below(self, index: int) -> bool:
        """Whether every accepted chunk below ``index`` is settled."""
        if self._watermark >= index - 1:
            return True
        with self._lock:
            return all(entry.state != "pending" for k, entry in self._entries.items() if k < index)

    def losses(self) -> list[Loss]:
        """Every index below ``next_index`` that was given up or never pushed, and why."""
        with self._lock:
            return [loss for k in range(self._next) if (loss := self._loss(k)) is not None]

    def report(self) -> StreamReport:
        """The counts as they are now."""
        losses = self.losses()
        with self._lock:
            counts, total = Counter(self._counts), len(self._entries)
        return StreamReport(
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

    def _loss(self, index: int) -> Loss | None:
        entry = self._entries.get(index)
        if entry is None:
            return Loss(index, self._absent)
        if entry.state in {"quarantined", "dropped", "purged"}:
            return Loss(index, f"{entry.state}: {entry.reason}" if entry.reason else entry.state)
        return None
