"""Which chunk is analysed when: in index order, a gap waited for, a late one filled in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atomstream.server.live.chunk_order import NextStep, ReorderBuffer


def taken(order: ReorderBuffer, now: float) -> list[NextStep]:
    """All steps there are now."""
    found = []
    while (step := order.take(now)) is not None:
        found.append(step)
    return found


def test_chunks_come_in_order_whatever_order_they_arrive_in() -> None:
    """An early chunk waits for those before it."""
    order = ReorderBuffer(5.0)
    order.add(1)
    assert taken(order, 0.0) == []
    order.add(0)
    assert taken(order, 1.0) == [NextStep("chunk", 0, 0), NextStep("chunk", 1, 1)]


def test_a_gap_is_waited_for_from_when_it_shows() -> None:
    """A missing chunk is passed once the wait is over, counted from the arrival of a later one; not before."""
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
    """A chunk whose turn is over is filled in, the first time that it comes."""
    order = ReorderBuffer(0.5)
    order.add(1)
    taken(order, 0.0)
    assert [step.kind for step in taken(order, 1.0)] == ["gap", "chunk"]
    order.add(0)
    order.add(0)
    order.add(1)
    assert taken(order, 1.0) == [NextStep("late", 0, 0)]


def test_at_the_end_nothing_is_waited_for() -> None:
    """Once no more comes a gap is passed at once."""
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
def test_each_chunk_has_its_turn_once(arrival: list[int], absent: set[int], pauses: list[float]) -> None:
    """Whatever arrives when: each chunk is analysed or filled in once, and only absent ones stay passed."""
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
    assert order.passed == {index for index in absent if index < max(present, default=-1)}
