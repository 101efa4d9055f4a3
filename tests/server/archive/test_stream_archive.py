"""The archive: each committed chunk is readable by all Zarr readers, once and unchanged; other data is refused."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atomstream.errors import ConflictError, RejectedError, ShardError
from atomstream.index_ranges import IndexSet
from atomstream.records import FrameMeta
from atomstream.server.archive.opening import iter_archives
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.shard import ABSENT, pack_index
from tests.paths import WIRE
from tests.server.archive.archive_helpers import (
    ABOUT,
    FPS,
    START_MS,
    body_of,
    claims_of,
    commit,
    commit_body,
    frames_of,
    new_archive,
    read_zarr,
)


def _open_frames(archive: StreamArchive) -> xr.Dataset:
    return xr.open_zarr(archive.folder / "frames.zarr")


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5))
    ),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_any_frames_are_read_equal(frames: Any, index: int, room: int) -> None:
    """zarr-python and `frames` read a chunk equal, for any shape, dtype and index."""
    with tempfile.TemporaryDirectory() as folder:
        archive = new_archive(Path(folder))
        chunk_size = len(frames) + room
        done = commit(archive, index, frames, chunk_size=chunk_size)
        start = index * chunk_size
        expected = np.concatenate([np.zeros((start, *frames.shape[1:]), frames.dtype), frames])
        assert (done.index, done.n_frames, done.repeated) == (index, len(frames), False)
        np.testing.assert_array_equal(read_zarr(archive.folder), expected)
        np.testing.assert_array_equal(archive.frames(0, 10**9), expected)
        assert archive.frames(start, start + 1).dtype == frames.dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_all_readers_agree(tmp_path: Path, dtype: Any) -> None:
    """zarr-python, tensorstore and xarray read the same frames, including gaps and short chunks."""
    import tensorstore

    archive = new_archive(tmp_path)
    sizes = {0: 4, 1: 2, 3: 3}
    for index, n in sizes.items():
        commit(archive, index, frames_of(index, n, dtype=dtype))
    expected = np.zeros((15, 5, 6), dtype)
    for index, n in sizes.items():
        expected[4 * index : 4 * index + n] = frames_of(index, n, dtype=dtype)
    path = archive.folder / "frames.zarr" / "frames"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    np.testing.assert_array_equal(tensorstore.open(spec, open=True).result().read().result(), expected)
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], expected)
    np.testing.assert_array_equal(read_zarr(archive.folder), expected)
    with _open_frames(archive) as dataset:
        assert dataset["frames"].dims == ("time", "y", "x")
        assert dataset["frames"].dtype == dtype
        np.testing.assert_array_equal(dataset["frames"], expected)


def test_missing_frames_differ_from_black_ones(tmp_path: Path) -> None:
    """A black frame has a time and is counted; a missing one is NaN, not counted, and listed."""
    archive = new_archive(tmp_path)
    commit(archive, 0, np.zeros((4, 5, 6), np.uint8))
    commit(archive, 2, frames_of(2, 3))
    assert archive.chunks() == {0: 4, 2: 3}
    assert (str(archive.stored()), archive.frames_stored()) == ("0,2", 7)
    assert (archive.n_frames(), list(archive.missing())) == (11, [1])
    with _open_frames(archive) as dataset:
        nan = np.nan
        np.testing.assert_allclose(
            dataset["time"], [0, 0.01, 0.02, 0.03, nan, nan, nan, nan, 0.08, 0.09, 0.1]
        )
        np.testing.assert_array_equal(dataset["chunk_frames"], [4, 0, 3])
        np.testing.assert_array_equal(dataset["chunk_start_unix_ms"], [START_MS, nan, START_MS + 80])
        assert dataset.attrs["missing_chunks"] == "1"
        assert dataset.attrs["start_unix_ms"] == START_MS
        assert dataset.attrs["name"] == ABOUT["name"]


def test_shards_without_inner_chunks_are_black(tmp_path: Path) -> None:
    """A shard that omits its black frames is stored, analysed and read as black."""
    archive, frames = new_archive(tmp_path), np.zeros((3, 5, 6), np.uint8)
    seen: list[Any] = []
    body = pack_index(np.full((3, 2), ABSENT, dtype=np.uint64))
    commit_body(archive, claims_of(0, frames), body, lambda i, k, frame: seen.append((i, k, frame.max())))
    assert seen == [(0, 0, 0), (0, 1, 0), (0, 2, 0)]
    np.testing.assert_array_equal(read_zarr(archive.folder), frames)


def test_per_frame_data_become_arrays(tmp_path: Path) -> None:
    """Times, ids, angles and clock values become arrays as soon as one chunk has them."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    with _open_frames(archive) as dataset:
        assert set(dataset.variables) == {"frames", "time", "chunk_start_unix_ms", "chunk_frames"}
    times = tuple(START_MS + t for t in (40.0, 51.0, 90.0))
    meta = FrameMeta(times_ms=times, ids=(7, 8, 11), angles_deg=(0.5, 1.0, 359.5))
    frames = frames_of(1, 3)
    claims = claims_of(1, frames, clock_offset_ms=-12.0, clock_uncertainty_ms=0.5)
    done = commit_body(archive, claims, body_of(frames, meta))
    assert done.stamps.meta == meta
    assert archive.stamps(1) == done.stamps
    np.testing.assert_array_equal(done.stamps.times_unix_ms(), times)
    with _open_frames(archive) as dataset:
        np.testing.assert_allclose(dataset["time"][4:], [0.04, 0.051, 0.09])
        np.testing.assert_array_equal(dataset["frame_id"], [-1, -1, -1, -1, 7, 8, 11])
        np.testing.assert_array_equal(dataset["angle_deg"][3:], [np.nan, 0.5, 1.0, 359.5])
        np.testing.assert_array_equal(dataset["chunk_clock_offset_ms"], [np.nan, -12.0])
        np.testing.assert_array_equal(dataset["chunk_clock_uncertainty_ms"], [np.nan, 0.5])


