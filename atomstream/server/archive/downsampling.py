"""Downsampled reading of columns: any time range of a growth of hours, at a screen's resolution.

A column is a Zarr v3 array: little-endian files of ``COLUMN_CHUNK`` values (see
:mod:`atomstream.server.archive.column`). Each file is reduced once to buckets of ``FINE`` values, which are cached
until the file changes.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.frame_runs import Numbers
from atomstream.system.own_files import DOCUMENT_BYTES, open_file, read_plain

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class MinMaxBuckets:
    """Minimum, maximum, sum and number of the finite values of each bucket, each (B,); NaN for an empty one."""

    low: F64
    high: F64
    total: F64
    count: F64

    @property
    def mean(self) -> F64:
        """Mean of the finite values, (B,)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.total / self.count, dtype=np.float64)


def bucketed(values: F64, size: int) -> MinMaxBuckets:
    """Group ``values`` (N,) into buckets of ``size``; the last one may have fewer. B = ceil(N / size)."""
    table = _padded(values, size, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an empty bucket: the result is NaN
        low, high = np.fmin.reduce(table, axis=1), np.fmax.reduce(table, axis=1)
    finite = ~np.isnan(table)
    total = np.where(finite, table, 0.0).sum(axis=1)
    return MinMaxBuckets(low, high, total, finite.sum(axis=1).astype(np.float64))


def merged(buckets: MinMaxBuckets, size: int) -> MinMaxBuckets:
    """Join each ``size`` buckets into one: the same as :func:`bucketed` with ``size`` times the bucket size."""
    return MinMaxBuckets(
        low=np.fmin.reduce(_padded(buckets.low, size, np.nan), axis=1),
        high=np.fmax.reduce(_padded(buckets.high, size, np.nan), axis=1),
        total=_padded(buckets.total, size, 0.0).sum(axis=1),
        count=_padded(buckets.count, size, 0.0).sum(axis=1),
    )


def joined(parts: list[MinMaxBuckets]) -> MinMaxBuckets:
    """Concatenate buckets."""
    if not parts:
        none = np.empty(0)
        return MinMaxBuckets(none, none, none, none)
    return MinMaxBuckets(
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


FINE = 64
"""Values in a cached bucket. A range that needs smaller buckets is short, and its values are read."""

KEPT_FILES = 8192
"""Largest number of files whose buckets are cached: 8 kB each, enough for 10 h of 30 columns."""

SETTLED_NS = 1_000_000_000
"""Least time since a file's last change, in ns, for its buckets to be cached."""


class ColumnReader:
    """Reads columns of any stream; thread-safe. Values of missing columns and files are NaN."""

    def __init__(self) -> None:
        self._sums: OrderedDict[tuple[str, int], tuple[int, MinMaxBuckets]] = OrderedDict()
        self._lock = Lock()

    def values(self, column: Path, start: int, stop: int, files: Sequence[int] | None = None) -> F64:
        """Values ``start`` .. ``stop`` of the column in that folder, (stop - start,).

        With ``files`` (ascending file numbers) these are positions in those files, one file after the other, instead
        of frame numbers: so a gap between two files has no length.
        """
        out = np.full(max(0, stop - start), np.nan)
        dtype = column_dtype(column)
        if dtype is None:
            return out
        for slot in range(start // COLUMN_CHUNK, -(-stop // COLUMN_CHUNK)):
            check_wanted()
            number, first = slot if files is None else files[slot], slot * COLUMN_CHUNK
            low, high = max(start, first), min(stop, first + COLUMN_CHUNK)
            piece = _read(column, number, dtype, low - first, high - first)
            if piece is not None:
                out[low - start : high - start] = piece
        return out

    def values_at(self, column: Path, frames: Numbers) -> F64:
        """The values at these ascending frame numbers. Only the files that have them are read."""
        out, numbers = np.full(len(frames), np.nan), frames // COLUMN_CHUNK
        dtype = column_dtype(column)
        bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(frames)]
        if dtype is None or not len(frames):
            return out
        for first, stop in itertools.pairwise(bounds):
            check_wanted()
            inside = frames[first:stop] - numbers[first] * COLUMN_CHUNK
            low = int(inside[0])
            piece = _read(column, int(numbers[first]), dtype, low, int(inside[-1]) + 1)
            if piece is not None:
                out[first:stop] = piece[inside - low]
        return out

    def buckets(
        self, column: Path, start: int, stop: int, size: int, files: Sequence[int] | None = None
    ) -> MinMaxBuckets:
        """The values ``start`` .. ``stop`` in buckets of ``size`` values; with ``files`` as in :meth:`values`.

        If ``size`` is at least ``FINE``, then ``start`` and ``size`` must be multiples of it (see :func:`fitting`).
        """
        if size < FINE:
            return bucketed(self.values(column, start, stop, files), size)
        fine = self._fine(column, start // FINE, -(-stop // FINE), files)
        return merged(fine, size // FINE)

    def _fine(self, column: Path, start: int, stop: int, files: Sequence[int] | None) -> MinMaxBuckets:
        per_file = COLUMN_CHUNK // FINE
        dtype, parts = column_dtype(column), []
        for slot in range(start // per_file, -(-stop // per_file)):
            check_wanted()
            sums = self._file_sums(column, slot if files is None else files[slot], dtype)
            low, high = max(0, start - slot * per_file), min(per_file, stop - slot * per_file)
            parts.append(
                MinMaxBuckets(
                    sums.low[low:high], sums.high[low:high], sums.total[low:high], sums.count[low:high]
                )
            )
        return joined(parts)

    def _file_sums(self, column: Path, number: int, dtype: np.dtype[Any] | None) -> MinMaxBuckets:
        changed, key = _changed(column, number), (str(column), number)
        with self._lock:
            cached = self._sums.get(key)
            if cached is not None and cached[0] == changed:
                self._sums.move_to_end(key)
                return cached[1]
        values = None if dtype is None else _read(column, number, dtype, 0, COLUMN_CHUNK)
        if values is None:
            return bucketed(np.full(COLUMN_CHUNK, np.nan), FINE)
        sums = bucketed(values, FINE)
        self._keep(key, changed, sums)
        return sums

    def _keep(self, key: tuple[str, int], changed: int, sums: MinMaxBuckets) -> None:
        # Modification times have a resolution of milliseconds: a second change may get the same time.
        if time.time_ns() - changed < SETTLED_NS:
            return
        with self._lock:
            self._sums[key] = (changed, sums)
            while len(self._sums) > KEPT_FILES:
                self._sums.popitem(last=False)


def _changed(column: Path, number: int) -> int:
    try:
        return (column / "c" / str(number)).stat().st_mtime_ns
    except OSError:
        return 0


def fitting(start: int, stop: int, points: int) -> tuple[int, int]:
    """The bucket size and the start that divide ``start`` .. ``stop`` into at most ``points`` buckets.

    The start is a multiple of the size, so a bucket covers the same values while the range moves: a live chart
    does not flicker.
    """
    size = max(1, -(-(stop - start) // max(1, points - 1)))
    if size >= FINE:
        size = -(-size // FINE) * FINE
    return size, start // size * size


def column_files(column: Path) -> list[int]:
    """The numbers of the files that a column has, ascending: file k has the values from k * ``COLUMN_CHUNK`` on."""
    try:
        names = os.listdir(column / "c")
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdecimal())


def column_dtype(column: Path) -> np.dtype[Any] | None:
    """The dtype of a column, None if it does not exist."""
    try:
        dtype: np.dtype[Any] = np.dtype(_document(column)["data_type"]).newbyteorder("<")
    except (KeyError, TypeError):
        return None
    return dtype


def column_dimension(column: Path) -> str | None:
    """The dimension of a one-dimensional array, None for any other or a missing one."""
    names = _document(column).get("dimension_names")
    return str(names[0]) if isinstance(names, list) and len(names) == 1 else None


def _document(column: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_plain(column / "zarr.json", DOCUMENT_BYTES))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _read(column: Path, number: int, dtype: np.dtype[Any], low: int, high: int) -> F64 | None:
    try:
        with open_file(column / "c" / str(number), "rb") as file:
            file.seek(low * dtype.itemsize)
            raw = file.read((high - low) * dtype.itemsize)
    except OSError:
        return None
    if len(raw) != (high - low) * dtype.itemsize:
        return None
    return np.frombuffer(raw, dtype=dtype).astype(np.float64)
