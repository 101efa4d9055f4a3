"""Power cuts during commits: each acknowledged chunk is present afterwards and reads equal."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

from atomstream.records import FrameMeta
from atomstream.server.archive import chunk_index
from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.archive.column import COLUMN_CHUNK, Column
from atomstream.server.archive.stream_archive import StreamArchive
from tests.server.archive.archive_helpers import (
    ABOUT,
    START_MS,
    body_of,
    claims_of,
    commit_body,
    frames_of,
    read_zarr,
)
from tests.system.power_cut import RecordingFileSystem, Replay

INDICES = (0, 1, 3, 2, 6, 5, 8)
"""Indices of the committed chunks: out of order, and 4 and 7 stay missing."""
WITH_META = (3, 5)
"""Indices of the chunks that have frame times, ids and angles."""


def meta_of(index: int) -> FrameMeta:
    """Times, ids and angles of a chunk; most chunks have none."""
    if index not in WITH_META:
        return FrameMeta()
    first = START_MS + 40 * index
    return FrameMeta(
        times_ms=tuple(first + 9 * k for k in range(4)),
        ids=tuple(range(4 * index, 4 * index + 4)),
        angles_deg=(1.0, 2.0, 3.0, 4.0),
    )


def body(index: int) -> bytes:
    """The upload of a chunk."""
    return body_of(frames_of(index), meta_of(index))


def commit(archive: StreamArchive, disk: RecordingFileSystem, index: int) -> None:
    """Receive a chunk and commit it; the log has the start and the end."""
    disk.note("commit begins", index)
    upload = archive.incoming()
    fd = disk.create(upload)
    disk.write(fd, [body(index)])
    disk.close(fd)
    archive.commit(claims_of(index, frames_of(index)), upload, google_crc32c.value(body(index)))
    disk.note("commit", index)


def life(root: Path, disk: RecordingFileSystem) -> None:
    """Two server processes with one stream: chunks, a repeat, a changed description, then the second process."""
    streams = root / "streams"
    disk.make_folder(streams)
    archive = StreamArchive.create(streams / "one", ABOUT, disk)
    disk.note("create", -1)
    for index in INDICES[:4]:
        commit(archive, disk, index)
    archive.update_about(status="success")
    disk.note("status", -1)
    commit(archive, disk, 1)  # a repeat
    reopened = StreamArchive.open(archive.folder, disk)
    for index in INDICES[4:]:
        commit(reopened, disk, index)
    reopened.finish()
    disk.note("finish", -1)


def check(folder: Path, notes: list[tuple[str, int]], context: object) -> None:
    """Check that all acknowledged chunks are present after the cut, before and after the archive is opened."""
    if ("create", -1) not in notes:
        return
    acknowledged = {index for what, index in notes if what == "commit"}
    begun = {index for what, index in notes if what == "commit begins"}
    check_before(folder)
    archive = StreamArchive.open(folder)
    chunks = archive.chunks()
    assert acknowledged <= chunks.keys() <= begun, context
    if ("status", -1) in notes:
        assert archive.about["status"] == "success", context
    check_readers(archive, set(chunks), context)
    for index in sorted(begun):
        done = commit_body(archive, claims_of(index, frames_of(index)), body(index))
        assert done.repeated or index not in acknowledged, (index, context)
    archive.finish()
    check_readers(archive, begun, context)
    check_dataset(archive)


def check_before(folder: Path) -> None:
    """Check that a reader that opens the files before the server sees each frame complete or black."""
    try:
        frames = zarr.open_array(folder / "frames.zarr" / "frames", mode="r")
    except FileNotFoundError:
        return
    for index in range(frames.shape[0] // 4):
        seen = frames[4 * index : 4 * index + 4]
        assert not seen.any() or np.array_equal(seen, frames_of(index))


def check_readers(archive: StreamArchive, chunks: set[int], context: object) -> None:
    """Check that frames, times, ids and counts are those of ``chunks``, and the fill value elsewhere."""
    if not chunks:
        return
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
    frames, times = np.asarray(group["frames"][:]), np.asarray(group["time"][:])
    ids = np.asarray(group["frame_id"][:]) if "frame_id" in group else np.full(len(frames), -1)
    assert len(frames) == len(times) == len(ids) == 4 * (max(chunks) + 1), context
    counts = [4 if index in chunks else 0 for index in range(max(chunks) + 1)]
    np.testing.assert_array_equal(np.asarray(group["chunk_frames"][:]), counts, str(context))
    origin = group["time"].attrs["start_unix_ms"]
    for index in range(max(chunks) + 1):
        part = slice(4 * index, 4 * index + 4)
        if index in chunks:
            expected: Any = meta_of(index).times_ms or [START_MS + 40 * index + 10 * k for k in range(4)]
            np.testing.assert_array_equal(frames[part], frames_of(index), str(context))
            np.testing.assert_allclose(times[part] * 1000 + origin, expected, atol=0.01, err_msg=str(context))
            np.testing.assert_array_equal(ids[part], meta_of(index).ids or [-1] * 4, str(context))
        else:
            assert not frames[part].any(), context
            assert np.isnan(times[part]).all(), (index, times[part], context)
            assert (ids[part] == -1).all(), (index, ids[part], context)


def check_dataset(archive: StreamArchive) -> None:
    """Check that xarray, which refuses arrays of different lengths, opens the group."""
    if archive.n_frames():
        with xr.open_zarr(archive.folder / "frames.zarr") as dataset:
            assert dataset.sizes["time"] == archive.n_frames() == len(read_zarr(archive.folder))


def play(memory_path: Path, cuts: int, seed: int) -> None:
    """Cut the power at ``cuts`` random times, each with a random part of the unsynced data."""
    disk = RecordingFileSystem()
    root = memory_path / "disk"
    root.mkdir()
    life(root, disk)
    draw = random.Random(seed)
    moments = sorted(draw.sample(range(len(disk.log)), min(cuts, len(disk.log))))
    replay, done = Replay(root), 0
    for moment in moments:
        for entry in disk.log[done : moment + 1]:
            replay.step(*entry)
        done = moment + 1
        keep = draw.choice([0.0, 0.2, 0.5, 0.8, 1.0])
        left = memory_path / "left"
        left.mkdir()
        replay.leave(left, keep, draw)
        check(left / "streams" / "one", replay.notes, (moment, disk.log[moment][:2], keep, seed))
        shutil.rmtree(left)


@pytest.mark.parametrize("period_s", [0.0, 1e9])
def test_a_power_cut_at_random_moments(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, period_s: float
) -> None:
    """Whatever part of the unsynced data survives, each acknowledged chunk reads equal in zarr-python."""
    monkeypatch.setattr(chunk_index, "SYNC_PERIOD_S", period_s)
    play(memory_path, cuts=25, seed=11 + int(period_s > 0))


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("period_s", [0.0, 0.02, 1e9])
@pytest.mark.parametrize("seed", range(20))
def test_many_power_cuts(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, period_s: float
) -> None:
    """A power cut at each possible time."""
    monkeypatch.setattr(chunk_index, "SYNC_PERIOD_S", period_s)
    play(memory_path, cuts=10_000, seed=seed)


def test_the_model_finds_a_missing_sync(memory_path: Path) -> None:
    """The test detects faults: a file system that skips the sync of files loses an acknowledged chunk."""

    class Careless(RecordingFileSystem):
        def sync(self, fd: int) -> None:
            """Do nothing, and report success."""

    disk = Careless()
    disk.make_folder(memory_path / "disk" / "streams")
    disk.log.clear()
    disk.log.append(("mkdir", memory_path / "disk" / "streams", None))
    disk.log.append(("sync_folder", memory_path / "disk", None))
    archive = StreamArchive.create(memory_path / "disk" / "streams" / "one", ABOUT, disk)
    commit(archive, disk, 0)
    replay = Replay(memory_path / "disk")
    for entry in disk.log:
        replay.step(*entry)
    (memory_path / "left").mkdir()
    replay.leave(memory_path / "left", 0.0, random.Random(0))
    shard = archive.shard_file(0).relative_to(memory_path / "disk")
    assert not any((memory_path / "left" / shard).read_bytes())


def test_a_new_column_file_is_never_zeros(memory_path: Path) -> None:
    """Where nothing was written, a column has its fill value after a power cut, though its file was never synced."""
    disk, root = RecordingFileSystem(), memory_path / "disk"
    disk.make_folder(root / "time")
    column = Column(root / "time", ArchiveFiles(root / "incoming", disk), np.dtype("float64"), np.nan)
    column.put([(3, np.array([1.5, 2.5]))])
    found = 0
    for seed in range(40):
        left = memory_path / str(seed)
        left.mkdir()
        replay = Replay(root)
        for entry in disk.log:
            replay.step(*entry)
        replay.leave(left, 0.8, random.Random(seed))
        after = Column(left / "time", ArchiveFiles(left / "incoming"), np.dtype("float64"), np.nan)
        values = after.read(0, COLUMN_CHUNK)
        assert np.isnan(values[:3]).all(), seed
        assert np.isnan(values[5:]).all(), seed
        found += (left / "time" / "c" / "0").exists()
    assert found > 10
