"""Scratch memory of compressed frames: it returns with its last view, and stays within the limit."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from atomstream.pipeline.buffer_pool import MOST_KEPT, FreeList, PooledBuffer, ScratchBuffer, ScratchPool
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.shard import EncodedSlice

MIB = 1 << 20


def packed(memory: ScratchBuffer, nbytes: int) -> EncodedSlice:
    return memory.trim(EncodedSlice.pack([bytes([7]) * nbytes], memory.view))


def address(view: object) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)  # type: ignore[call-overload]


@pytest.fixture
def free_list() -> FreeList:
    return FreeList(MemoryLimiter(1 << 40))


def test_scratch_memory_returns_with_its_last_view(free_list: FreeList) -> None:
    """Scratch memory is reused once no view of it exists, and not before."""
    pool = ScratchPool(free_list)
    memory = pool.acquire(MIB)
    first = address(memory.view)
    run = packed(memory, MIB)
    part = memoryview(run.piece)[10:20]
    del memory, run
    other = pool.acquire(MIB)
    assert address(other.view) != first
    assert bytes(part) == bytes([7]) * 10
    del part
    assert free_list.nbytes == MIB
    assert address(pool.acquire(MIB).view) == first


def test_a_finalizer_may_run_while_the_lock_is_held(free_list: FreeList) -> None:
    """A finalizer in the thread that holds the lock does not wait for it, and no memory is lost."""
    pool = ScratchPool(free_list)
    memory = pool.acquire(MIB)
    packed(memory, MIB)
    ring: list[object] = [memory]
    ring.append(ring)
    del memory, ring
    with free_list._locked():
        gc.collect()
    assert free_list.nbytes == MIB


def test_memory_much_larger_than_its_content_is_not_held(free_list: FreeList) -> None:
    """Frames that are much smaller than earlier ones are copied out of the large memory (P7)."""
    pool = ScratchPool(free_list)
    packed(pool.acquire(4 * MIB), 4 * MIB)
    memory = pool.acquire(4 * MIB)
    run = packed(memory, MIB)
    assert isinstance(run.piece, bytes)
    assert run.piece == bytes([7]) * MIB
    del memory
    assert free_list.nbytes == 0


def test_slightly_smaller_content_is_not_copied(free_list: FreeList) -> None:
    """Frames of nearly the same size are not copied. The touched size of the memory is remembered."""
    pool = ScratchPool(free_list)
    packed(pool.acquire(4 * MIB), 2 * MIB)
    run = packed(pool.acquire(4 * MIB), 2 * MIB - 1000)
    assert isinstance(run.piece, memoryview)
    del run
    assert free_list.nbytes == 2 * MIB


def test_content_of_small_memory_is_copied(free_list: FreeList) -> None:
    """All of a small scratch memory may be resident, so content that leaves much unused is copied (P7)."""
    pool = ScratchPool(free_list)
    assert isinstance(packed(pool.acquire(20_000), 12_000).piece, bytes)
    run = packed(pool.acquire(20_000), 19_000)
    assert isinstance(run.piece, memoryview)
    del run
    assert free_list.nbytes == 20_000


def test_the_number_of_free_buffers_is_limited(free_list: FreeList) -> None:
    """After a burst only as much scratch memory is kept as a few chunks need."""
    pool = ScratchPool(free_list)
    scratch = [pool.acquire(MIB) for _ in range(2 * MOST_KEPT["shard"])]
    for memory in scratch:
        packed(memory, MIB)
    del memory, scratch
    assert free_list.nbytes == MOST_KEPT["shard"] * MIB


@pytest.mark.parametrize(("reserved", "kept"), [(0, 2), (3 * MIB, 5)])
def test_free_memory_fits_beside_the_permits(reserved: int, kept: int) -> None:
    """Free memory fits beside the permits in use, plus one buffer, plus the reserved bytes without memory (P7)."""
    limiter = MemoryLimiter(10 * MIB)
    free_list = FreeList(limiter, lambda: reserved)
    assert limiter.try_acquire("s", 9 * MIB) is not None
    for _ in range(8):
        free_list.release(PooledBuffer("shard", np.empty(MIB, dtype=np.uint8), MIB))
    assert free_list.nbytes == kept * MIB


def test_a_closed_pool_keeps_nothing(free_list: FreeList) -> None:
    """Memory that returns after the close is freed."""
    memory = ScratchPool(free_list).acquire(MIB)
    packed(memory, MIB)
    free_list.close()
    del memory
    assert free_list.nbytes == 0
