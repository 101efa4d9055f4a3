"""Chunks become shards: zstd in daemon threads of our own, one compressor a thread, the GIL released.

All threads work on the oldest chunk together, a slice of its frames each: so a chunk is ready in a part of the
time that one thread needs, and chunks are ready in order. While the uplink is what holds the stream up, and
nothing else waits, one thread makes the chunk as small as it can instead.

Daemon threads, for an executor refuses work at interpreter exit and its threads hold the exit up (DECISIONS,
"Exit"). Jobs are taken in the order of their arrival; one not yet begun can be taken back.
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
from atomstream.shard import EncodedSlice, ShardEncoder, assemble, run_bound
from atomstream.system.scheduling import CoreAffinity, use_batch_policy

DENSE_LEVEL: Final = 5
"""Smooth and 16-bit pictures become 5 to 20 per cent smaller than at level 1, at 60-70 MB/s a core."""
SLICES_PER_THREAD: Final = 4
"""So that threads which begin at different moments end at nearly the same one."""


@dataclass(slots=True, eq=False)
class EncodeJob:
    """One chunk on its way: its permit, and the pooled buffer under its frames (None: the caller's array)."""

    chunk: Chunk
    permit: Permit
    buffer: Buffer | None
    with_meta: bool


class _SlicedJob:
    """A job in slices of at most ``step`` frames; its owner's lock is held wherever it is touched."""

    def __init__(self, job: EncodeJob, step: int, dense: bool) -> None:
        self.job = job
        self.dense = dense
        self._step = step
        self._runs: dict[int, EncodedSlice] = {}
        self._begun = 0
        self._ended = 0
        self.failure: BaseException | None = None

    @property
    def untouched(self) -> bool:
        return self._begun == 0

    @property
    def all_begun(self) -> bool:
        return self._begun == len(self.job.chunk.frames)

    @property
    def promised(self) -> int:
        """Bytes that the slices not yet begun may become."""
        frames = self.job.chunk.frames
        return run_bound(len(frames) - self._begun, frames.nbytes // len(frames))

    def begin(self) -> slice:
        """The next slice to encode."""
        part = slice(self._begun, min(self._begun + self._step, len(self.job.chunk.frames)))
        self._begun = part.stop
        return part

    @property
    def room(self) -> int:
        """Bytes that the largest slice may need; the same for all, so that memory suits any of them."""
        frames = self.job.chunk.frames
        return run_bound(self._step, frames.nbytes // len(frames))

    def end(self, part: slice, run: EncodedSlice | None) -> bool:
        """Keep a slice's result, None where it failed; whether it was the last one."""
        if run is not None:
            self._runs[part.start] = run
        self._ended += part.stop - part.start
        return self._ended == len(self.job.chunk.frames)

    def outcome(self) -> Shard | BaseException:
        """Once all has ended, without the lock: the shard, or what failed."""
        if self.failure is not None:
            return self.failure
        try:
            runs = [self._runs[start] for start in sorted(self._runs)]
            return assemble(self.job.chunk, runs, with_meta=self.job.with_meta)
        except BaseException as error:  # a MemoryError must reach the stream's owner, not end a thread
            return error


class Encoder:
    """A few threads that turn jobs into shards.

    ``done(job, outcome)`` is called in an encoder thread with the shard, or with the exception that encoding
    raised; it must not raise. ``uplink_lags()`` says whether smaller shards are wanted more than quick ones.
    Compressed frames lie in ``slabs``.
    """

    def __init__(
        self,
        threads: int,
        level: int,
        done: Callable[[EncodeJob, Shard | BaseException], None],
        uplink_lags: Callable[[], bool],
        slabs: ScratchPool,
    ) -> None:
        self._level = level
        self._slabs = slabs
        self._done = done
        self._uplink_lags = uplink_lags
        self._slices = SLICES_PER_THREAD * threads if threads > 1 else 1
        self._ready = threading.Condition()
        self._queue: deque[_SlicedJob] = deque()
        self._unfinished = 0
        self._stopping = False
        self.promised = 0
        """Bytes that slices not yet begun may become: under permit already, though nothing holds them."""
        self._threads = [
            threading.Thread(
                target=self._work, args=(k, threads), name=f"atomstream-encoder-{k}", daemon=True
            )
            for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def backlog(self) -> int:
        """Jobs that wait or are being encoded."""
        return self._unfinished

    def submit(self, job: EncodeJob) -> None:
        """Have ``job`` encoded; never waits, for the gate has bounded what can come."""
        self.queue(job)
        self.wake()

    def wake(self) -> None:
        """Let idle threads look at what is queued."""
        with self._ready:
            self._ready.notify_all()

    def queue(self, job: EncodeJob) -> None:
        """Queue ``job`` without waking anybody: idle threads see it at the next :meth:`wake`."""
        frames = len(job.chunk.frames)
        # Only for an idle encoder, and by one thread: capture and analysis want the rest of the machine.
        dense = not self._unfinished and self._uplink_lags()
        work = _SlicedJob(job, frames if dense else -(-frames // self._slices), dense)
        with self._ready:
            self._queue.append(work)
            self._unfinished += 1
            self.promised += work.promised

    def take_back_lowest(self, data_id: str) -> EncodeJob | None:
        """The job of ``data_id`` with the lowest index that no thread has begun, no longer queued; or None."""
        with self._ready:
            mine = [work for work in self._queue if work.untouched and work.job.chunk.data_id == data_id]
            if not mine:
                return None
            lowest = min(mine, key=lambda work: work.job.chunk.index)
            self._queue.remove(lowest)
            self._unfinished -= 1
            self.promised -= lowest.promised
            return lowest.job

    def stop(self) -> list[threading.Thread]:
        """Let the threads end after the chunk each is at; what was not begun stays undone. Never waits."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return self._threads

    def _work(self, number: int, threads: int) -> None:
        use_batch_policy()
        core = CoreAffinity(number, threads, patience=2 * SLICES_PER_THREAD)  # more than one chunk has for it
        live, dense = ShardEncoder(self._level), ShardEncoder(max(self._level, DENSE_LEVEL))
        while (turn := self._next(core)) is not None:
            work, part = turn
            core.pin_if_busy()
            self._encode(dense if work.dense else live, work, part)
            del turn, work  # an idle thread must not hold the last chunk's memory

    def _next(self, core: CoreAffinity) -> tuple[_SlicedJob, slice] | None:
        with self._ready:
            while not self._queue and not self._stopping:
                core.unpin()
                self._ready.wait()
            if not self._queue or (self._stopping and self._queue[0].untouched):
                return None
            work = self._queue[0]
            self.promised -= work.promised
            part = work.begin()
            self.promised += work.promised
            if work.all_begun:
                self._queue.popleft()
            return work, part

    def _encode(self, encoder: ShardEncoder, work: _SlicedJob, part: slice) -> None:
        run = None
        try:
            if work.failure is None:
                slab = self._slabs.lend(work.room)
                run = slab.keep(encoder.compress(work.job.chunk.frames[part], slab.view))
                del slab
        except BaseException as error:  # as above
            work.failure = error
        with self._ready:
            complete = work.end(part, run)
        del run
        if complete:
            self._done(work.job, work.outcome())
            with self._ready:
                self._unfinished -= 1
