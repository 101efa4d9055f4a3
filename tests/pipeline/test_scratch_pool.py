"""Memory of compressed frames: it comes back by itself, and stays within what is held."""

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


def test_a_slab_comes_back_with_its_last_view(free_list: FreeList) -> None:
    """A slab is lent again once nobody holds a view of it, and not before."""
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


def test_one_that_the_collector_finds_while_the_pool_is_at_work(free_list: FreeList) -> None:
    """A finalizer that runs in the thread that holds the lock does not wait for it, and nothing is lost."""
    pool = ScratchPool(free_list)
    memory = pool.acquire(MIB)
    packed(memory, MIB)
    ring: list[object] = [memory]
    ring.append(ring)
    del memory, ring
    with free_list._locked():
        gc.collect()
    assert free_list.nbytes == MIB


def test_memory_that_was_touched_for_more_is_not_held(free_list: FreeList) -> None:
    """Frames that became much smaller than earlier ones leave the memory that those had touched (P7)."""
    pool = ScratchPool(free_list)
    packed(pool.acquire(4 * MIB), 4 * MIB)
    memory = pool.acquire(4 * MIB)
    run = packed(memory, MIB)
    assert isinstance(run.piece, bytes)
    assert run.piece == bytes([7]) * MIB
    del memory
    assert free_list.nbytes == 0


def test_a_little_less_stays_in_its_slab(free_list: FreeList) -> None:
    """Frames of nearly the same size are not copied, and a slab remembers how much of it was touched."""
    pool = ScratchPool(free_list)
    packed(pool.acquire(4 * MIB), 2 * MIB)
    run = packed(pool.acquire(4 * MIB), 2 * MIB - 1000)
    assert isinstance(run.piece, memoryview)
    del run
    assert free_list.nbytes == 2 * MIB


def test_a_small_slab_is_left_for_what_fits(free_list: FreeList) -> None:
    """Of a small slab, whose memory others used before, no more is held than its frames take (P7)."""
    pool = ScratchPool(free_list)
    assert isinstance(packed(pool.acquire(20_000), 12_000).piece, bytes)
    run = packed(pool.acquire(20_000), 19_000)
    assert isinstance(run.piece, memoryview)
    del run
    assert free_list.nbytes == 20_000


def test_only_so_many_are_kept(free_list: FreeList) -> None:
    """After a burst no more slabs are kept than a few chunks need."""
    pool = ScratchPool(free_list)
    scratch = [pool.acquire(MIB) for _ in range(2 * MOST_KEPT["shard"])]
    for memory in scratch:
        packed(memory, MIB)
    del memory, scratch
    assert free_list.nbytes == MOST_KEPT["shard"] * MIB


@pytest.mark.parametrize(("reserved", "kept"), [(0, 2), (3 * MIB, 5)])
def test_what_is_kept_has_room_beside_the_permits(reserved: int, kept: int) -> None:
    """Spare memory fits beside the permits in use, plus one of its kind, plus what they promise (P7)."""
    limiter = MemoryLimiter(10 * MIB)
    free_list = FreeList(limiter, lambda: reserved)
    assert limiter.try_acquire("s", 9 * MIB) is not None
    for _ in range(8):
        free_list.release(PooledBuffer("shard", np.empty(MIB, dtype=np.uint8), MIB))
    assert free_list.nbytes == kept * MIB


def test_a_closed_pool_keeps_nothing(free_list: FreeList) -> None:
    """What comes back after the streamer was closed is freed."""
    memory = ScratchPool(free_list).acquire(MIB)
    packed(memory, MIB)
    free_list.close()
    del memory
    assert free_list.nbytes == 0
