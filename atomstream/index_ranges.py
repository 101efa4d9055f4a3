"""A set of chunk indices kept as ranges, and its text form ``"3-5,9"``.

A stream of ten hours has hundreds of thousands of chunks and few gaps. The time of every operation depends on the
number of ranges, not of indices, so such sets may be copied, compared and sent in the event loop.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

_PART: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


class IndexSet:
    """A mutable set of integers from 0, stored as sorted ranges that neither overlap nor touch.

    Not thread-safe: threads that share a set need a lock.
    """

    __slots__ = ("_firsts", "_stops")

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self._firsts: list[int] = []
        self._stops: list[int] = []  # one past the last index of each range
        for index in sorted(indices):
            self.add(index)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> IndexSet:
        """The union of ``(first, last)`` pairs, both included, in any order.

        Raises:
            ValueError: a pair whose first is negative or above its last.
        """
        found = cls()
        for first, last in sorted(ranges):
            found.add_range(first, last)
        return found

    @classmethod
    def parse(cls, text: str, *, max_index: int, max_count: int | None = None) -> IndexSet:
        """The set that ``text``, such as ``"3-5,9"``, describes; blanks around parts and empty parts are ignored.

        Raises:
            ValueError: a part is not a range, an index is above ``max_index``, or there are more than
                ``max_count`` indices. The message is half a sentence that follows the name of the text.
        """
        pairs = []
        for part in filter(None, map(str.strip, text.split(","))):
            pair = _pair(part)
            if pair is None or pair[1] > max_index:
                raise ValueError(
                    f"is a list like 3-5,9 of indices from 0 to {max_index}; {part[:32]!r} is not one"
                )
            pairs.append(pair)
        found = cls.from_ranges(pairs)
        if max_count is not None and len(found) > max_count:
            raise ValueError(f"lists {len(found)} indices; at most {max_count} are accepted")
        return found

    @classmethod
    def parse_lenient(cls, text: str, *, max_index: int) -> IndexSet:
        """Like :meth:`parse` for files that a person may have edited: parts that are not valid are ignored."""
        pairs = (_pair(part.strip()) for part in text.split(","))
        return cls.from_ranges(pair for pair in pairs if pair is not None and pair[1] <= max_index)

    def add(self, index: int) -> None:
        """Add one index; adding it again changes nothing."""
        self.add_range(index, index)

    def add_range(self, first: int, last: int) -> None:
        """Add ``first`` to ``last``, both included.

        Raises:
            ValueError: ``first`` is negative or above ``last``.
        """
        if not 0 <= first <= last:
            raise ValueError(f"{first}-{last} is not a range of indices")
        stop = last + 1
        # The ranges low .. high - 1 overlap or touch the new one.
        low, high = bisect_left(self._stops, first), bisect_right(self._firsts, stop)
        if low < high:
            first, stop = min(first, self._firsts[low]), max(stop, self._stops[high - 1])
        self._firsts[low:high] = [first]
        self._stops[low:high] = [stop]

    def discard(self, index: int) -> None:
        """Remove one index; removing an absent one changes nothing."""
        self.discard_range(index, index)

    def discard_range(self, first: int, last: int) -> None:
        """Remove what there is of ``first`` to ``last``, both included."""
        stop = last + 1
        low, high = bisect_right(self._stops, first), bisect_left(self._firsts, stop)
        if first >= stop or low >= high:
            return
        left, right = (self._firsts[low], first), (stop, self._stops[high - 1])
        kept = [part for part in (left, right) if part[0] < part[1]]
        self._firsts[low:high] = [part[0] for part in kept]
        self._stops[low:high] = [part[1] for part in kept]

    def pop_first(self) -> int:
        """Remove and return the lowest index.

        Raises:
            IndexError: the set is empty.
        """
        index = self._firsts[0]
        self.discard(index)
        return index

    @property
    def first(self) -> int:
        """The lowest index; raises IndexError in an empty set."""
        return self._firsts[0]

    @property
    def end(self) -> int:
        """The highest index plus one; 0 in an empty set."""
        return self._stops[-1] if self._stops else 0

    def ranges(self) -> list[tuple[int, int]]:
        """``(first, last)`` of each range, both included, ascending."""
        return [(first, stop - 1) for first, stop in zip(self._firsts, self._stops, strict=True)]

    def gaps(self) -> IndexSet:
        """The indices below :attr:`end` that are not in the set."""
        return _from_bounds(
            (low, high) for low, high in zip([0, *self._stops], self._firsts, strict=False) if low < high
        )

    def text(self, max_chars: int | None = None) -> str:
        """As ``"3-5,9"``; of one longer than ``max_chars`` the first ranges that fit."""
        text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ranges())
        if max_chars is None or len(text) <= max_chars:
            return text
        return text[: max_chars + 1].rpartition(",")[0]

    def copy(self) -> IndexSet:
        """An independent set with the same indices."""
        return _from_bounds(zip(self._firsts, self._stops, strict=True))

    def __or__(self, other: IndexSet) -> IndexSet:
        return IndexSet.from_ranges([*self.ranges(), *other.ranges()])

    def __and__(self, other: IndexSet) -> IndexSet:
        found: list[tuple[int, int]] = []
        a = b = 0
        while a < len(self._firsts) and b < len(other._firsts):
            first = max(self._firsts[a], other._firsts[b])
            stop = min(self._stops[a], other._stops[b])
            if first < stop:
                found.append((first, stop))
            if self._stops[a] <= other._stops[b]:
                a += 1
            else:
                b += 1
        return _from_bounds(found)

    def __sub__(self, other: IndexSet) -> IndexSet:
        end = max(self.end, other.end)
        return self & _from_bounds(
            (low, high)
            for low, high in zip([0, *other._stops], [*other._firsts, end], strict=True)
            if low < high
        )

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        at = bisect_right(self._firsts, index) - 1
        return at >= 0 and index < self._stops[at]

    def __len__(self) -> int:
        return sum(self._stops) - sum(self._firsts)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __iter__(self) -> Iterator[int]:
        for first, stop in zip(tuple(self._firsts), tuple(self._stops), strict=True):
            yield from range(first, stop)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IndexSet):
            return NotImplemented
        return self._firsts == other._firsts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment]  # a set that can be changed has no hash

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"IndexSet({self.text(80)!r})"


def _from_bounds(bounds: Iterable[tuple[int, int]]) -> IndexSet:
    """From ascending (first, stop) pairs that neither overlap nor touch."""
    found = IndexSet()
    for first, stop in bounds:
        found._firsts.append(first)
        found._stops.append(stop)
    return found


def _pair(part: str) -> tuple[int, int] | None:
    match = _PART.fullmatch(part)
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or match[1])
    return (first, last) if first <= last else None