@pytest.mark.parametrize("damage", ["document", "type"])
def test_a_column_without_its_document_is_made_again(tmp_path: Path, damage: str) -> None:
    """Its old files, with zeros that a power cut may leave, do not become visible with its new document."""
    archive = new_archive(tmp_path)
    for index in range(2):
        frames = frames_of(index)
        meta = FrameMeta(ids=(20, 21, 22, 23)) if index == 0 else FrameMeta()
        commit_body(archive, claims_of(index, frames), body_of(frames, meta))
    archive.finish()
    group = archive.folder / "frames.zarr"
    values = np.fromfile(group / "frame_id" / "c" / "0", "<i8")
    values[:8] = 0
    values.tofile(group / "frame_id" / "c" / "0")
    if damage == "document":
        (group / "zarr.json").unlink()
        (group / "frame_id" / "zarr.json").unlink()
    else:
        document = group / "frame_id" / "zarr.json"
        document.write_text(document.read_text().replace("int64", "int32"))
    again = StreamArchive.open(archive.folder)
    commit(again, 2)
    again.finish()
    assert read_zarr(archive.folder, "frame_id").tolist() == [20, 21, 22, 23] + [-1] * 8


def test_times_count_from_frame_zero_in_any_order(tmp_path: Path) -> None:
    """If chunk 2 arrives before chunk 0, times still count from the start of frame 0."""
    archive = new_archive(tmp_path)
    for index in (2, 0, 1):
        commit(archive, index)
    with _open_frames(archive) as dataset:
        np.testing.assert_allclose(dataset["time"], np.arange(12) / FPS, atol=1e-9)


