"""Order in which the chunks of a stream are analysed, and when a missing chunk is skipped. No I/O.

Chunks are analysed in index order. If a chunk is missing while a later one is stored, the analysis waits for it for
some seconds and then skips it. If it is stored after that, it is late: only its per-frame values are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atomstream.index_ranges import IndexSet


@dataclass(frozen=True, slots=True)
class NextStep:
    """Analyse chunk ``first``, skip the missing chunks ``first`` .. ``last``, or measure the late chunk ``first``."""

    kind: Literal["chunk", "gap", "late"]
    first: int
    last: int


class ReorderBuffer:
    """The order of one stream, from chunk ``next_index`` on. All times are monotonic seconds.

    ``passed`` are the smaller indices that were skipped.
    """

    def __init__(self, gap_wait_s: float, next_index: int = 0, passed: IndexSet | None = None) -> None:
        self.next_index = next_index
        self.passed = IndexSet() if passed is None else passed
        self.ended = False
        """Set at the end of the stream: then missing chunks are skipped at once."""
        self._gap_wait_s = gap_wait_s
        self._ahead = IndexSet()
        self._late = IndexSet()
        self._missed_since: float | None = None

    @property
    def backlog(self) -> int:
        """Number of stored chunks that are not analysed yet."""
        return len(self._ahead) + len(self._late)

    @property
    def waiting(self) -> IndexSet:
        """Indices of the stored chunks that are not analysed yet."""
        return self._ahead | self._late

    def add(self, index: int) -> None:
        """Add a stored chunk. A second call with the same index has no effect."""
        if index >= self.next_index:
            self._ahead.add(index)
        elif index in self.passed:
            self.passed.discard(index)
            self._late.add(index)

    def add_all(self, indices: IndexSet) -> None:
        """Add many chunks, for the cost of their ranges."""
        late = self.passed & indices
        self.passed -= late
        self._late |= late
        ahead = indices.copy()
        ahead.discard_range(0, self.next_index - 1)
        self._ahead |= ahead

    def next_step(self, now: float) -> NextStep | None:
        """The next step; None if there is nothing to do until :meth:`due` or the next chunk."""
        if self.next_index in self._ahead:
            return self._pop_chunk()
        if self._ahead and self._gap_is_over(now):
            return self._pass()
        if self._late:
            index = self._late.pop_first()
            return NextStep("late", index, index)
        return None

    def _pop_chunk(self) -> NextStep:
        index = self.next_index
        self._ahead.discard(index)
        self._missed_since = None
        self.next_index += 1
        return NextStep("chunk", index, index)

    def _gap_is_over(self, now: float) -> bool:
        if self._missed_since is None:
            self._missed_since = now
        return self.ended or now >= self._missed_since + self._gap_wait_s

    def _pass(self) -> NextStep:
        first, last = self.next_index, self._ahead.first - 1
        self.skip(first, last)
        return NextStep("gap", first, last)

    def skip(self, first: int, last: int) -> None:
        """Count ``first`` .. ``last`` as skipped, also those that are stored."""
        self.passed.add_range(first, last)
        self.next_index = max(self.next_index, last + 1)
        self._ahead.discard_range(0, self.next_index - 1)
        self._missed_since = None

    def due(self, now: float) -> float | None:
        """Seconds until the present gap is skipped; None if there is no gap."""
        if self._missed_since is None or not self._ahead:
            return None
        return max(0.0, self._missed_since + self._gap_wait_s - now)
