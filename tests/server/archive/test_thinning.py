"""Thinning an archive: kept frames, times and numbers are unchanged, removed ones read as 0, every moment is safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream.errors import ConflictError
from atomstream.records import FrameMeta
from atomstream.server.archive.shard_file import read_trailer
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import KEPT, Mask
from atomstream.server.upkeep.check import check
from tests.server.archive.archive_helpers import body_of, claims_of, commit, commit_body, frames_of, read_zarr
from tests.server.upkeep.upkeep_helpers import IDS, about_of


def one_in(every: int) -> Any:
    """What :meth:`ThinnedFrames.plan` needs to keep one frame in ``every``."""

    def wanted(first: int, n_frames: int) -> Mask:
        return np.asarray((first + np.arange(n_frames)) % every == 0)

    return wanted


def nothing(_first: int, n_frames: int) -> Mask:
    """Keeps no frame."""
    return np.zeros(n_frames, dtype=bool)


def archive_of(folder: Path, *indices: int) -> StreamArchive:
    """An archive with these chunks, in a data folder."""
    archive = StreamArchive.create(folder / "streams" / IDS[0], about_of(IDS[0]))
    for index in indices:
        commit(archive, index)
    return archive


def thin(archive: StreamArchive, wanted: Any) -> int:
    """Plan and remove; returns the bytes that became free."""
    archive.thinned.plan(wanted)
    archive.update_about(thinning={"every": 3, "around_s": 1.0, "since": "2026", "planned": True})
    return sum(archive.thinned.remove(index) for index in archive.stored())


def test_zarr_reads_what_is_left(memory_path: Path) -> None:
    """Kept frames are bit-equal under their numbers, others are the fill value; frame_kept shows which frames are
    kept."""
    import xarray
    import zarr

    archive = archive_of(memory_path, 0, 1, 3)
    before, times = read_zarr(archive.folder), read_zarr(archive.folder, "time")
    sizes = [archive.shard_file(index).stat().st_size for index in (0, 1, 3)]
    assert thin(archive, one_in(3)) == sum(sizes) - sum(
        archive.shard_file(index).stat().st_size for index in (0, 1, 3)
    )
    kept = np.array([n % 3 == 0 and n // 4 != 2 for n in range(16)])
    after = read_zarr(archive.folder)
    assert (after[kept] == before[kept]).all()
    assert not after[~kept].any()
    assert (read_zarr(archive.folder, KEPT) == kept).all()
    assert np.array_equal(read_zarr(archive.folder, "time"), times, equal_nan=True)
    archive.finish()
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r")
    assert "one frame in 3 was kept" in str(group.attrs["thinning"])
    opened = xarray.open_zarr(archive.folder / "frames.zarr")
    assert opened["frames"].shape == before.shape
    assert int(opened[KEPT].sum()) == kept.sum()
    assert (StreamArchive.open(archive.folder).frames(0, 16) == after).all()


def test_it_can_be_repeated_and_continued_to_nothing(memory_path: Path) -> None:
    """A second run changes no byte; later one in 6, then no frame is left; the check finds nothing damaged."""
    archive = archive_of(memory_path, 0, 1)
    before = read_zarr(archive.folder)
    thin(archive, one_in(3))
    path = archive.shard_file(0)
    raw = path.read_bytes()
    assert thin(archive, one_in(3)) == 0
    assert path.read_bytes() == raw
    assert thin(archive, one_in(6)) > 0
    assert (read_zarr(archive.folder)[[0, 6]] == before[[0, 6]]).all()
    assert not read_zarr(archive.folder)[[1, 2, 3, 4, 5, 7]].any()
    assert thin(archive, nothing) > 0
    assert not read_zarr(archive.folder).any()
    assert not read_zarr(archive.folder, KEPT).any()
    archive.finish()
    assert check(memory_path).damaged == []
    assert archive.chunks() == {0: 4, 1: 4}


def test_times_ids_and_angles_of_removed_frames_stay(memory_path: Path) -> None:
    """The per-frame data of a thinned chunk are kept for all its frames, and read again when the archive is opened."""
    archive = archive_of(memory_path)
    meta = FrameMeta(
        times_ms=(1e12, 1e12 + 9, 1e12 + 21, 1e12 + 30), ids=(4, 5, 7, 8), angles_deg=(0.0, 1.5, 3.0, 4.5)
    )
    commit_body(archive, claims_of(0, frames_of(0)), body_of(frames_of(0), meta))
    before = archive.stamps(0)
    thin(archive, nothing)
    assert archive.stamps(0) == before
    trailer = read_trailer(archive.shard_file(0), "uint8", 4)
    assert (trailer.thinned, trailer.stamps) == (True, before)
    assert StreamArchive.open(archive.folder).stamps(0) == before


def test_uploads_after_it(memory_path: Path) -> None:
    """A repeat is confirmed and brings nothing back; other frames are refused; a late chunk stays."""
    archive = archive_of(memory_path, 0)
    thin(archive, one_in(3))
    raw = archive.shard_file(0).read_bytes()
    assert commit(archive, 0).repeated
    assert archive.shard_file(0).read_bytes() == raw
    other = frames_of(0).copy()
    other[3, 0, 0] ^= 1  # a frame that was kept
    with pytest.raises(ConflictError):
        commit(archive, 0, other)
    assert not commit(archive, 2).repeated
    assert read_zarr(archive.folder, KEPT).tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert (read_zarr(archive.folder)[8:] == frames_of(2)).all()


def test_a_damaged_chunk_is_not_touched(memory_path: Path) -> None:
    """A shard that does not match its checksum stays as it is, for a rescue by hand; the others are thinned."""
    archive = archive_of(memory_path, 0, 1)
    path = archive.shard_file(0)
    raw = bytearray(path.read_bytes())
    raw[3] ^= 0xFF
    path.write_bytes(raw)
    archive.thinned.plan(one_in(4))
    with pytest.raises(Exception, match="checksum"):
        archive.thinned.remove(0)
    assert path.read_bytes() == raw
    assert archive.thinned.remove(1) > 0
    assert archive.incoming().parent.exists()
    assert [one for one in archive.incoming().parent.iterdir() if one.suffix == ".part"] == []


def test_a_lost_array_is_made_again(memory_path: Path) -> None:
    """frame_kept follows from the shards, like the other columns: a copy without it gets it again."""
    import shutil

    archive = archive_of(memory_path, 0, 1)
    thin(archive, one_in(3))
    archive.finish()
    kept = read_zarr(archive.folder, KEPT)
    shutil.rmtree(archive.folder / "frames.zarr" / KEPT)
    top = archive.folder / "frames.zarr" / "zarr.json"
    top.write_text(top.read_text().replace(f'"{KEPT}"', '"nobody"'))
    again = StreamArchive.open(archive.folder)
    assert (read_zarr(again.folder, KEPT) == kept).all()


@pytest.mark.parametrize(("frame", "nearest"), [(0, 0), (2, 0), (4, 6), (5, 6), (11, 6)])
def test_the_nearest_kept_frame(memory_path: Path, frame: int, nearest: int) -> None:
    """A page shows it in place of a removed one; of a stream that was not thinned, every frame itself."""
    archive = archive_of(memory_path, 0, 1, 2)
    assert archive.thinned.nearest(frame) == frame
    thin(archive, one_in(6))
    assert archive.thinned.nearest(frame) == nearest
    thin(archive, nothing)
    assert archive.thinned.nearest(frame) is None
