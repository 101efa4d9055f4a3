from __future__ import annotations

import _thread
import mmap
import queue
import subprocess
import sys
import threading
import weakref
from itertools import pairwise

import numpy as np
import pytest

from atomstream.pipeline.buffer_pool import BufferPool, FreeList, PooledBuffer
from atomstream.pipeline.memory_limiter import MemoryLimiter
from atomstream.system import memory as pages
from atomstream.system import scheduling as yielding
from atomstream.system.memory import allocate, discard, populate
from atomstream.system.scheduling import STEP_BYTES
from tests.system.tuning_marks import needs

MIB = 1 << 20
BIG = 16 * MIB
only_where_pages_are_faulted_in = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can fault pages in without changing them"
)
only_where_a_thread_frees = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere an array is freed by whoever drops it"
)


def wait_for_page_threads() -> None:
    for thread in threading.enumerate():
        if thread.name == "atomstream-pages":
            thread.join(30)


@only_where_pages_are_faulted_in
@needs("prefault")
def test_populate_brings_pages_and_keeps_bytes() -> None:
    """After populate a buffer's pages are resident, and what was written to it is still there."""
    buffer = np.frombuffer(mmap.mmap(-1, BIG), dtype=np.uint8)  # np.empty may hand out pages touched before
    buffer[5 * MIB : 6 * MIB] = 7
    before = resident_bytes()
    if not populate(buffer):
        pytest.skip("this kernel is older than Linux 5.14")
    assert resident_bytes() - before > BIG // 2
    assert (buffer[5 * MIB : 6 * MIB] == 7).all()


@only_where_pages_are_faulted_in
@needs("mmap")
@pytest.mark.parametrize("nbytes", [192 << 10, 5 * MIB])
def test_fresh_memory_goes_back_to_the_system(nbytes: int) -> None:
    """What is dropped is the system's at once, and what comes next is untouched, whatever was freed before."""
    for _ in range(2):  # a C library that kept memory would begin to with the first one it is given back
        held = [allocate(nbytes) for _ in range(BIG * 2 // nbytes)]
        before = resident_bytes()
        for memory in held:
            memory[:] = 1
        assert resident_bytes() - before > BIG
        del held[::2], memory  # not in one piece, and not the last one
        assert resident_bytes() - before < BIG * 3 // 2
        del held


def test_memory_that_can_not_be_mapped_is_taken_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no more maps for a process, a buffer is there all the same."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    memory = allocate(MIB)
    memory[:] = 3
    assert memory.nbytes == MIB


@needs("discard")
def test_discard_gives_pages_back() -> None:
    """After discard a buffer's pages are the system's (Linux; elsewhere it says no), and it can be written to."""
    buffer = np.full(BIG, 1, dtype=np.uint8)
    if sys.platform != "linux":
        assert not discard(buffer)
        return
    before = resident_bytes()
    assert discard(buffer)
    assert before - resident_bytes() > BIG // 2
    assert not buffer[BIG // 4 : BIG // 2].any()
    buffer[:] = 2


@only_where_a_thread_frees
@needs("discard")
def test_a_buffer_without_room_is_freed_by_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who brings a buffer back does not free the one that goes for it: that would hold a loop for 10 to 24 ms."""
    freed: queue.Queue[tuple[int, int]] = queue.Queue()
    monkeypatch.setattr(
        pages, "discard", lambda buffer: freed.put((threading.get_ident(), buffer.ctypes.data))
    )
    free_list = FreeList(MemoryLimiter(BIG))
    buffers = [np.empty(BIG, dtype=np.uint8) for _ in range(3)]
    for buffer in buffers:  # room for one, and for one more while a push waits for it
        free_list.release(PooledBuffer("frames", buffer, BIG))
    thread, address = freed.get(timeout=10)
    assert thread != threading.get_ident()
    assert address == buffers[0].ctypes.data


@only_where_a_thread_frees
def test_a_buffer_that_no_thread_can_free_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, whoever drops a buffer frees it."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    buffer = np.empty(BIG, dtype=np.uint8)
    end = weakref.ref(buffer)
    pages.free_async(buffer)
    del buffer
    assert end() is None


@only_where_pages_are_faulted_in
@needs("prefault")
def test_pages_are_faulted_in_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a huge page at once, each whole, and the core is left in between."""
    steps: list[tuple[int, int]] = []
    yields: list[int] = []
    monkeypatch.setattr(yielding, "YIELD_INTERVAL_S", 0.0)
    monkeypatch.setattr(yielding, "yield_core", lambda: yields.append(1))
    monkeypatch.setattr(pages, "_advise", lambda at, upto, _: not steps.append((at, upto)))
    buffer = np.empty(BIG, dtype=np.uint8)
    assert populate(buffer)
    assert sum(upto - at for at, upto in steps) > BIG - 2 * 4096
    assert all(upto == at for (_, upto), (at, _) in pairwise(steps))
    assert all(upto % STEP_BYTES == 0 for _, upto in steps[:-1])
    assert max(upto - at for at, upto in steps) <= STEP_BYTES
    assert len(yields) == len(steps)


FORKS = """
import os, sys, threading
import numpy as np
from atomstream.system import memory as pages

begun, freed = threading.Event(), threading.Event()
pages.discard = lambda buffer: begun.set() or threading.Event().wait()
pages.free_async(np.empty(16 << 20, dtype=np.uint8))
begun.wait(20)
child = os.fork()
if child == 0:
    pages.discard = lambda buffer: freed.set()
    pages.free_async(np.empty(16 << 20, dtype=np.uint8))
    os._exit(0 if freed.wait(20) else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@only_where_a_thread_frees
@needs("discard")
def test_a_forked_child_frees_its_buffers_too() -> None:
    """A child that was forked while a thread freed buffers, which it does not have, starts one of its own."""
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKS], check=False, timeout=60)
    assert ended.returncode == 0


def resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_the_next_buffer_is_prepared() -> None:
    """A stream that takes its first buffer finds a second one touched already."""
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
    """Prepared buffers stay within buffer_bytes plus one chunk, permits included (P7)."""
    limiter = MemoryLimiter(4 * BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    permits = [limiter.try_acquire("s", BIG) for _ in range(4)]
    pool.prepare(BIG)
    pool.prepare(2 * BIG)
    assert all(permits)
    assert limiter.used + free_list.nbytes <= limiter.limit + BIG


def test_the_buffer_that_a_waiting_push_will_take_is_kept() -> None:
    """A buffer that comes back when the gate is full again is reused, not dropped."""
    limiter = MemoryLimiter(2 * BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    assert limiter.try_acquire("s", 2 * BIG) is not None
    buffer = np.empty(BIG, dtype=np.uint8)
    pool.release(buffer)
    assert pool.acquire(BIG) is buffer


def test_beside_a_chunk_above_the_limit_nothing_is_kept() -> None:
    """A chunk larger than buffer_bytes is itself the one chunk above it."""
    limiter = MemoryLimiter(BIG)
    free_list = FreeList(limiter)
    pool = BufferPool(free_list)
    assert limiter.try_acquire("s", 4 * BIG) is not None
    pool.release(np.empty(BIG, dtype=np.uint8))
    assert free_list.nbytes == 0
