"""Threads that encode chunks as shards. zstd releases the GIL while it compresses.

All threads work on the oldest chunk together; each compresses some of its slices. So a chunk is finished in a fraction
of the time that one thread needs, and chunks are finished in order. If the uplink is too slow and no other chunk
waits, one thread makes the chunk as small as possible instead.

They are daemon threads and not those of a ``ThreadPoolExecutor``, which refuses work while the interpreter exits, and
whose threads delay the exit. Jobs are processed in the order of arrival. A job that no thread has begun can be removed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atomstream.pipeline.buffer_pool import Buffer, ScratchPool
from atomstream.pipeline.memory_limiter import Permit
from atomstream.records import Chunk, Shard
from atomstream.shard import EncodedSlice, ShardEncoder, assemble, slice_bound

DENSE_LEVEL: Final = 5
"""The zstd level for a slow uplink: smooth and 16-bit pictures are 5 to 20 % smaller than at level 1, at 60-70 MB/s a
core."""

SLICES_PER_THREAD: Final = 4
"""Slices per thread. With more than one, threads that begin at different times end at nearly the same time."""


@dataclass(slots=True, eq=False)
class EncodeJob:
    """One chunk to encode, its memory permit, and the pooled buffer of its frames (None: the caller's array)."""

    chunk: Chunk
    permit: Permit
    buffer: Buffer | None
    with_meta: bool


class _SlicedJob:
    """A job in slices of at most ``step`` frames; ``dense``: at the level :data:`DENSE_LEVEL`. The encoder's lock
    protects it."""

    def __init__(self, job: EncodeJob, step: int, dense: bool) -> None:
        self.job = job
        self.dense = dense
        self._step = step
        self._slices: dict[int, EncodedSlice] = {}
        self._begun = 0
        self._ended = 0
        self.failure: BaseException | None = None

    @property
    def not_begun(self) -> bool:
        return self._begun == 0

    @property
    def all_begun(self) -> bool:
        return self._begun == len(self.job.chunk.frames)

    @property
    def reserved_bytes(self) -> int:
        """Upper limit of the encoded bytes of the slices that are not begun."""
        frames = self.job.chunk.frames
        return slice_bound(len(frames) - self._begun, frames.nbytes // len(frames))

    @property
    def slice_bytes(self) -> int:
        """Upper limit of the bytes of an encoded slice. The same for all slices, so that their memory can be reused."""
        frames = self.job.chunk.frames
        return slice_bound(self._step, frames.nbytes // len(frames))

    def begin(self) -> slice:
        """The frames of the next slice."""
        part = slice(self._begun, min(self._begun + self._step, len(self.job.chunk.frames)))
        self._begun = part.stop
        return part

    def end(self, part: slice, encoded: EncodedSlice | None) -> bool:
        """Store the result of a slice, None if it failed. Returns True for the last slice."""
        if encoded is not None:
            self._slices[part.start] = encoded
        self._ended += part.stop - part.start
        return self._ended == len(self.job.chunk.frames)

    def result(self) -> Shard | BaseException:
        """The shard, or the error. Call this without the lock, after the last slice."""
        if self.failure is not None:
            return self.failure
        try:
            slices = [self._slices[start] for start in sorted(self._slices)]
            return assemble(self.job.chunk, slices, with_meta=self.job.with_meta)
        except BaseException as error:  # a MemoryError must reach the stream's owner and not end this thread
            return error


class Encoder:
    """A few threads that encode jobs as shards.

    ``on_encoded(job, result)`` is called in an encoder thread with the shard or with the error; it must not raise.
    ``uplink_lags()`` is True if small shards matter more than fast ones. Compressed frames are written to ``scratch``.
    """

    def __init__(
        self,
        threads: int,
        level: int,
        on_encoded: Callable[[EncodeJob, Shard | BaseException], None],
        uplink_lags: Callable[[], bool],
        scratch: ScratchPool,
    ) -> None:
        self._level = level
        self._scratch = scratch
        self._on_encoded = on_encoded
        self._uplink_lags = uplink_lags
        self._slices_per_job = SLICES_PER_THREAD * threads if threads > 1 else 1
        self._ready = threading.Condition()
        self._queue: deque[_SlicedJob] = deque()
        self._unfinished = 0
        self._stopping = False
        self.reserved_bytes = 0
        """Largest size, in bytes, of the slices that are not encoded yet; permitted, but not allocated."""
        self._threads = [
            threading.Thread(target=self._work, name=f"atomstream-encoder-{k}", daemon=True)
            for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def backlog(self) -> int:
        """The number of jobs that wait or are being encoded."""
        return self._unfinished

    def submit(self, job: EncodeJob) -> None:
        """Queue ``job`` and wake idle threads. Never waits: the memory limit bounds the number of jobs."""
        self.enqueue(job)
        self.wake_threads()

    def wake_threads(self) -> None:
        """Wake idle threads, so that they take jobs from the queue."""
        with self._ready:
            self._ready.notify_all()

    def enqueue(self, job: EncodeJob) -> None:
        """Queue ``job`` without waking idle threads. Call :meth:`wake_threads` afterwards."""
        frames = len(job.chunk.frames)
        # Use the higher level only if the encoder is idle, and only in one thread: capture and analysis need the
        # other cores.
        dense = not self._unfinished and self._uplink_lags()
        sliced = _SlicedJob(job, frames if dense else -(-frames // self._slices_per_job), dense)
        with self._ready:
            self._queue.append(sliced)
            self._unfinished += 1
            self.reserved_bytes += sliced.reserved_bytes

    def remove_lowest(self, data_id: str) -> EncodeJob | None:
        """Remove and return the job of a stream with the lowest index that no thread has begun; None if none."""
        with self._ready:
            candidates = [s for s in self._queue if s.not_begun and s.job.chunk.data_id == data_id]
            if not candidates:
                return None
            lowest = min(candidates, key=lambda sliced: sliced.job.chunk.index)
            self._queue.remove(lowest)
            self._unfinished -= 1
            self.reserved_bytes -= lowest.reserved_bytes
            return lowest.job

    def stop(self) -> list[threading.Thread]:
        """End the threads. Jobs that were begun are finished, the others are not. Does not wait."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return self._threads

    def _work(self) -> None:
        live, dense = ShardEncoder(self._level), ShardEncoder(max(self._level, DENSE_LEVEL))
        while (turn := self._next()) is not None:
            sliced, part = turn
            self._encode(dense if sliced.dense else live, sliced, part)
            del turn, sliced  # an idle thread must not hold the memory of the last chunk

    def _next(self) -> tuple[_SlicedJob, slice] | None:
        with self._ready:
            while not self._queue and not self._stopping:
                self._ready.wait()
            if not self._queue or (self._stopping and self._queue[0].not_begun):
                return None
            sliced = self._queue[0]
            self.reserved_bytes -= sliced.reserved_bytes
            part = sliced.begin()
            self.reserved_bytes += sliced.reserved_bytes
            if sliced.all_begun:
                self._queue.popleft()
            return sliced, part

    def _encode(self, encoder: ShardEncoder, sliced: _SlicedJob, part: slice) -> None:
        encoded = None
        try:
            if sliced.failure is None:
                memory = self._scratch.acquire(sliced.slice_bytes)
                encoded = memory.trim(encoder.compress(sliced.job.chunk.frames[part], memory.view))
                del memory
        except BaseException as error:  # see _SlicedJob.result
            sliced.failure = error
        with self._ready:
            complete = sliced.end(part, encoded)
        del encoded
        if complete:
            self._on_encoded(sliced.job, sliced.result())
            with self._ready:
                self._unfinished -= 1
