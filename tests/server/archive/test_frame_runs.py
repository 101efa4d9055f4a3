"""Ranks of stored frames: the cost of reading follows what is stored, not the largest index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atomstream.index_ranges import IndexSet
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.column import COLUMN_CHUNK, Column
from atomstream.server.archive.frame_runs import FrameRuns

FAR = 10_000_000
SIZE = 100_000


def test_ranks_are_positions_among_stored_frames() -> None:
    """Frames of short chunks and of chunks far apart are counted without the holes between them."""
    runs = FrameRuns.of_chunks(IndexSet([0, 1, 2, 5]), 4, {1: 3, 5: 2})
    stored = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 20, 21]
    assert len(runs) == len(stored)
    assert runs.frames(np.arange(len(stored))).tolist() == stored
    assert [runs.rank(frame) for frame in range(30)] == [
        sum(s < frame for s in stored) for frame in range(30)
    ]


def test_a_far_chunk_costs_one_run() -> None:
    """A stream of 10^12 frame numbers of which two are stored has two ranks."""
    runs = FrameRuns.of_chunks(IndexSet([0, FAR]), SIZE, {0: 1, FAR: 1})
    assert runs.frames(np.arange(len(runs))).tolist() == [0, FAR * SIZE]
    assert runs.rank(FAR * SIZE) == 1


def test_no_frames() -> None:
    """An empty stream has no ranks."""
    runs = FrameRuns()
    assert (len(runs), runs.rank(7), runs.frames(np.arange(0)).tolist()) == (0, 0, [])


@pytest.fixture
def column(tmp_path: Path) -> Column:
    return Column(tmp_path / "time", ArchiveFiles(tmp_path / "incoming"), np.dtype("f8"), float("nan"))


def test_values_are_read_at_places_far_apart(column: Column) -> None:
    """Values at any ascending places are read from the files that have them."""
    places = np.array([0, 5, COLUMN_CHUNK - 1, COLUMN_CHUNK, FAR * SIZE])
    for place in places[[0, 2, 4]].tolist():
        column.write([(place, np.array([float(place)]))])
    read = column.read_at(places)
    assert read[[0, 2, 4]].tolist() == places[[0, 2, 4]].tolist()
    assert np.isnan(read[[1, 3]]).all()


def test_empty_values_make_no_file(column: Column, tmp_path: Path) -> None:
    """A chunk's missing frames take no space: values equal to the fill value make no file, but replace earlier ones."""
    padded = np.full(SIZE, np.nan)
    padded[0] = 1.0
    column.write([(0, padded)])
    assert [path.name for path in (tmp_path / "time" / "c").iterdir()] == ["0"]
    column.write([(0, np.full(SIZE, np.nan))])
    assert np.isnan(column.read(0, 10)).all()
