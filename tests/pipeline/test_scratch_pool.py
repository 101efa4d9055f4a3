"""Memory of compressed frames: it comes back by itself, and stays within what is held."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from atomstream.pipeline.buffer_pool import MOST_KEPT, FreeList, PooledBuffer, ScratchBuffer, ScratchPool
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.shard import EncodedSlice

MIB = 1 << 20


def packed(slab: ScratchBuffer, nbytes: int) -> EncodedSlice:
    return slab.keep(EncodedSlice.pack([bytes([7]) * nbytes], slab.view))


def place(view: object) -> int:
    return int(np.frombuffer(view, dtype=np.uint8).ctypes.data)  # type: ignore[call-overload]


@pytest.fixture
def spares() -> FreeList:
    return FreeList(MemoryLimiter(1 << 40))


def test_a_slab_comes_back_with_its_last_view(spares: FreeList) -> None:
    """A slab is lent again once nobody holds a view of it, and not before."""
    pool = ScratchPool(spares)
    slab = pool.lend(MIB)
    first = place(slab.view)
    run = packed(slab, MIB)
    part = memoryview(run.piece)[10:20]
    del slab, run
    other = pool.lend(MIB)
    assert place(other.view) != first
    assert bytes(part) == bytes([7]) * 10
    del part
    assert spares.nbytes == MIB
    assert place(pool.lend(MIB).view) == first


def test_one_that_the_collector_finds_while_the_pool_is_at_work(spares: FreeList) -> None:
    """A finalizer that runs in the thread that holds the lock does not wait for it, and nothing is lost."""
    pool = ScratchPool(spares)
    slab = pool.lend(MIB)
    packed(slab, MIB)
    ring: list[object] = [slab]
    ring.append(ring)
    del slab, ring
    with spares._sorted_out():
        gc.collect()
    assert spares.nbytes == MIB


def test_memory_that_was_touched_for_more_is_not_held(spares: FreeList) -> None:
    """Frames that became much smaller than earlier ones leave the memory that those had touched (P7)."""
    pool = ScratchPool(spares)
    packed(pool.lend(4 * MIB), 4 * MIB)
    slab = pool.lend(4 * MIB)
    run = packed(slab, MIB)
    assert isinstance(run.piece, bytes)
    assert run.piece == bytes([7]) * MIB
    del slab
    assert spares.nbytes == 0


def test_a_little_less_stays_in_its_slab(spares: FreeList) -> None:
    """Frames of nearly the same size are not copied, and a slab remembers how much of it was touched."""
    pool = ScratchPool(spares)
    packed(pool.lend(4 * MIB), 2 * MIB)
    run = packed(pool.lend(4 * MIB), 2 * MIB - 1000)
    assert isinstance(run.piece, memoryview)
    del run
    assert spares.nbytes == 2 * MIB


def test_a_small_slab_is_left_for_what_fits(spares: FreeList) -> None:
    """Of a small slab, whose memory others used before, no more is held than its frames take (P7)."""
    pool = ScratchPool(spares)
    assert isinstance(packed(pool.lend(20_000), 12_000).piece, bytes)
    run = packed(pool.lend(20_000), 19_000)
    assert isinstance(run.piece, memoryview)
    del run
    assert spares.nbytes == 20_000


def test_only_so_many_are_kept(spares: FreeList) -> None:
    """After a burst no more slabs are kept than a few chunks need."""
    pool = ScratchPool(spares)
    slabs = [pool.lend(MIB) for _ in range(2 * MOST_KEPT["shard"])]
    for slab in slabs:
        packed(slab, MIB)
    del slab, slabs
    assert spares.nbytes == MOST_KEPT["shard"] * MIB


@pytest.mark.parametrize(("promised", "kept"), [(0, 2), (3 * MIB, 5)])
def test_what_is_kept_has_room_beside_the_permits(promised: int, kept: int) -> None:
    """Spare memory fits beside the permits in use, plus one of its kind, plus what they promise (P7)."""
    gate = MemoryLimiter(10 * MIB)
    spares = FreeList(gate, lambda: promised)
    assert gate.try_enter("s", 9 * MIB) is not None
    for _ in range(8):
        spares.give(PooledBuffer("shard", np.empty(MIB, dtype=np.uint8), MIB))
    assert spares.nbytes == kept * MIB


def test_a_closed_pool_keeps_nothing(spares: FreeList) -> None:
    """What comes back after the streamer was closed is freed."""
    slab = ScratchPool(spares).lend(MIB)
    packed(slab, MIB)
    spares.close()
    del slab
    assert spares.nbytes == 0
