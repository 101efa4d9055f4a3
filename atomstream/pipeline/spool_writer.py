"""Keeps chunks on disk while they wait for the server: the spool's stage between encoder and uploader.

The order of steps is the promise: a record is whole and synced before its chunk counts as durable, and its
end is in the journal before it goes (DECISIONS, "State"). Where the disk fails the stream goes on from memory,
with a warning, and the disk is asked again later (promise P13).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeVar

from atomstream.errors import SpoolError
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import MemoryPayload, SpoolPayload, Upload
from atomstream.records import Shard
from atomstream.spool import Geometry, JournalEntry, StreamSpool

# The one thread that touches the disk: jobs in order, so that a journal's entries are in order too.
#
# A daemon thread of our own, as the encoders' (DECISIONS, "Exit"). Jobs never wait for the network or for room
# at the gate, so the disk's stage can always move on.

T = TypeVar("T")

Job = Callable[[], None]


class DiskExecutor:
    """A FIFO of disk jobs; any thread may submit.

    ``broken(error)`` is called, in the depot's thread, with what a job should not have raised.
    """

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        self._broken = broken
        self._ready = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._count = 0
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="atomstream-spool", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Jobs that wait or run; those put off are not counted."""
        with self._ready:
            return len(self._jobs) + self._busy

    def submit(self, job: Job) -> None:
        """Do ``job`` after all submitted before it."""
        with self._ready:
            self._jobs.append(job)
            self._ready.notify()

    def submit_later(self, job: Job, delay_s: float) -> None:
        """Do ``job`` in ``delay_s`` seconds, or never, where the depot is stopped before."""
        with self._ready:
            self._count += 1
            heapq.heappush(self._later, (time.monotonic() + delay_s, self._count, job))
            self._ready.notify()

    async def run(self, call: Callable[[], T]) -> T:
        """The result of ``call`` done in the depot's thread, after all submitted before it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.submit(lambda: _settle(loop, future, call))
        return await future

    def stop(self) -> list[threading.Thread]:
        """Let the thread do what was submitted, then end; what was put off is left. Never waits."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return [self._thread]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:
                self._broken(error)
            del job
            with self._ready:
                self._busy = False

    def _next(self) -> Job | None:
        with self._ready:
            while True:
                wait_s = self._promote()
                if self._jobs:
                    self._busy = True
                    return self._jobs.popleft()
                if self._stopping:
                    return None
                self._ready.wait(wait_s)

    def _promote(self) -> float | None:
        """Queue what was put off until now; seconds until the next one is due."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._jobs.append(heapq.heappop(self._later)[2])
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None


def _settle(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], call: Callable[[], T]) -> None:
    try:
        result = call()
    except BaseException as error:
        failure = error  # the name in the clause ends with it, before the loop gets there
        _tell(loop, future, lambda: future.set_exception(failure))
    else:
        _tell(loop, future, lambda: future.set_result(result))


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], tell: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(lambda: None if future.done() else tell())
    except RuntimeError:
        # The loop was closed: nobody waits for the result any more.
        return


log = logging.getLogger("atomstream.spool")

AGAIN_S: Final = 5.0

WARN_EVERY_S: Final = 30.0


class SpoolWriter:
    """Disk jobs for chunks, in the depot's thread; its verbs only submit and never wait.

    ``kept(stream, parcel)`` is called in the depot's thread once a parcel's record is durable.
    """

    def __init__(
        self, depot: DiskExecutor, readers: int, kept: Callable[[StreamState, Upload], None]
    ) -> None:
        self._depot = depot
        self._kept = kept
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="atomstream-read")
        self._lock = threading.Lock()
        self._warned_at = float("-inf")
        self.unkept = 0
        """Chunks whose record could not be written yet."""

    def close(self) -> None:
        """Let the reading threads end."""
        self._readers.shutdown(wait=True)

    def accepted(self, stream: StreamState, index: int) -> None:
        """Journal that a chunk was taken."""
        if stream.spool is not None:
            self._journal(stream.spool, JournalEntry("accepted", index))

    def keep(self, stream: StreamState, parcel: Upload, shard: Shard) -> None:
        """Write the chunk's record as soon as the disk gets to it; then it is durable."""
        spool = stream.spool
        if spool is not None:
            self._depot.submit(lambda: self._put(stream, spool, parcel, shard))

    def _put(self, stream: StreamState, spool: StreamSpool, parcel: Upload, shard: Shard) -> None:
        try:
            _describe(spool, shard)
            written = spool.put(shard)
        except SpoolError as error:
            self._warn(error)
            self.unkept += 1
            self._depot.submit_later(lambda: self._put_again(stream, spool, parcel, shard), AGAIN_S)
            return
        if written is not None:
            self._kept(stream, parcel)

    def _put_again(self, stream: StreamState, spool: StreamSpool, parcel: Upload, shard: Shard) -> None:
        self.unkept -= 1
        if not stream.ledger.is_settled(parcel.index):
            self._put(stream, spool, parcel, shard)

    def let_go(self, parcel: Upload) -> None:
        """Give a parcel's memory back; harmless when repeated."""
        parcel.body = MemoryPayload(())
        parcel.release()

    def evict(self, stream: StreamState, parcel: Upload) -> None:
        """On the loop: from now on the chunk is read back from disk; its memory is free."""
        if stream.spool is not None and parcel.durable and parcel.permit is not None:
            self.let_go(parcel)
            parcel.body = self.on_disk(stream.spool, parcel.index)

    def on_disk(self, spool: StreamSpool, index: int) -> SpoolPayload:
        """The bytes of a record."""
        return SpoolPayload(spool, index, self._readers)

    def forget(self, stream: StreamState, index: int) -> None:
        """The server has the chunk: journal it, then remove its record."""
        self._settle(stream, lambda spool: spool.mark_stored(index))

    def learnt(self, stream: StreamState, indices: list[int]) -> None:
        """Journal that the server has chunks of which the journal did not know."""

        def note(spool: StreamSpool) -> None:
            for index in indices:
                spool.journal.append(JournalEntry("stored", index))

        self._settle(stream, note)

    def discard(
        self, stream: StreamState, index: int, kind: Literal["dropped", "purged"], reason: str
    ) -> None:
        """The chunk was given up by policy."""
        self._settle(stream, lambda spool: spool.discard(index, kind, reason))

    def quarantine(self, stream: StreamState, parcel: Upload, reason: str) -> None:
        """Put the chunk's record aside under its name, for a person to look at."""
        self._settle(stream, lambda spool: spool.quarantine(parcel.index, reason))

    def _settle(self, stream: StreamState, step: Callable[[StreamSpool], None]) -> None:
        spool = stream.spool
        if spool is not None:
            self._depot.submit(lambda: self._try(lambda: step(spool)))

    def _journal(self, spool: StreamSpool, entry: JournalEntry) -> None:
        self._depot.submit(lambda: self._try(lambda: spool.journal.append(entry)))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except SpoolError as error:
            self._warn(error)

    def _warn(self, error: SpoolError) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._warned_at + WARN_EVERY_S:
                log.info("%s", error)
                return
            self._warned_at = now
        log.warning("%s", error)


def _describe(spool: StreamSpool, shard: Shard) -> None:
    """Write down height, width and dtype with the stream's first chunk."""
    if spool.manifest.geometry is None:
        _, height, width = shard.info.dims
        geometry = Geometry(height, width, shard.info.dtype)
        spool.update_manifest(type(spool.manifest)(spool.manifest.endpoint, spool.manifest.spec, geometry))
