"""Downsampled reading of columns: any range and resolution, while they grow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.downsampling import FINE, ColumnReader, bucketed, column_dimension, fitting
from atomstream.server.archive.stream_archive import StreamArchive

N = 2 * COLUMN_CHUNK + 1000


@pytest.fixture
def archive(tmp_path: Path) -> StreamArchive:
    """A stream with one array of results, three files long."""
    made = StreamArchive.create(tmp_path / "stream", {})
    made.write_values("trace", 0, values(), "own")
    return made


def values() -> np.ndarray:
    """The values of the array."""
    return np.sin(np.arange(N) / 50.0) + np.arange(N) / 1e4


def column(archive: StreamArchive) -> Path:
    """The folder of the array."""
    return archive.folder / "frames.zarr" / "trace"


@pytest.mark.parametrize("span", [(0, N), (5, 6), (COLUMN_CHUNK - 3, COLUMN_CHUNK + 3), (N - 10, N), (7, 7)])
def test_any_range(archive: StreamArchive, span: tuple[int, int]) -> None:
    """Values are read as they were written, across files."""
    np.testing.assert_array_equal(ColumnReader().values(column(archive), *span), values()[slice(*span)])


def test_values_beyond_the_end_are_nan(archive: StreamArchive) -> None:
    """Values that were never written, or of an array that does not exist, are NaN."""
    got = ColumnReader().values(column(archive), N - 1, N + 2)
    assert np.isnan(got).tolist() == [False, True, True]
    assert np.isnan(ColumnReader().values(archive.folder / "frames.zarr" / "nothing", 0, 3)).all()


@pytest.mark.parametrize("points", [2, 100, 1000, 4000])
@pytest.mark.parametrize("span", [(0, N), (FINE, N - 5), (1000, 1010)])
def test_buckets_match_the_values(archive: StreamArchive, span: tuple[int, int], points: int) -> None:
    """Cached buckets equal buckets of the values; there are at most as many as requested."""
    size, start = fitting(*span, points)
    reader = ColumnReader()
    for _ in range(2):  # the second time from the cache
        got = reader.buckets(column(archive), start, span[1], size)
        want = bucketed(values()[start : -(-span[1] // FINE) * FINE if size >= FINE else span[1]], size)
        np.testing.assert_allclose(got.high, want.high)
        np.testing.assert_allclose(got.mean, want.mean)
        assert len(got.mean) <= points


def test_the_cache_follows_the_file(archive: StreamArchive) -> None:
    """A value written into a cached file is read at once."""
    reader = ColumnReader()
    for number in range(3):
        os.utime(column(archive) / "c" / str(number), (1e9, 1e9))
    assert np.nanmax(reader.buckets(column(archive), 0, N, FINE).high) < 10
    archive.write_values("trace", 100, np.array([99.0]), "own")
    assert np.nanmax(reader.buckets(column(archive), 0, N, FINE).high) == 99.0


def test_buckets_stay_on_one_grid() -> None:
    """While the range moves, buckets cover the same values, so a live chart does not flicker."""
    sizes = {fitting(start, start + 50_000, 500)[0] for start in range(0, 300, 7)}
    assert len(sizes) == 1
    (size,) = sizes
    assert all(fitting(start, start + 50_000, 500)[1] % size == 0 for start in range(0, 3000, 7))


def test_other_arrays_and_damaged_documents(archive: StreamArchive) -> None:
    """The dimension comes from the array's document; an array with a damaged one does not exist."""
    assert column_dimension(column(archive)) == "own"
    (column(archive) / "zarr.json").write_bytes(b"[1, 2")
    assert column_dimension(column(archive)) is None
    assert np.isnan(ColumnReader().values(column(archive), 0, 3)).all()
