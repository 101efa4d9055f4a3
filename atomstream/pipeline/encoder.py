"""Chunks become shards: zstd in daemon threads of our own, one compressor a thread, the GIL released.

While the uplink is what holds the stream up, one thread at a time spends its spare time on smaller shards.

Daemon threads, for an executor refuses work at interpreter exit and its threads hold the exit up (DECISIONS,
"Exit"). Jobs are taken in the order of their arrival; one not yet begun can be taken back.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from atomstream.pipeline.buffers import Buffer
from atomstream.pipeline.gate import Permit
from atomstream.records import Chunk, Shard
from atomstream.shard import ShardEncoder

DENSE_LEVEL: Final = 5
"""Smooth and 16-bit pictures become 5 to 20 per cent smaller than at level 1, at 60-70 MB/s a core."""


@dataclass(slots=True, eq=False)
class Job:
    """One chunk on its way: its permit, and the pooled buffer under its frames (None: the caller's array)."""

    chunk: Chunk
    permit: Permit
    buffer: Buffer | None
    with_meta: bool


class Encoder:
    """A few threads that turn jobs into shards.

    ``done(job, outcome)`` is called in an encoder thread with the shard, or with the exception that encoding
    raised; it must not raise. ``uplink_lags()`` says whether smaller shards are wanted more than quick ones.
    """

    def __init__(
        self,
        threads: int,
        level: int,
        done: Callable[[Job, Shard | BaseException], None],
        uplink_lags: Callable[[], bool],
    ) -> None:
        self._level = level
        self._done = done
        self._uplink_lags = uplink_lags
        self._dense = ShardEncoder(max(level, DENSE_LEVEL))
        self._dense_busy = threading.Lock()
        self._ready = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._busy = 0
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"atomstream-encoder-{k}", daemon=True)
            for k in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def backlog(self) -> int:
        """Jobs that wait or are being encoded."""
        with self._ready:
            return len(self._jobs) + self._busy

    def submit(self, job: Job) -> None:
        """Queue ``job``; never waits, for the gate has bounded what can come."""
        with self._ready:
            self._jobs.append(job)
            self._ready.notify()

    def take_back_lowest(self, data_id: str) -> Job | None:
        """The job of ``data_id`` with the lowest index that no thread has begun, no longer queued; or None."""
        with self._ready:
            mine = [job for job in self._jobs if job.chunk.data_id == data_id]
            if not mine:
                return None
            lowest = min(mine, key=lambda job: job.chunk.index)
            self._jobs.remove(lowest)
            return lowest

    def stop(self) -> list[threading.Thread]:
        """Let the threads end after the chunk each is at; what was not begun stays undone. Never waits."""
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        return self._threads

    def _work(self) -> None:
        encoder = ShardEncoder(self._level)
        while (job := self._next()) is not None:
            outcome = self._encode(encoder, job)
            self._done(job, outcome)
            del job, outcome  # an idle thread must not hold the last chunk's memory
            with self._ready:
                self._busy -= 1

    def _next(self) -> Job | None:
        with self._ready:
            while not self._jobs and not self._stopping:
                self._ready.wait()
            if self._stopping:
                return None
            self._busy += 1
            return self._jobs.popleft()

    def _encode(self, live: ShardEncoder, job: Job) -> Shard | BaseException:
        # One thread at a time and only where no job waits: capture and analysis want the rest of the machine.
        if not self._jobs and self._uplink_lags() and self._dense_busy.acquire(blocking=False):
            try:
                return _encode(self._dense, job)
            finally:
                self._dense_busy.release()
        return _encode(live, job)


def _encode(encoder: ShardEncoder, job: Job) -> Shard | BaseException:
    try:
        return encoder.encode(job.chunk, with_meta=job.with_meta)
    except BaseException as error:  # a MemoryError must reach the stream's owner, not end a thread
        return error
