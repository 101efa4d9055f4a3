"""Arrays of results: visible at once, durable after a sync."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from atomstream.server.archive.stream_archive import StreamArchive
from tests.server.archive.archive_helpers import commit, new_archive


@pytest.fixture
def archive(tmp_path: Path) -> StreamArchive:
    """An archive with two chunks of frames."""
    made = new_archive(tmp_path)
    commit(made, 0)
    commit(made, 1)
    return made


def test_readers_see_a_write_at_once(archive: StreamArchive) -> None:
    """An array exists from its first number on, is as long as the frames, and is NaN where nothing was written."""
    n = archive.n_frames()
    archive.results.write(1, {"rate": np.array([np.nan]), "spacing": np.array([46.25])}, {"spacing": "px"})
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
    assert "rate" not in group
    assert group["spacing"].shape == (n,)
    assert group["spacing"].attrs["units"] == "px"
    expected = np.full(n, np.nan, np.float32)
    expected[1] = 46.25
    np.testing.assert_array_equal(group["spacing"][:], expected)
    np.testing.assert_array_equal(archive.results.read(["spacing", "none"], 0, n)["spacing"], expected)


def test_kept_over_a_reopening(archive: StreamArchive) -> None:
    """Synced values and the documents of the arrays are still there after the archive is opened again."""
    values = np.arange(archive.n_frames(), dtype=np.float32)
    archive.results.write(0, {"spacing": values}, {})
    archive.results.sync()
    reopened = StreamArchive.open(archive.folder)
    np.testing.assert_array_equal(reopened.results.read(["spacing"], 0, len(values))["spacing"], values)
    own = json.loads((archive.folder / "frames.zarr/spacing/zarr.json").read_bytes())
    assert own["shape"] == [len(values)]


def test_a_file_shortened_by_a_power_cut_is_replaced(archive: StreamArchive) -> None:
    """A result file that a power cut shortened is complete after the next write: readers refuse a short one."""
    archive.results.write(0, {"spacing": np.ones(2)}, {})
    (archive.folder / "frames.zarr/spacing/c/0").write_bytes(b"\0" * 5)
    archive.results.write(1, {"spacing": np.full(1, 7.0)}, {})
    read = zarr.open_group(archive.folder / "frames.zarr", mode="r")["spacing"][:3]
    np.testing.assert_array_equal(read, np.array([np.nan, 7.0, np.nan], np.float32))
