"""The history of a line profile in bounded memory: once full, rows are averaged in pairs and the step doubles."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream.results import Plain

ROWS = 1024
STEP_S = 0.5
MAX_COLUMNS = 4096
"""Longest profile that is kept; of a longer one neighbouring values are averaged. 1024 rows of it take 16 MB."""
F32 = npt.NDArray[np.float32]


def _shortened(profile: F32) -> F32:
    if len(profile) <= MAX_COLUMNS:
        return profile
    size = -(-len(profile) // MAX_COLUMNS)
    whole = len(profile) // size * size
    return np.asarray(profile[:whole].reshape(-1, size).mean(axis=1), dtype=np.float32)


@dataclass(slots=True)
class Waterfall:
    """Profiles (columns,) over time, the mean of each ``step_s`` seconds from ``start_s`` on; NaN where none was.

    A profile of another length clears it: the line was moved.
    """

    start_s: float = math.nan
    step_s: float = STEP_S
    _sums: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    _counts: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def add(self, time_s: float, profile: F32) -> None:
        """Add the profile at ``time_s``; times before the start are ignored."""
        if len(profile) == 0 or not math.isfinite(time_s):
            return
        profile = _shortened(profile)
        if self._sums.shape[1:] != profile.shape:
            self.start_s, self.step_s = time_s, STEP_S
            self._sums = np.zeros((ROWS, len(profile)), np.float32)
            self._counts = np.zeros(ROWS, np.int32)
        if time_s < self.start_s:
            return
        while (row := int((time_s - self.start_s) / self.step_s)) >= ROWS:
            self._halve()
        if np.isfinite(profile).all():
            self._sums[row] += profile
            self._counts[row] += 1

    def _halve(self) -> None:
        half = ROWS // 2
        sums, counts = self._sums, self._counts
        self._sums, self._counts = np.zeros_like(sums), np.zeros_like(counts)
        self._sums[:half] = sums[0::2] + sums[1::2]
        self._counts[:half] = counts[0::2] + counts[1::2]
        self.step_s *= 2

    def rows(self) -> F32:
        """The mean profiles (rows, columns) up to the newest one, float32."""
        filled = np.flatnonzero(self._counts)
        end = int(filled[-1]) + 1 if len(filled) else 0
        counts = self._counts[:end, None].astype(np.float32)
        means = np.where(counts > 0, self._sums[:end] / np.maximum(counts, 1), np.nan)
        return means.astype(np.float32)

    def follow(self, other: Waterfall) -> None:
        """Take over the rows of ``other`` that are later than the newest one here."""
        rows, newest = other.rows(), self.start_s + self.step_s * len(self.rows())
        for number, row in enumerate(rows):
            at = other.start_s + other.step_s * (number + 0.5)
            if not at < newest:
                self.add(at, row)

    def plain(self) -> Plain:
        """The whole content as plain values, for storing."""
        return {
            "start_s": self.start_s,
            "step_s": self.step_s,
            "columns": self._sums.shape[1],
            "rows": self.rows().astype("<f4").tobytes(),
        }

    @classmethod
    def from_plain(cls, plain: Plain) -> Waterfall:
        """The waterfall that :meth:`plain` described, each row as one profile.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        made = cls(float(plain["start_s"]), float(plain["step_s"]))
        columns = int(plain["columns"])
        rows: Any = np.frombuffer(plain["rows"], dtype="<f4").reshape(-1, columns) if columns else None
        if rows is not None:
            if len(rows) > ROWS or not 0.0 < made.step_s < math.inf:
                raise ValueError("its number of rows or its step is impossible")
            made._sums = np.zeros((ROWS, columns), np.float32)
            made._counts = np.zeros(ROWS, np.int32)
            known = np.isfinite(rows).all(axis=1)
            made._sums[: len(rows)][known] = rows[known]
            made._counts[: len(rows)] = known
        return made
