"""Writes chunks to disk while they wait for the server: the stage parallel to the uploader.

The order of the steps matters. A record is complete and synced before its chunk counts as durable. The end of a chunk
is in the journal before its record is removed. If the disk fails, the stream continues from memory with a warning,
and the write is repeated later.
"""

from __future__ import annotations

import asyncio
import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, Literal, TypeVar

from atomstream.errors import SpoolError
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import MemoryPayload, SpoolPayload, Upload
from atomstream.records import Shard
from atomstream.spool import Geometry, JournalEntry, StreamSpool
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.spool")

T = TypeVar("T")

Job = Callable[[], None]

RETRY_S: Final = 5.0
"""Seconds until a failed disk operation is repeated."""

WARN_EVERY_S: Final = 30.0
"""Disk errors are logged as warnings at most this often, in seconds; between them at level INFO."""


class SpoolWriter:
    """Disk jobs for chunks. Its methods only submit jobs to the disk thread; they never wait.

    ``on_durable(stream, upload)`` is called in the disk thread once the record of an upload is durable. ``readers`` is
    the number of threads that read records for uploads.
    """

    def __init__(
        self, disk: DiskExecutor, readers: int, on_durable: Callable[[StreamState, Upload], None]
    ) -> None:
        self._disk = disk
        self._on_durable = on_durable
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="atomstream-read")
        self._lock = threading.Lock()
        self._warned_at = float("-inf")
        self.unwritten = 0
        """The number of chunks whose record could not be written yet."""

    def close(self) -> None:
        """End the reading threads. Waits for them."""
        self._readers.shutdown(wait=True)

    def journal_accepted(self, stream: StreamState, index: int) -> None:
        """Journal that a chunk was accepted."""
        spool = stream.spool
        if spool is not None:
            self._disk.submit(
                lambda: self._try(lambda: spool.journal.append(JournalEntry("accepted", index)))
            )

    def write(self, stream: StreamState, upload: Upload, shard: Shard) -> None:
        """Write the record of a chunk. It is durable once ``on_durable`` is called."""
        spool = stream.spool
        if spool is not None:
            self._disk.submit(lambda: self._put(stream, spool, upload, shard))

    def _put(self, stream: StreamState, spool: StreamSpool, upload: Upload, shard: Shard) -> None:
        try:
            _describe(spool, shard)
            written = spool.put(shard)
        except SpoolError as error:
            self._warn(error)
            self.unwritten += 1
            self._disk.submit_later(lambda: self._retry_put(stream, spool, upload, shard), RETRY_S)
            return
        if written is not None:
            self._on_durable(stream, upload)

    def _retry_put(self, stream: StreamState, spool: StreamSpool, upload: Upload, shard: Shard) -> None:
        self.unwritten -= 1
        if not stream.ledger.is_resolved(upload.index):
            self._put(stream, spool, upload, shard)

    def release_memory(self, upload: Upload) -> None:
        """Free the memory of an upload that is no longer needed. Repeated calls have no effect."""
        upload.payload = MemoryPayload(())
        upload.release()

    def evict(self, stream: StreamState, upload: Upload) -> None:
        """Free the memory of a durable upload, which then reads from disk. Call this on the loop."""
        if stream.spool is not None and upload.durable and upload.permit is not None:
            self.release_memory(upload)
            upload.payload = self.payload(stream.spool, upload.index)

    def payload(self, spool: StreamSpool, index: int) -> SpoolPayload:
        """The bytes of a record on disk, as the payload of an upload."""
        return SpoolPayload(spool, index, self._readers)

    def remove_stored(self, stream: StreamState, index: int) -> None:
        """Journal that the server has the chunk, then remove its record."""
        self._submit(stream, lambda spool: spool.mark_stored(index))

    def journal_stored(self, stream: StreamState, indices: list[int]) -> None:
        """Journal that the server has chunks that the journal did not list."""

        def append(spool: StreamSpool) -> None:
            for index in indices:
                spool.journal.append(JournalEntry("stored", index))

        self._submit(stream, append)

    def discard(
        self, stream: StreamState, index: int, kind: Literal["dropped", "purged"], reason: str
    ) -> None:
        """Journal that the chunk is lost, then remove its record."""
        self._submit(stream, lambda spool: spool.discard(index, kind, reason))

    def quarantine(self, stream: StreamState, upload: Upload, reason: str) -> None:
        """Move the record of a rejected chunk to the quarantine folder, so that a person can inspect it."""
        self._submit(stream, lambda spool: spool.quarantine(upload.index, reason))

    def _submit(self, stream: StreamState, step: Callable[[StreamSpool], None]) -> None:
        spool = stream.spool
        if spool is not None:
            self._disk.submit(lambda: self._try(lambda: step(spool)))

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
    """Write height, width and dtype to the manifest with the stream's first chunk."""
    if spool.manifest.geometry is None:
        _, height, width = shard.info.dims
        geometry = Geometry(height, width, shard.info.dtype)
        spool.update_manifest(replace(spool.manifest, geometry=geometry))


class DiskExecutor:
    """One thread that does all disk work in the order of submission. So journal entries are in order, too.

    It uses one daemon thread: a ``ThreadPoolExecutor`` refuses work while the interpreter exits
    (docs/decisions/0007-interpreter-exit.md). Jobs never wait for
    the network or for memory, so this stage can always continue. ``on_error(error)`` is called in the disk thread with
    an unexpected error of a job.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._ready = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._delayed: list[tuple[float, int, Job]] = []
        self._count = 0
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="atomstream-spool", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """The number of jobs that wait or run, without the delayed ones."""
        with self._ready:
            return len(self._jobs) + self._busy

    def submit(self, job: Job) -> None:
        """Run ``job`` after all jobs submitted before it."""
        with self._ready:
            self._jobs.append(job)
            self._ready.notify()

    def submit_later(self, job: Job, delay_s: float) -> None:
        """Run ``job`` in ``delay_s`` seconds. It is dropped if the executor is stopped before."""
        with self._ready:
            self._count += 1
            heapq.heappush(self._delayed, (time.monotonic() + delay_s, self._count, job))
            self._ready.notify()

    async def run(self, call: Callable[[], T]) -> T:
        """Run ``call`` after all jobs submitted before it, and return its result to the running loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self.submit(lambda: _run_into(loop, future, call))
        return await future

    def stop(self) -> list[threading.Thread]:
        """End the thread after the submitted jobs; delayed jobs are dropped. Does not wait."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return [self._thread]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except BaseException as error:
                self._on_error(error)
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
        """Queue the delayed jobs that are due. Returns the seconds until the next one is due."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._jobs.append(heapq.heappop(self._delayed)[2])
        return max(0.0, self._delayed[0][0] - time.monotonic()) if self._delayed else None


def _run_into(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], call: Callable[[], T]) -> None:
    """Set the result of ``call``, or its exception, on a future of another thread's loop."""
    try:
        result = call()
    except BaseException as error:
        failure = error  # Python deletes the name "error" after the except clause, before the loop uses it
        _apply(loop, future, lambda: future.set_exception(failure))
    else:
        _apply(loop, future, lambda: future.set_result(result))


def _apply(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], action: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(lambda: None if future.done() else action())
    except RuntimeError:
        # The loop was closed: no task waits for the result any more.
        return
