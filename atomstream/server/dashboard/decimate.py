"""Long traces for a screen: lowest, highest and mean value of each bucket, holes left out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Per bucket, each (B,): lowest, highest and summed finite value, and how many; NaN where there is none."""

    low: F64
    high: F64
    total: F64
    count: F64

    @property
    def mean(self) -> F64:
        """Mean of the finite values, (B,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.total / self.count, dtype=np.float64)


def bucketed(values: F64, size: int) -> Buckets:
    """Cut ``values`` (N,) into buckets of ``size``; the last may hold fewer. B = ceil(N / size)."""
    table = _padded(values, size, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN alone: then NaN is the answer
        low, high = np.fmin.reduce(table, axis=1), np.fmax.reduce(table, axis=1)
    finite = ~np.isnan(table)
    total = np.where(finite, table, 0.0).sum(axis=1)
    return Buckets(low, high, total, finite.sum(axis=1).astype(np.float64))


def merged(buckets: Buckets, size: int) -> Buckets:
    """Buckets of ``size`` buckets each: what :func:`bucketed` gives with that many times the size."""
    return Buckets(
        low=np.fmin.reduce(_padded(buckets.low, size, np.nan), axis=1),
        high=np.fmax.reduce(_padded(buckets.high, size, np.nan), axis=1),
        total=_padded(buckets.total, size, 0.0).sum(axis=1),
        count=_padded(buckets.count, size, 0.0).sum(axis=1),
    )


def joined(parts: list[Buckets]) -> Buckets:
    """Buckets one after the other."""
    if not parts:
        none = np.empty(0)
        return Buckets(none, none, none, none)
    return Buckets(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("low", "high", "total", "count")
        )
    )


def _padded(values: F64, size: int, fill: float) -> F64:
    rows = -(-len(values) // size)
    whole = np.full(rows * size, fill)
    whole[: len(values)] = values
    return whole.reshape(rows, size)
