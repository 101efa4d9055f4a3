"""Memory that is mapped, populated and returned to the system."""

from __future__ import annotations

import mmap
import sys
from itertools import pairwise

import numpy as np
import pytest

from atomstream.system import memory as pages
from atomstream.system import scheduling as yielding
from atomstream.system.memory import allocate, populate
from atomstream.system.scheduling import STEP_BYTES
from tests.system.tuning_marks import needs

MIB = 1 << 20
BIG = 16 * MIB
only_where_pages_are_faulted_in = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux can populate pages without changing them"
)


def resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


@only_where_pages_are_faulted_in
@needs("prefault")
def test_populate_makes_pages_resident_and_keeps_bytes() -> None:
    """After populate the pages of a buffer are resident, and its content is unchanged."""
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
def test_freed_memory_returns_to_the_system(nbytes: int) -> None:
    """Deleted memory returns to the system at once, and new memory is untouched."""
    for _ in range(2):  # a C library that caches freed memory would cache it in the first round
        held = [allocate(nbytes) for _ in range(BIG * 2 // nbytes)]
        before = resident_bytes()
        for memory in held:
            memory[:] = 1
        assert resident_bytes() - before > BIG
        del held[::2], memory  # not in one piece, and not the last one
        assert resident_bytes() - before < BIG * 3 // 2
        del held


def test_allocation_works_without_memory_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system refuses another memory map, a buffer is allocated in another way."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    memory = allocate(MIB)
    memory[:] = 3
    assert memory.nbytes == MIB


@only_where_pages_are_faulted_in
@needs("prefault")
def test_pages_are_faulted_in_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one huge page is populated at a time, always a whole one, and the core is yielded between them."""
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
