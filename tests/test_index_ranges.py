"""IndexSet: the same answers as a plain set, at a cost that depends on its ranges alone."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.index_ranges import IndexSet
from atomstream.service.payloads import stored_chunks

INDICES = st.sets(st.integers(0, 40))
STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 8)))
FAR = 10**9


@given(STEPS)
def test_adding_and_removing_ranges(steps: list[tuple[bool, int, int]]) -> None:
    """After any additions and removals: the members, length, bounds, gaps, ranges and text of a plain set."""
    found, plain = IndexSet(), set[int]()
    for adding, first, more in steps:
        if adding:
            found.add_range(first, first + more)
            plain.update(range(first, first + more + 1))
        else:
            found.discard_range(first, first + more)
            plain.difference_update(range(first, first + more + 1))
    assert list(found) == sorted(plain)
    assert (len(found), bool(found), found.end) == (len(plain), bool(plain), max(plain, default=-1) + 1)
    assert [index for index in range(-1, 60) if index in found] == sorted(plain)
    assert list(found.gaps()) == sorted(set(range(found.end)) - plain)
    ranges = found.ranges()
    assert [index for first, last in ranges for index in range(first, last + 1)] == sorted(plain)
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    assert IndexSet.parse(str(found), max_index=60) == found == IndexSet(plain)


@given(INDICES, INDICES)
def test_algebra(one: set[int], other: set[int]) -> None:
    """Union, intersection and difference are those of plain sets, and change neither operand."""
    a, b = IndexSet(one), IndexSet(other)
    assert list(a | b) == sorted(one | other)
    assert list(a & b) == sorted(one & other)
    assert list(a - b) == sorted(one - other)
    assert (list(a), list(b)) == (sorted(one), sorted(other))
    copy = a.copy()
    copy.add(100)
    assert 100 not in a


@given(st.sets(st.integers(0, 40), min_size=1))
def test_taking_the_lowest(indices: set[int]) -> None:
    """``first`` and ``pop_first`` are the lowest index, until the set is empty."""
    found, taken = IndexSet(indices), []
    while found:
        assert found.first == min(found)
        taken.append(found.pop_first())
    assert taken == sorted(indices)
    with pytest.raises(IndexError):
        found.pop_first()


@given(INDICES, st.integers(0, 60))
def test_text_that_is_cut_ends_between_ranges(indices: set[int], limit: int) -> None:
    """A text with a length limit is made of the first whole ranges that fit, as many as do."""
    found = IndexSet(indices)
    text, parts = found.text(limit), str(found).split(",")
    assert len(text) <= limit
    n = len(text.split(",")) if text else 0
    assert text == ",".join(parts[:n])
    assert n == len(parts) or len(",".join(parts[: n + 1])) > limit or not found


@pytest.mark.parametrize(
    "text", ["x", "-1", "7-", "8-6", "½", "1_0", "3-5-7", "0x3", "1" * 5000, "11", "0-11", "+1"]
)
def test_invalid_text_is_refused(text: str) -> None:
    """A part that is not a range, or above the highest index, is a ValueError that quotes its beginning."""
    with pytest.raises(ValueError, match="indices from 0 to 10"):
        IndexSet.parse(f"3-5,{text}", max_index=10)


def test_lenient_text_ignores_what_is_invalid() -> None:
    """In a file that somebody edited, only the valid parts count."""
    text = "x, 3-5, -1, 7-, 9, 8-6, ½, 70"
    assert list(IndexSet.parse_lenient(text, max_index=60)) == [3, 4, 5, 9]


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (4, 3)])
def test_impossible_ranges_are_refused(first: int, last: int) -> None:
    """A negative index or a reversed range is a ValueError, and changes nothing."""
    found = IndexSet([7])
    with pytest.raises(ValueError, match="is not a range"):
        found.add_range(first, last)
    assert list(found) == [7]


def test_long_ranges_cost_nothing() -> None:
    """Sets of 10^9 indices take a few kB, whatever is done with them."""
    tracemalloc.start()
    try:
        found = IndexSet.parse(f"0-{FAR},{2 * FAR}-{3 * FAR}", max_index=4 * FAR)
        other = IndexSet.from_ranges([(5, FAR + 5), (3 * FAR, 4 * FAR)])
        assert len(found) == 2 * FAR + 2
        assert str(found.gaps()) == f"{FAR + 1}-{2 * FAR - 1}"
        assert str(found | other) == f"0-{FAR + 5},{2 * FAR}-{4 * FAR}"
        assert str(found & other) == f"5-{FAR},{3 * FAR}"
        assert str(found - other) == f"0-4,{2 * FAR}-{3 * FAR - 1}"
        found.discard(FAR // 2)
        assert (FAR // 2 in found, found.end, found.pop_first()) == (False, 3 * FAR + 1, 0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_a_list_of_losses_costs_what_its_ranges_cost() -> None:
    """99,999 lost indices in one range are read in a few kB; one more than the limit is refused as cheaply."""
    tracemalloc.start()
    try:
        found = IndexSet.parse("1-99999", max_index=10**7, max_count=100_000)
        with pytest.raises(ValueError, match="at most 100000"):
            IndexSet.parse("0-10000000", max_index=10**7, max_count=100_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found), found.ranges()) == (99_999, [(1, 99_999)])
    assert peak < 50_000


@pytest.mark.parametrize("text", ["0-99999999999", "3-x", "5-3"])
def test_a_reply_of_stored_chunks_is_bounded(text: str) -> None:
    """A server's list of stored chunks is refused if it has indices that no stream can have."""
    with pytest.raises(ValueError, match="'stored' is a list like 3-5,9"):
        stored_chunks({"stored": text})
