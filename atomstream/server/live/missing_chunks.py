"""Which stored chunks are not in the results of a stream, by reason."""

from __future__ import annotations

from collections.abc import Iterable

from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server.live.messages import MissingChunks

LATE = "late"
"""The chunk was stored after the analysis had passed it: it has values per frame, but is not in the fits."""
UNREADABLE = "unreadable"
"""The file of the chunk is damaged."""
CRASHED = "crashed"
"""The analysis of the chunk failed with an error or with the end of its process, each time that it was tried."""
NO_ANALYSIS = "no_analysis"
"""The analysis could not begin or go on: no process could be started, or each failed."""
REASONS = (LATE, UNREADABLE, CRASHED, NO_ANALYSIS)


class MissingIndices:
    """Indices of chunks by reason. A chunk has one reason, the one that was set last.

    The time of every operation grows with the number of ranges, not of chunks: a stream may have hundreds of thousands
    of chunks, and :meth:`parts` is called for each subscriber of the feed at each change.
    """

    def __init__(self, parts: Iterable[MissingChunks] = ()) -> None:
        self._by_reason: dict[str, IndexSet] = {}
        for part in parts:
            self.add_all(IndexSet.parse(part.chunks, max_index=MAX_CHUNK_INDEX), part.why)

    def add(self, index: int, reason: str) -> None:
        """Add one chunk."""
        for indices in self._by_reason.values():
            indices.discard(index)
        self._by_reason.setdefault(reason, IndexSet()).add(index)

    def add_all(self, indices: IndexSet, reason: str) -> None:
        """Add many chunks."""
        for other in self._by_reason:
            self._by_reason[other] -= indices
        self._by_reason[reason] = self._by_reason.get(reason, IndexSet()) | indices

    def has(self, reason: str) -> bool:
        """True if a chunk is missing for this reason."""
        return bool(self._by_reason.get(reason))

    def copy(self) -> MissingIndices:
        """An independent set with the same chunks."""
        made = MissingIndices()
        made._by_reason = {reason: indices.copy() for reason, indices in self._by_reason.items()}
        return made

    def parts(self) -> list[MissingChunks]:
        """As in messages and on disk, one part for each reason, by the first index."""
        present = [(indices, reason) for reason, indices in self._by_reason.items() if indices]
        return [
            MissingChunks(why=reason, chunks=str(indices), count=len(indices))
            for indices, reason in sorted(present, key=lambda one: one[0].first)
        ]