def test_equal_repeat_changes_nothing(tmp_path: Path) -> None:
    """The same frames at another level and with other timestamps are a repeat; the first timestamps stay."""
    archive, frames = new_archive(tmp_path), frames_of(0)
    first = commit(archive, 0)
    stored = archive.folder / "frames.zarr" / "frames" / "c" / "0" / "0" / "0"
    before = stored.read_bytes()
    seen: list[int] = []
    for level in (1, 9):
        late = claims_of(0, frames, start_unix_ms=START_MS + 5)
        done = commit_body(archive, late, body_of(frames, level=level), lambda *_: seen.append(1))
        assert done.repeated
        assert done.stamps == first.stamps
    assert stored.read_bytes() == before
    assert seen == []


@pytest.mark.parametrize("other", [frames_of(9), frames_of(0)[:3], frames_of(0) // 2])
def test_other_frames_conflict(tmp_path: Path, other: Any) -> None:
    """Other frames under a stored index are a conflict, and the stored frames stay."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    with pytest.raises(ConflictError, match="other frames"):
        commit(archive, 0, other)
    np.testing.assert_array_equal(read_zarr(archive.folder), frames_of(0))


@pytest.mark.parametrize(
    ("frames", "chunk_size"),
    [
        (frames_of(1, shape=(6, 6)), 4),
        (frames_of(1, shape=(5, 7)), 4),
        (frames_of(1, dtype=np.uint16), 4),
        (frames_of(1), 5),
    ],
)
def test_geometry_is_fixed_by_the_first_shard(tmp_path: Path, frames: Any, chunk_size: int) -> None:
    """A changed H, W, dtype or chunk_size is a conflict whose message has the values of the stream."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    for reopened in (archive, StreamArchive.open(archive.folder)):
        with pytest.raises(ConflictError, match="5x6 uint8 in chunks of 4 frames"):
            commit(reopened, 1, frames, chunk_size=chunk_size)


def test_a_refused_shard_fixes_nothing(tmp_path: Path) -> None:
    """An invalid first shard leaves no file and no geometry: the stream then accepts another shape."""
    archive = new_archive(tmp_path)
    with pytest.raises(ShardError):
        commit_body(archive, claims_of(0, frames_of(0, shape=(9, 9))), b"garbage" * 30)
    assert list((archive.folder / "incoming").iterdir()) == []
    assert not commit(archive, 0).repeated


@pytest.mark.parametrize(
    "changes",
    [
        {"index": -1},
        {"index": 10_000_001},
        {"chunk_size": 3},
        {"chunk_size": 10**9},
        {"dims": (0, 5, 6)},
        {"dims": (4, 0, 6)},
        {"dims": (4, 1 << 20, 1 << 20)},
        {"dims": (4, -5, -6)},
        {"dtype": "float32"},
        {"fps": float("nan")},
        {"start_unix_ms": float("inf")},
        {"clock_offset_ms": float("nan")},
    ],
)
def test_claims_out_of_range_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    """More frames than chunk_size, indices and sizes out of range, and non-numeric timestamps are 400."""
    archive, frames = new_archive(tmp_path), frames_of(0)
    with pytest.raises(ShardError, match="Chunk"):
        commit_body(archive, dataclasses.replace(claims_of(0, frames), **changes), body_of(frames))
    assert archive.chunks() == {}


def test_a_large_jump_of_the_index_is_cheap(tmp_path: Path) -> None:
    """The highest index needs a few files, no list of the missing indices, and is read back."""
    archive, last = new_archive(tmp_path), 10_000_000
    commit(archive, 0)
    commit(archive, last, frames_of(last, 2))
    files = [path for path in archive.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2 << 20
    assert archive.missing_ranges() == [(1, last - 1)]
    array = zarr.open_group(archive.folder / "frames.zarr", mode="r")["frames"]
    np.testing.assert_array_equal(array[-2:], frames_of(last, 2))
    assert StreamArchive.open(archive.folder).n_frames() == last * 4 + 2


def test_a_damaged_shard_is_replaced_by_its_repeat(tmp_path: Path) -> None:
    """The next upload of a damaged chunk replaces it instead of conflicting with it."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    stored = archive.folder / "frames.zarr" / "frames" / "c" / "0" / "0" / "0"
    raw = bytearray(stored.read_bytes())
    raw[30] ^= 0xFF
    for damaged in (bytes(raw), bytes(raw[:-9]), b""):
        stored.write_bytes(damaged)
        assert not commit(archive, 0).repeated
        np.testing.assert_array_equal(read_zarr(archive.folder), frames_of(0))


def test_many_threads_commit_at_once(tmp_path: Path) -> None:
    """After commits from many threads, some repeated, each chunk is stored once and readable once acknowledged."""
    archive = new_archive(tmp_path)

    def one(index: int) -> bool:
        done = commit(archive, index)
        frames = zarr.open_group(archive.folder / "frames.zarr", mode="r")["frames"]
        np.testing.assert_array_equal(frames[4 * index : 4 * index + 4], frames_of(index))
        return done.repeated

    with ThreadPoolExecutor(8) as pool:
        repeats = list(pool.map(one, [index for index in range(40) for _ in range(2)]))
    assert repeats.count(False) == 40
    assert archive.chunks() == dict.fromkeys(range(40), 4)


def test_two_first_chunks_of_two_shapes(tmp_path: Path) -> None:
    """Of two concurrent first chunks of different shapes, exactly one is stored."""
    archive, both = new_archive(tmp_path), threading.Barrier(2)

    def one(shape: tuple[int, int]) -> bool:
        frames = frames_of(shape[0], 1, shape)
        claims = claims_of(shape[0], frames)
        try:
            commit_body(archive, claims, body_of(frames), lambda *_: both.wait(60))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(one, [(3, 4), (5, 6)])) == [False, True]
    assert len(archive.chunks()) == 1


def test_metadata_are_durable_and_list_the_lost(tmp_path: Path) -> None:
    """The metadata of the stream survive reopening; lost indices are listed until they arrive."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    archive.update_about(status="success", tags=[{"id": "1", "name": "GaN"}], project=None)
    archive.mark_lost(IndexSet([1, 2, 5]))
    commit(archive, 2)
    archive.finish()
    assert StreamArchive.open(archive.folder).about == {**archive.about, "lost": "1,5", "status": "success"}
    with _open_frames(archive) as dataset:
        assert (dataset.attrs["lost_chunks"], dataset.attrs["missing_chunks"]) == ("1,5", "1")
        assert (dataset.attrs["status"], dataset.attrs["tags"]) == ("success", ["GaN"])


@pytest.mark.parametrize("indices", [[(10_000_001, 10_000_001)], [(0, 100_000)]])
def test_lost_indices_are_bounded(tmp_path: Path, indices: Any) -> None:
    """Lists of lost indices out of range are refused."""
    archive = new_archive(tmp_path)
    with pytest.raises(RejectedError):
        archive.mark_lost(IndexSet.from_ranges(indices))
    assert archive.about["lost"] == ""


def test_results_have_the_length_of_their_dimension(tmp_path: Path) -> None:
    """Results along time have the length of the stream, those along their own dimension the length that was written."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    archive.write_values("specular_intensity", 0, np.array([1.0, 2.0]), attributes={"units": "counts"})
    archive.write_values("growth_rate_ml_s", 3, np.array([0.4]), dimension="fit")
    commit(archive, 1)
    with _open_frames(archive) as dataset:
        np.testing.assert_array_equal(dataset["specular_intensity"], [1.0, 2.0, *[np.nan] * 6])
        np.testing.assert_array_equal(dataset["growth_rate_ml_s"], [np.nan, np.nan, np.nan, 0.4])
    reopened = StreamArchive.open(archive.folder)
    reopened.write_values("specular_intensity", 2, np.array([3.0]))
    np.testing.assert_array_equal(
        read_zarr(archive.folder, "specular_intensity")[:4], [1.0, 2.0, 3.0, np.nan]
    )


@pytest.mark.parametrize("name", ["time", "frames", "../x", "a/b", "Ünit", ""])
def test_invalid_names_of_results_are_refused(tmp_path: Path, name: str) -> None:
    """An array of results cannot have a name that the archive uses, nor a path."""
    with pytest.raises(ValueError, match="can't name"):
        new_archive(tmp_path).write_values(name, 0, np.zeros(2))


def test_results_are_numbers_in_one_dimension(tmp_path: Path) -> None:
    """Values of another shape or type are refused."""
    for values in (np.zeros((2, 2)), np.array(["a"]), np.zeros(2, complex)):
        with pytest.raises(ValueError, match="1-D"):
            new_archive(tmp_path / str(values.dtype) / str(values.ndim)).write_values("x", 0, values)


def test_an_empty_stream_is_a_group(tmp_path: Path) -> None:
    """Before its first chunk, a stream is an empty group with its attributes."""
    archive = new_archive(tmp_path)
    assert archive.frames(0, 5).shape == (0, 0, 0)
    assert archive.n_frames() == 0
    with _open_frames(archive) as dataset:
        assert dataset.attrs["data_id"] == "one"
    with pytest.raises(FileExistsError):
        new_archive(tmp_path)


def test_other_folders_are_skipped(tmp_path: Path) -> None:
    """Reindex opens the streams, does not change other folders, and names the damaged ones."""
    for name in ("a", "b"):
        StreamArchive.create(tmp_path / name, {"data_id": name})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.part").write_text("mine")
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "stream.json").write_text("{")
    mine = tmp_path / "a" / "incoming" / "mine.part"
    mine.write_text("mine")
    left = StreamArchive.open(tmp_path / "b").incoming()
    left.write_text("half a body")
    assert [archive.about["data_id"] for archive in iter_archives(tmp_path)] == ["a", "b"]
    assert not left.exists()
    assert mine.read_text() == (tmp_path / "photos" / "x.part").read_text() == "mine"
    assert list(iter_archives(tmp_path / "nowhere")) == []


def test_arrays_of_other_programs_stay_in_the_group(tmp_path: Path) -> None:
    """An array that a user adds with zarr-python is kept, and listed after the next opening."""
    archive = new_archive(tmp_path)
    commit(archive, 0)
    group = zarr.open_group(archive.folder / "frames.zarr", mode="r+")
    group.create_array("mask", data=np.ones((5, 6), np.uint8), dimension_names=("y", "x"))
    reopened = StreamArchive.open(archive.folder)
    commit(reopened, 1)
    with _open_frames(reopened) as dataset:
        assert dataset["mask"].sum() == 30
        assert dataset.sizes["time"] == 8


def test_metadata_are_plain_json_of_the_spec(tmp_path: Path) -> None:
    """The document of `frames` conforms to Zarr v3, with the shard's index at its end."""
    archive = new_archive(tmp_path)
    commit(archive, 0, frames_of(0, dtype=np.uint16))
    document = json.loads((archive.folder / "frames.zarr" / "frames" / "zarr.json").read_text())
    (sharding,) = document["codecs"]
    assert document["shape"] == [4, 5, 6]
    assert document["fill_value"] == 0
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [4, 5, 6]
    assert sharding["configuration"]["chunk_shape"] == [1, 5, 6]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "zstd"]
    assert [codec["name"] for codec in sharding["configuration"]["index_codecs"]] == ["bytes", "crc32c"]
    assert sharding["configuration"]["index_location"] == "end"


def test_a_recorded_stream_of_the_hosted_client_is_archived(tmp_path: Path) -> None:
    """The stream of the hosted service's own client, including short chunks, reads as one array of its frames."""
    wire = WIRE
    pushed = np.load(wire / "frames.npz")
    chunks = [pushed["chunk0"], pushed["chunk1"], pushed["frame"][np.newaxis]]
    archive = new_archive(tmp_path)
    for index, frames in enumerate(chunks):
        body = (wire / "shards" / f"stream0-c{index}.shard").read_bytes()
        commit_body(archive, claims_of(index, frames, chunk_size=240), body)
    stored = read_zarr(archive.folder)
    assert len(stored) == 481
    for index, frames in enumerate(chunks):
        np.testing.assert_array_equal(stored[240 * index : 240 * index + len(frames)], frames)
