"""Which chunk indices below the highest one are missing, kept as ranges.

A stream of hours has hundreds of thousands of chunks and hardly a gap; one absurd index leaves one gap of
millions. Kept as ranges, both cost next to nothing at each commit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence


class IndexSet:
    """The complement of a growing set of indices, within 0 .. its highest."""

    def __init__(self, indices: Iterable[int] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []  # [first, stop), ascending, never touching
        self.end = 0
        """The highest index added, plus one."""
        for index in sorted(indices):
            self.add(index)

    def add(self, index: int) -> None:
        """Take ``index`` out of the gaps; adding it again changes nothing."""
        if index >= self.end:
            if index > self.end:
                self._ranges.append((self.end, index))
            self.end = index + 1
            return
        place = self._place(index)
        if place is not None:
            first, stop = self._ranges[place]
            halves = [(first, index), (index + 1, stop)]
            self._ranges[place : place + 1] = [half for half in halves if half[0] < half[1]]

    def _place(self, index: int) -> int | None:
        """Which of the ranges ``index`` is in."""
        place = bisect_right(self._ranges, (index, self.end)) - 1
        return place if place >= 0 and index < self._ranges[place][1] else None

    def added(self, index: int) -> bool:
        """Whether ``index`` was added."""
        return 0 <= index < self.end and self._place(index) is None

    def ranges(self) -> list[tuple[int, int]]:
        """(first, last) of each gap, both included, ascending."""
        return [(first, stop - 1) for first, stop in self._ranges]

    def __iter__(self) -> Iterator[int]:
        for first, stop in self._ranges:
            yield from range(first, stop)

    def __str__(self) -> str:
        """As ``"3-5,9"``, the way that indices are written in headers too."""
        return _text(self.ranges())

    def present(self) -> list[tuple[int, int]]:
        """(first, last) of each run of indices that were added, ascending."""
        starts = [0, *(stop for _, stop in self._ranges)]
        stops = [*(first for first, _ in self._ranges), self.end]
        return [(a, b - 1) for a, b in zip(starts, stops, strict=True) if a < b]

    def present_text(self) -> str:
        """The same as ``"3-5,9"``."""
        return _text(self.present())


def _text(ranges: Iterable[tuple[int, int]]) -> str:
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def parse_ranges(text: str) -> Iterator[int]:
    """The indices of ``"3-5,9"``, one by one; parts that are not ranges are passed over."""
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            yield from range(int(first), int(last or first) + 1)


def index_ranges(indices: Sequence[int]) -> str:
    """Write sorted indices as HTTP-like ranges: ``[3, 4, 5, 9]`` becomes ``"3-5,9"``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
