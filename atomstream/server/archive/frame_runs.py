"""Which frames of a stream are stored, as runs of consecutive frame numbers.

A frame's number is its chunk's index times the chunk size plus its place in the chunk. One chunk with a large index
makes the largest number huge, although little is stored. So whatever reads a long part of a stream counts *ranks*: the
rank of a frame is the number of stored frames before it. In a stream without gaps it equals the frame's number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from atomstream.index_ranges import IndexSet

Numbers = npt.NDArray[np.int64]


class FrameRuns:
    """An immutable set of frame numbers. ``runs`` are (first, stop) pairs, ascending and without overlap."""

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        table = np.array(list(runs), dtype=np.int64).reshape(-1, 2)
        self._firsts: Numbers = table[:, 0]
        self._ranks: Numbers = np.concatenate([[0], np.cumsum(table[:, 1] - table[:, 0])])

    @classmethod
    def of_chunks(cls, stored: IndexSet, chunk_size: int, partial: Mapping[int, int]) -> FrameRuns:
        """The frames of the chunks ``stored``, each with ``chunk_size`` frames or those that ``partial`` names."""
        runs: list[tuple[int, int]] = []
        short = sorted(index for index in partial if index in stored)
        at = 0
        for first, last in stored.ranges():
            start = first * chunk_size
            while at < len(short) and short[at] <= last:
                index = short[at]
                runs.append((start, index * chunk_size + partial[index]))
                start, at = (index + 1) * chunk_size, at + 1
            if start < (last + 1) * chunk_size:
                runs.append((start, (last + 1) * chunk_size))
        return cls(runs)

    def __len__(self) -> int:
        return int(self._ranks[-1])

    def rank(self, frame: int) -> int:
        """The number of stored frames with a number below ``frame``."""
        run = int(np.searchsorted(self._firsts, frame, side="right")) - 1
        if run < 0:
            return 0
        return int(min(self._ranks[run] + frame - self._firsts[run], self._ranks[run + 1]))

    def frames(self, ranks: Numbers) -> Numbers:
        """The frame numbers of these ranks, each from 0 to ``len(self) - 1``."""
        if not len(self._firsts):
            return np.zeros(0, np.int64)
        run = np.searchsorted(self._ranks, ranks, side="right") - 1
        return np.asarray(self._firsts[run] + ranks - self._ranks[run], dtype=np.int64)
