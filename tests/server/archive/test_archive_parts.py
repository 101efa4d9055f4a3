"""Parts of the archive: group commit, columns, atomic writes, repair at opening."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from atomstream.errors import StreamError
from atomstream.server.archive import chunk_index as archive_index
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.chunk_index import ChunkIndex, GroupCommit
from atomstream.server.archive.column import COLUMN_CHUNK, Column
from atomstream.server.archive.records import ChunkTimes
from atomstream.server.archive.shard_file import _ReadAhead
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.system import files
from atomstream.system.files import FileSystem
from tests.server.archive.archive_helpers import commit, new_archive, read_zarr


def test_waiting_callers_share_one_write() -> None:
    """All callers that arrive during a write share the next one, and return after it."""
    batches: list[list[int]] = []
    begun, go_on = threading.Event(), threading.Event()

    def write(items: list[int]) -> None:
        batches.append(items)
        begun.set()
        assert go_on.wait(60)

    group = GroupCommit(write)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(group.submit, 0)
        assert begun.wait(60)
        rest = [pool.submit(group.submit, k) for k in range(1, 6)]
        while len(group._gathering.items) < 5:  # no other signal shows that they have arrived
            threading.Event().wait(0.001)
        go_on.set()
        for future in (first, *rest):
            future.result(60)
    assert batches[0] == [0]
    assert sorted(batches[1]) == [1, 2, 3, 4, 5]
    assert len(batches) == 2


def test_a_failed_write_raises_in_each_of_its_callers() -> None:
    """An error is raised in each caller of that batch, and the next batch is still written."""
    fails = [True]

    def write(items: list[int]) -> None:
        if fails.pop() if fails else False:
            raise OSError(28, "no space left on device")

    group = GroupCommit(write)
    with pytest.raises(OSError, match="no space"):
        group.submit(1)
    group.submit(2)


@given(st.lists(st.tuples(st.integers(0, 3 * COLUMN_CHUNK), st.integers(1, 40)), min_size=1, max_size=6))
def test_columns_return_the_written_values(pieces: list[tuple[int, int]]) -> None:
    """Values written at any position, also across files, are read back; the rest is the fill value."""
    import tempfile

    expected = np.full(5 * COLUMN_CHUNK, -1, dtype=np.int32)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x").mkdir()
        column = Column(Path(folder) / "x", ArchiveFiles(Path(folder) / "parts"), np.dtype("int32"), -1)
        for number, (start, length) in enumerate(pieces):
            values = np.arange(length, dtype=np.int32) + 1000 * number
            expected[start : start + length] = values
            column.write([(start, values)])
        read = np.full_like(expected, -1)
        for start, values in column.stored():
            read[start : start + COLUMN_CHUNK] = values
    np.testing.assert_array_equal(read, expected)


def test_appending_touches_only_the_tail(tmp_path: Path) -> None:
    """A commit rewrites none of the full files, however long the stream is."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    far = 3 * COLUMN_CHUNK
    commit(archive, far)
    columns = archive.folder / "frames.zarr" / "time" / "c"
    before = {path.name: path.stat().st_mtime_ns for path in columns.iterdir()}
    commit(archive, far + 1)
    after = {path.name: path.stat().st_mtime_ns for path in columns.iterdir()}
    assert len(before) == 2
    assert [name for name in after if after[name] != before.get(name)] == [str(4 * far // COLUMN_CHUNK)]


class FailingFileSystem(FileSystem):
    """The n-th sync (of a file or folder) or rename from now on fails with ENOSPC."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.left:
            raise OSError(28, "no space left on device")

    def sync(self, fd: int) -> None:
        self._count()
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)


def test_an_atomic_write_that_fails_changes_nothing(tmp_path: Path) -> None:
    """If the sync fails, the target is unchanged and no temporary file is left."""
    file_system = FailingFileSystem()
    parts, target = ArchiveFiles(tmp_path / "parts", file_system), tmp_path / "zarr.json"
    parts.write_atomic(target, b"before")
    file_system.left = file_system.calls + 1
    with pytest.raises(OSError, match="no space"):
        parts.write_atomic(target, b"after")
    assert target.read_bytes() == b"before"
    assert list((tmp_path / "parts").iterdir()) == []


def test_a_replace_waits_for_windows_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a reader has the file open (a PermissionError on Windows), the rename is repeated."""
    real, held = os.replace, [True, True, True]

    def replace(source: Any, target: Any) -> None:
        if held and held.pop():
            raise PermissionError(13, "the file is in use")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(files, "_WINDOWS", True)
    ArchiveFiles(tmp_path / "parts").write_atomic(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert held == []


def test_a_repeated_commit_succeeds_after_any_disk_error(tmp_path: Path) -> None:
    """Whichever sync or rename of a commit fails, it raises OSError, and the same upload succeeds afterwards."""
    for failing in range(1, 60):
        file_system = FailingFileSystem()
        archive = new_archive(tmp_path / str(failing), file_system)
        file_system.left = file_system.calls + failing
        try:
            commit(archive, 0)
        except OSError:
            commit(archive, 0)
        assert read_zarr(archive.folder).shape == (4, 5, 6)
        assert np.isfinite(read_zarr(archive.folder, "time")).all()
        if file_system.calls < file_system.left:
            return
    pytest.fail("a commit has more steps than this test tries")


def test_lost_documents_are_rebuilt(tmp_path: Path) -> None:
    """Deleted metadata and columns are derived from the shards at the next opening."""
    archive = new_archive(tmp_path)
    for index in range(3):
        commit(archive, index)
    group = archive.folder / "frames.zarr"
    expected = read_zarr(archive.folder, "time")
    for gone in (
        "time/zarr.json",
        "frames/zarr.json",
        "time/c/0",
        "chunk_frames/zarr.json",
        "chunk_frames/c/0",
    ):
        (group / gone).unlink()
    reopened = StreamArchive.open(archive.folder)
    assert reopened.chunks() == dict.fromkeys(range(3), 4)
    (group / "zarr.json").unlink()
    reopened = StreamArchive.open(archive.folder)
    np.testing.assert_array_equal(read_zarr(archive.folder, "time"), expected)
    assert zarr.open_array(group / "frames", mode="r").shape == (12, 5, 6)


def test_a_power_cut_between_columns_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk whose columns were not synced is read from its shard again; no other shard is read."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    monkeypatch.setattr(archive_index, "SYNC_PERIOD_S", 1e9)
    for index in (1, 2):
        commit(archive, index)
    group = archive.folder / "frames.zarr"
    expected = read_zarr(archive.folder, "time")
    assert np.isfinite(expected).all()
    assert len(expected) == 12
    with (group / "time/c/0").open("r+b") as file:
        file.seek(4 * 8)
        file.write(np.full(8, np.nan).tobytes())
    read: list[int] = []
    real = ChunkIndex.read_stamps

    def read_stamps(self: ChunkIndex, index: int) -> ChunkTimes:
        read.append(index)
        return real(self, index)

    monkeypatch.setattr(ChunkIndex, "read_stamps", read_stamps)
    reopened = StreamArchive.open(archive.folder)
    assert reopened.chunks() == dict.fromkeys(range(3), 4)
    assert read == [1, 2]
    np.testing.assert_array_equal(read_zarr(archive.folder, "time"), expected)
    StreamArchive.open(archive.folder)
    assert read == [1, 2]


def test_a_replaced_chunk_is_synced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a damaged shard is replaced, its new times are durable before the commit returns, whatever the period."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    archive = StreamArchive.open(archive.folder)
    monkeypatch.setattr(archive_index, "SYNC_PERIOD_S", 1e9)
    commit(archive, 1)
    synced: list[Path] = []
    monkeypatch.setattr(FileSystem, "sync_file", lambda _, path: synced.append(path))
    commit(archive, 2)
    assert synced == []
    archive.shard_file(0).write_bytes(b"damaged")
    commit(archive, 0)
    assert {path.parent.parent.name for path in synced} == {"time", "chunk_start_unix_ms", "chunk_frames"}


def test_a_stream_without_its_geometry_is_not_changed(tmp_path: Path) -> None:
    """If all documents with the frame shape are lost, opening raises an error with the remedy and changes nothing."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    for gone in ("zarr.json", "frames/zarr.json"):
        (archive.folder / "frames.zarr" / gone).unlink()
    with pytest.raises(StreamError, match="restore"):
        StreamArchive.open(archive.folder)
    assert (archive.folder / "frames.zarr" / "frames" / "c" / "0" / "0" / "0").exists()


def test_the_name_of_a_file_of_an_earlier_process_is_synced(tmp_path: Path) -> None:
    """A column file that a killed process created without a sync gets a durable name with the next sync."""

    class Folders(FileSystem):
        def sync_folder(self, path: Path) -> None:
            synced.append(path)

    synced: list[Path] = []
    column = tmp_path / "frames.zarr" / "x"
    for _ in range(2):  # two processes
        files_of_process = ArchiveFiles(tmp_path / "parts", Folders())
        written = Column(column, files_of_process, np.dtype("int32"), -1)
        touched = written.put([(0, np.arange(3, dtype=np.int32))])
    written.sync(touched)
    assert synced == [column / "c", column, column.parent]
    written.sync(touched)
    assert len(synced) == 3


def test_a_removed_shard_is_missing(tmp_path: Path) -> None:
    """A chunk whose folder was deleted counts as missing from the next opening on."""
    import shutil

    archive = new_archive(tmp_path)
    for index in range(3):
        commit(archive, index)
    shutil.rmtree(archive.folder / "frames.zarr" / "frames" / "c" / "1")
    reopened = StreamArchive.open(archive.folder)
    assert list(reopened.missing()) == [1]
    np.testing.assert_array_equal(read_zarr(archive.folder, "chunk_frames"), [4, 0, 4])
    assert np.isnan(read_zarr(archive.folder, "time")[4:8]).all()
    assert not commit(reopened, 1).repeated


def test_a_shard_is_read_in_windows() -> None:
    """Ranges within, across and larger than a window of 1 MiB, also backwards, are those of the file."""
    content = np.random.default_rng(0).bytes(3 << 20)
    reads: list[int] = []

    def fetch(offset: int, nbytes: int) -> bytes:
        reads.append(nbytes)
        return content[offset : offset + nbytes]

    ahead = _ReadAhead(fetch, len(content))
    ranges = [
        (0, 1000),
        (1000, 3000),
        ((1 << 20) - 10, 20),
        (2 << 20, (1 << 20) - 5),
        (5, 7),
        (1, (1 << 20) + 9),
    ]
    assert all(bytes(ahead(start, n)) == content[start : start + n] for start, n in ranges)
    assert len(reads) == 5  # the second range was in the window of the first
    assert bytes(ahead(len(content) - 4, 9)) == content[-4:]  # a file that was cut
