"""The free list and the buffer pool: reuse of memory within the limit."""

from __future__ import annotations

import threading

import numpy as np

from atomstream.pipeline.buffer_pool import BufferPool, FreeList
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.system.memory import populate

MIB = 1 << 20
BIG = 16 * MIB


def wait_for_page_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "atomstream-pages":
            thread.join(60)


def test_the_next_buffer_is_prepared() -> None:
    """After the first buffer a second one is prepared with resident pages."""
    free_list = FreeList(MemoryLimiter(10 * BIG))
    pool = BufferPool(free_list)
    first = pool.acquire(BIG)
    wait_for_page_threads()
    if populate(first):
        assert free_list.nbytes == BIG
    pool.prepare(BIG)
    second = pool.acquire(BIG)
    assert free_list.nbytes == 0
    assert second is not first


def test_nothing_is_prepared_without_room() -> None:
    """Prepared buffers and permits together stay within buffer_bytes plus one chunk (P7)."""
    limiter = MemoryLimiter(4 * BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    permits = [limiter.try_acquire("s", BIG) for _ in range(4)]
    pool.prepare(BIG)
    pool.prepare(2 * BIG)
    assert all(permits)
    assert limiter.used + free_list.nbytes <= limiter.limit + BIG


def test_the_buffer_for_a_waiting_push_is_kept() -> None:
    """A buffer that is released while the memory limit is reached is reused, not freed."""
    limiter = MemoryLimiter(2 * BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    assert limiter.try_acquire("s", 2 * BIG) is not None
    buffer = np.empty(BIG, dtype=np.uint8)
    pool.release(buffer)
    assert pool.acquire(BIG) is buffer


def test_nothing_is_kept_with_a_chunk_above_the_limit() -> None:
    """A chunk above buffer_bytes is itself the one additional chunk."""
    limiter = MemoryLimiter(BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    assert limiter.try_acquire("s", 4 * BIG) is not None
    pool.release(np.empty(BIG, dtype=np.uint8))
    assert free_list.nbytes == 0
