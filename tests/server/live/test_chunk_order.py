"""Order of the analysis: by index; a gap is waited for, and a late chunk is filled in."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from atomstream.index_ranges import IndexSet
from atomstream.server.live.chunk_order import NextStep, ReorderBuffer


def taken(order: ReorderBuffer, now: float) -> list[NextStep]:
    """All steps that are possible now."""
    found = []
    while (step := order.next_step(now)) is not None:
        found.append(step)
    return found


def test_chunks_are_returned_in_order() -> None:
    """An early chunk waits for those before it."""
    order = ReorderBuffer(5.0)
    order.add(1)
    assert taken(order, 0.0) == []
    order.add(0)
    assert taken(order, 1.0) == [NextStep("chunk", 0, 0), NextStep("chunk", 1, 1)]


def test_the_wait_for_a_gap_starts_with_a_later_chunk() -> None:
    """A missing chunk is skipped after the wait, which starts when a later chunk arrives."""
    order = ReorderBuffer(5.0)
    order.add(0)
    taken(order, 0.0)
    assert order.due(100.0) is None
    order.add(3)
    assert taken(order, 100.0) == []
    assert order.due(101.0) == 4.0
    assert taken(order, 104.9) == []
    assert taken(order, 105.0) == [NextStep("gap", 1, 2), NextStep("chunk", 3, 3)]


def test_a_late_chunk_is_filled_in_once() -> None:
    """A skipped chunk is filled in, the first time it arrives."""
    order = ReorderBuffer(0.5)
    order.add(1)
    taken(order, 0.0)
    assert [step.kind for step in taken(order, 1.0)] == ["gap", "chunk"]
    order.add(0)
    order.add(0)
    order.add(1)
    assert taken(order, 1.0) == [NextStep("late", 0, 0)]


def test_at_the_end_gaps_are_skipped() -> None:
    """Once no more chunks come, a gap is skipped at once."""
    order = ReorderBuffer(5.0)
    order.add(2)
    assert taken(order, 0.0) == []
    order.ended = True
    assert taken(order, 0.0) == [NextStep("gap", 0, 1), NextStep("chunk", 2, 2)]


@given(
    st.permutations(range(12)),
    st.sets(st.integers(0, 11)),
    st.lists(st.floats(0, 4), min_size=12, max_size=12),
)
def test_each_chunk_is_returned_once(arrival: list[int], absent: set[int], pauses: list[float]) -> None:
    """In any order of arrival each chunk is analysed or filled in once, and only missing ones stay skipped."""
    order, now, steps = ReorderBuffer(5.0), 0.0, []
    present = [index for index in arrival if index not in absent]
    for index, pause in zip(present, pauses, strict=False):
        order.add(index)
        now += pause
        steps += taken(order, now)
    order.ended = True
    steps += taken(order, now)
    once = [step.first for step in steps if step.kind != "gap"]
    assert sorted(once) == sorted(present)
    assert [s.first for s in steps if s.kind == "chunk"] == sorted(
        s.first for s in steps if s.kind == "chunk"
    )
    assert set(order.passed) == {index for index in absent if index < max(present, default=-1)}


def test_a_long_stream_is_resumed_by_ranges() -> None:
    """Stored chunks are added, and a gap of 10^9 is skipped and remembered, without one entry per index."""
    far = 10**9
    tracemalloc.start()
    try:
        order = ReorderBuffer(5.0, next_index=360_000, passed=IndexSet([7]))
        order.ended = True
        order.add_all(IndexSet.from_ranges([(0, 719_999), (far, far)]))
        assert order.backlog == 360_002
        assert order.next_step(0.0) == NextStep("chunk", 360_000, 360_000)
        order.add_all(IndexSet.from_ranges([(0, far)]))
        order.skip(360_001, far)
        assert taken(order, 0.0) == [NextStep("late", 7, 7)]
        order.add(far)
        assert order.next_step(0.0) == NextStep("late", far, far)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000
