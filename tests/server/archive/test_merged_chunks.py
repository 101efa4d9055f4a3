"""Short chunks are merged into larger objects while the stream grows: each is there at each moment, once (issue 18)."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atomstream.errors import ConflictError, ShardError
from atomstream.index_ranges import IndexSet
from atomstream.records import FrameMeta
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.chunk_merger import WAIT
from atomstream.server.archive.merged_chunks import Grid, MergedObject, grid_for, is_whole, merged
from atomstream.server.archive.records import Geometry
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.store import ObjectMissingError, Store, StoreUnavailableError
from tests.server.archive.archive_helpers import (
    ABOUT,
    START_MS,
    body_of,
    claims_of,
    commit,
    commit_body,
    frames_of,
    read_zarr,
)
from tests.server.archive.shared_archives import SHARD, Server, UnreliableStore, all_frames, indices_of
from tests.server.archive.test_store_copies import in_store
from tests.stores import s3_store

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS

OBJECT_S = 0.16
"""Four chunks of 4 frames at 100 frames/s."""
GRID = Grid(4, 4)
GEOMETRY = Geometry(4, 5, 6, "uint8")
MERGED = "streams/one/frames.zarr/frames/c.{}.0.0"


def merging_servers(store: Store, folder: Path) -> Server:
    """Create the stream ``one``, whose chunks are merged; opens it with the cache folder of the server of that name."""
    CachedArchive.create_shared(
        folder / "first" / "one", ABOUT, SharedStream(store, "one"), object_s=OBJECT_S
    )
    return lambda name: CachedArchive.open_shared(
        folder / name / "one", SharedStream(store, "one"), object_s=OBJECT_S
    )


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Server:
    return merging_servers(store, tmp_path)


@pytest.fixture(params=["folder", "s3"])
def any_store(request: pytest.FixtureRequest, store: Store) -> Iterator[Store]:
    if request.param == "folder":
        yield store
        return
    engine: SeaweedFS = request.getfixturevalue("s3_server")
    made = s3_store(engine, f"merged/{uuid.uuid4()}")
    yield made
    made.close()


def objects_of(store: Store) -> tuple[str, str]:
    """The single chunks and the merged objects in the store."""
    stream = SharedStream(store, "one")
    stream.read_about()
    listing = stream.listing()
    return str(listing.single), str(listing.merged)


def with_chunks(server: Server, *indices: int) -> CachedArchive:
    """The stream as server ``a`` opens it, after it has stored these chunks."""
    archive = server("a")
    for index in indices:
        commit(archive, index)
    return archive


def shard_of(server: CachedArchive, index: int) -> bytes:
    return server.shard_file(index).read_bytes()


# -- the format ------------------------------------------------------------------------------------------


def test_each_chunk_is_cut_out_as_it_was(server: Server) -> None:
    """Also with a missing chunk, a short one, and one that is appended, which moves no other one."""
    a = server("a")
    meta = FrameMeta(times_ms=(5.0, 6.0, 7.0, 9.0), ids=(3, 4, 5, 7))
    commit_body(a, claims_of(0, frames_of(0)), body_of(frames_of(0), meta))
    commit(a, 1)
    commit(a, 3, frames_of(3, n=2))
    shards = {index: shard_of(a, index) for index in (0, 1, 3)}
    assert all(is_whole(shard, GEOMETRY) for shard in shards.values())
    assert not is_whole(shards[1][:40] + b"?" + shards[1][41:], GEOMETRY)
    data = b"".join(merged(GRID, {0: shards[0], 3: shards[3]}))
    before = MergedObject.read(data[-GRID.tail_nbytes :], GRID, "it")
    data = b"".join(merged(GRID, {1: shards[1]}, (before, data)))
    layout = MergedObject.read(data[-GRID.tail_nbytes :], GRID, "it")
    assert {place: part.offset for place, part in before.parts.items()}.items() <= {
        place: part.offset for place, part in layout.parts.items()
    }.items()
    for index, shard in shards.items():
        part = layout.parts[index]
        assert layout.shard(index, data[part.offset : part.offset + part.nbytes]) == shard


@pytest.mark.parametrize("place", [0, 9, 30, 120, -5])
def test_a_damaged_end_is_an_error(server: Server, place: int) -> None:
    """Directory and index have checksums."""
    a = with_chunks(server, 0)
    tail = bytearray(b"".join(merged(GRID, {0: shard_of(a, 0)}))[-GRID.tail_nbytes :])
    tail[place] ^= 1
    with pytest.raises(ShardError):
        MergedObject.read(bytes(tail), GRID, "it")


@pytest.mark.parametrize(
    ("chunk_size", "fps", "object_s", "expected"),
    [(3, 30.0, 2.0, 20), (12, 120.0, 2.0, 20), (30, 30.0, 2.0, 1), (7, 30.0, 2.0, 9), (3, 30.0, 0.0, 1)],
)
def test_the_number_of_chunks_in_an_object(
    chunk_size: int, fps: float, object_s: float, expected: int
) -> None:
    """At least 2 s, if the chunks have less than 1 s."""
    geometry = Geometry(chunk_size, 120, 160, "uint8")
    assert grid_for(geometry, fps, object_s) == Grid(expected, chunk_size)


def test_objects_of_large_frames_stay_small() -> None:
    """An object is read whole: it has at most 128 MB of decoded frames."""
    geometry = Geometry(10, 2048, 2048, "uint16")
    assert grid_for(geometry, 1000.0, 2.0).n_chunks == 1
    assert grid_for(Geometry(1, 2048, 2048, "uint16"), 100.0, 2.0).n_chunks == 16


# -- a growing stream ------------------------------------------------------------------------------------


def test_readers_of_the_store_see_the_merged_frames(any_store: Store, tmp_path: Path) -> None:
    """zarr-python reads each object once it is merged, with as many times; other servers read all chunks at once."""
    server = merging_servers(any_store, tmp_path)
    a, b = server("a"), server("b")
    for index in range(9):
        commit(a, index)
        a.mirror()
        n_objects = (index + 1) // 4
        assert np.array_equal(in_store(any_store, "frames"), all_frames(*range(index + 1))[: 16 * n_objects])
        assert np.array_equal(in_store(any_store, "chunk_frames"), [4] * 4 * n_objects)
        assert np.allclose(in_store(any_store, "time"), np.arange(16 * n_objects) / 100)
        b.follow()
        assert np.array_equal(b.frames(0, 99), all_frames(*range(index + 1)))
    assert objects_of(any_store) == ("8", "0-1")
    a.finish()
    assert objects_of(any_store) == ("", "0-2")
    assert np.array_equal(in_store(any_store, "frames"), all_frames(*range(9)))
    for archive in (a, b, server("c")):
        assert archive.stored() == indices_of("0-8")
        assert np.array_equal(archive.frames(0, 36), all_frames(*range(9)))
        assert archive.files.damage.notes() == []


def test_xarray_opens_the_growing_stream(server: Server, store: Store) -> None:
    """All arrays along time have one length at each moment."""
    import xarray

    a = server("a")
    for index in range(6):
        commit(a, index)
        a.mirror()
        with xarray.open_zarr(Path(store.name) / "streams/one/frames.zarr", chunks=None) as opened:
            assert opened.sizes["time"] == 16 * ((index + 1) // 4)


def test_a_cache_is_filled_from_merged_objects(server: Server) -> None:
    """Its folder has each chunk as a file, and the documents of a server with its own data folder."""
    a = server("a")
    meta = FrameMeta(times_ms=(5.0, 6.0, 7.0, 9.0), ids=(3, 4, 5, 7))
    commit_body(a, claims_of(0, frames_of(0)), body_of(frames_of(0), meta))
    for index in (1, 2, 3, 4):
        commit(a, index)
    stamps, times = a.stamps(0), read_zarr(a.folder, "time")
    a.finish()
    shutil.rmtree(a.folder)
    a = server("a")
    assert a.files.damage.notes() == []
    assert np.array_equal(read_zarr(a.folder, "time"), times)
    assert not a.shard_file(0).exists()
    assert a.stamps(0) == stamps
    assert np.array_equal(a.frames(0, 4), frames_of(0))
    assert a.shard_file(3).exists()  # fetched with the first one
    assert not a.shard_file(4).exists()
    assert np.array_equal(read_zarr(a.folder)[:16], all_frames(0, 1, 2, 3))


# -- uploads of merged chunks ----------------------------------------------------------------------------


def test_a_repeat_of_a_merged_chunk(any_store: Store, tmp_path: Path) -> None:
    """200 with equal frames and 409 with others, at a server that merged it, one that was opened before, and a new
    one; it leaves no object."""
    server = merging_servers(any_store, tmp_path)
    a, old = server("a"), server("old")
    for index in range(4):
        commit(a, index)
    a.mirror()
    assert objects_of(any_store) == ("", "0")
    for archive in (a, old, server("new")):
        assert commit(archive, 2).repeated
        with pytest.raises(ConflictError, match="stored already, with other frames"):
            commit(archive, 3, frames_of(9))
        assert objects_of(any_store) == ("", "0")
    assert np.array_equal(server("newest").frames(0, 16), all_frames(0, 1, 2, 3))


def test_a_late_chunk_is_appended(server: Server, store: Store) -> None:
    """An object is merged without a chunk that is missing for long; when that comes it is added to the object."""
    a = server("a")
    for index in range(4 * (WAIT + 2)):
        if index != 5:
            commit(a, index)
    a.mirror()
    assert objects_of(store) == ("", f"0-{WAIT + 1}")
    b = server("b")
    assert b.missing_ranges() == [(5, 5)]
    expected = all_frames(*range(4 * (WAIT + 2)))
    expected[20:24] = 0
    assert np.array_equal(in_store(store, "frames"), expected)
    commit(b, 5)
    assert objects_of(store)[0] == "5"
    a.follow(all_chunks=True)
    a.mirror()
    assert objects_of(store)[0] == ""
    assert np.array_equal(in_store(store, "frames"), all_frames(*range(4 * (WAIT + 2))))
    assert not list(store.keys("streams/one/incomplete"))
    assert server("c").missing_ranges() == []


def test_a_damaged_chunk_in_an_object_is_replaced(server: Server, store: Store) -> None:
    """By the next upload of it, as in an object of its own."""
    a = with_chunks(server, 0, 1, 2, 3)
    a.finish()
    raw = store.fetch(MERGED.format(0))
    part = SharedStream.merged_layout(a.shared, 0).parts[1]
    spoiled = part.offset + part.nbytes // 2
    store.put(MERGED.format(0), raw[:spoiled] + b"\xff\xff\xff" + raw[spoiled + 3 :])
    b = server("b")
    with pytest.raises(ShardError):
        b.frames(4, 8)
    shutil.rmtree(b.shard_file(1).parent)
    assert not commit(b, 1).repeated
    assert np.array_equal(server("c").frames(0, 16), all_frames(0, 1, 2, 3))
    assert objects_of(store) == ("", "0")


def test_an_object_without_a_valid_end_hides_no_chunk_that_comes_again(server: Server, store: Store) -> None:
    """Its chunks can't be read any more; one that is sent again can, and the object is not removed."""
    a = with_chunks(server, 0, 1, 2, 3)
    a.finish()
    raw = store.fetch(MERGED.format(0))
    store.put(MERGED.format(0), raw[:-1])
    b = server("b")
    with pytest.raises(ShardError):
        b.frames(4, 8)
    assert not commit(b, 1).repeated
    b.mirror()
    c = server("c")
    assert np.array_equal(c.frames(4, 8), frames_of(1))
    assert store.fetch(MERGED.format(0)) == raw[:-1]


def test_a_damaged_chunk_is_not_merged(server: Server, store: Store) -> None:
    """It stays an object of its own until it is sent again."""
    with_chunks(server, 0, 1, 2)
    raw = store.fetch(SHARD.format(1))
    store.put(SHARD.format(1), raw[:40] + b"\xff\xff\xff" + raw[43:])
    b = server("b")
    b.finish()
    assert objects_of(store) == ("1", "0")
    commit(server("c"), 1)
    server("d").finish()
    assert objects_of(store) == ("", "0")
    assert np.array_equal(in_store(store, "frames"), all_frames(0, 1, 2))


# -- two mergers, kills, readers in between --------------------------------------------------------------


def killed_after_each_request(
    folder: Path,
    tmp_path: Path,
    work: Callable[[CachedArchive], object],
    check: Callable[[Store, Server], None],
) -> int:
    """Let ``work`` fail after 0, 1, 2 ... requests, each time on a new copy of the store in ``folder``: afterwards, and
    after it was done again by another process, ``check`` must hold. Returns the number of its requests."""
    for answered in range(400):
        copy = shutil.copytree(folder, tmp_path / f"store {answered}")
        store, caches = UnreliableStore(copy), tmp_path / f"caches {answered}"

        def server(name: str, store: Store = store, caches: Path = caches) -> CachedArchive:
            shared = SharedStream(store, "one")
            return CachedArchive.open_shared(caches / name / "one", shared, object_s=OBJECT_S)

        killed = server("killed")
        store.left = answered
        try:
            work(killed)
        except StoreUnavailableError:
            store.left = None
            check(store, server)
            work(server("next"))
            check(store, server)
        else:
            return answered
        finally:
            store.left = None
            shutil.rmtree(copy)
            shutil.rmtree(caches)
    raise AssertionError("it never ended")


def test_a_merger_that_is_killed_after_any_request(server: Server, store: Store, tmp_path: Path) -> None:
    """A new process, and zarr-python, read all frames after each; the next one completes the work."""
    a = with_chunks(server, 0, 1, 2, 3, 5, 6)
    frames = a.frames(0, 28)

    def check(store: Store, _server: Server) -> None:
        stream = SharedStream(store, "one")
        stream.read_about()
        assert stream.listing().chunks == indices_of("0-3,5-6")
        for index in stream.listing().chunks:
            assert stream.chunk(index) == shard_of(a, index)
        with suppress(ObjectMissingError):
            store.head("streams/one/frames.zarr/zarr.json")
            found = in_store(store, "frames")
            assert np.array_equal(found, frames[: len(found)])

    assert killed_after_each_request(Path(store.name), tmp_path, CachedArchive.finish, check) > 20
    server("b").finish()
    assert objects_of(store) == ("", "0-1")
    assert np.array_equal(in_store(store, "frames"), frames)


def test_a_repeat_that_is_killed_after_any_request(server: Server, store: Store, tmp_path: Path) -> None:
    """A merged chunk is sent with other frames: whatever is left of that, the first one counts."""
    a = with_chunks(server, 0, 1, 2, 3)
    a.finish()

    def repeat(archive: CachedArchive) -> None:
        archive.shared._seen = IndexSet()  # it does not know yet that anything is merged
        with pytest.raises(ConflictError):
            commit(archive, 2, frames_of(7))

    def check(store: Store, server: Server) -> None:
        archive = server(f"{uuid.uuid4()}")
        assert np.array_equal(archive.frames(0, 16), all_frames(0, 1, 2, 3))
        archive.merge_chunks()
        assert objects_of(store) == ("", "0")

    assert killed_after_each_request(Path(store.name), tmp_path, repeat, check) > 3


def test_two_mergers_at_once(any_store: Store, tmp_path: Path) -> None:
    """Each knows other chunks at first: the objects have those of both, and no chunk is left or lost."""
    server = merging_servers(any_store, tmp_path)
    archives = [server(name) for name in "ab"]
    for index in range(12):
        commit(archives[index % 2], index)
    errors: list[BaseException] = []

    def merge(archive: CachedArchive) -> None:
        try:
            for _ in range(3):
                archive.merge_chunks()
            archive.follow(all_chunks=True)
            archive.finish()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=merge, args=(archive,)) for archive in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert objects_of(any_store) == ("", "0-2")
    assert not list(any_store.keys("streams/one/incomplete"))
    assert np.array_equal(in_store(any_store, "frames"), all_frames(*range(12)))


def test_a_merger_that_was_frozen_changes_nothing(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops before it stores the object; another process merges, and removes frames by a rule; then it goes on."""
    a, b = server("a"), server("b")
    for index in range(4):
        commit(a, index)
    b.follow()
    put, stopped = type(store).put, []

    def frozen(self: Store, key: str, data: Any, **conditions: Any) -> str:
        if key == MERGED.format(0) and not stopped:
            stopped.append(key)
            b.finish()
            b.thinned.plan(lambda first, n: np.arange(first, first + n) % 2 == 0)
            b.update_about(thinning={"every": 2, "planned": True})
            for index in range(4):
                b.thinned.remove(index, b.stored())
        return put(self, key, data, **conditions)

    monkeypatch.setattr(type(store), "put", frozen)
    a.merge_chunks()
    assert stopped
    expected = all_frames(0, 1, 2, 3)
    expected[1::2] = 0
    assert np.array_equal(server("c").frames(0, 16), expected)
    assert np.array_equal(in_store(store, "frames"), expected)
    assert objects_of(store) == ("", "0")


def test_two_mergers_that_append_at_once(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has read the object before the other one replaces it, and knows another late chunk."""
    a, b = server("a"), server("b")
    for index in (0, 1):
        commit(a, index)
    a.finish()
    commit(a, 2)
    commit(b, 3)
    put, stopped = type(store).put, []

    def between(self: Store, key: str, data: Any, **conditions: Any) -> str:
        if key == MERGED.format(0) and not stopped:
            stopped.append(key)
            b.merge_chunks()
        return put(self, key, data, **conditions)

    monkeypatch.setattr(type(store), "put", between)
    a.merge_chunks()
    assert stopped
    assert objects_of(store) == ("", "0")
    assert np.array_equal(server("c").frames(0, 16), all_frames(0, 1, 2, 3))


def test_a_chunk_that_is_merged_while_the_objects_are_listed(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list comes in parts, by the names: the merged objects first, and then those of single chunks."""
    a = with_chunks(server, 0, 1, 2, 3)
    stream = SharedStream(store, "one")
    stream.read_about()
    sizes = type(store).sizes

    def in_parts(self: Store, folder: str) -> Iterator[tuple[str, int]]:
        if folder != "streams/one":
            yield from sizes(self, folder)
            return
        yield from [found for found in sizes(self, folder) if "/frames/c." in found[0]]
        monkeypatch.setattr(type(store), "sizes", sizes)
        a.merge_chunks()
        yield from [found for found in sizes(self, folder) if "/frames/c." not in found[0]]

    monkeypatch.setattr(type(store), "sizes", in_parts)
    assert stream.listing().chunks == indices_of("0-3")
    assert objects_of(store) == ("", "0")


def test_readers_find_each_chunk_at_each_moment(any_store: Store, tmp_path: Path) -> None:
    """While chunks come and are merged, other processes list and read all that were stored before, and zarr-python
    reads no frame that is not there."""
    server = merging_servers(any_store, tmp_path)
    a = with_chunks(server, 0)
    a.mirror()
    stored, ended, expected = [0], threading.Event(), all_frames(*range(40))
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.is_set():
                stream = SharedStream(any_store, "one")
                stream.read_about()
                newest = stored[0]
                assert IndexSet(range(newest + 1)) - stream.listing().chunks == IndexSet()
                for index in range(max(0, newest - 6), newest + 1):
                    assert stream.stamps(index, GEOMETRY).start_unix_ms == START_MS + 40 * index
                    assert stream.chunk(index) == shard_of(a, index)
                frames = in_store(any_store, "frames")
                assert np.array_equal(frames, expected[: len(frames)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for index in range(1, 24):
        commit(a, index)
        stored[0] = index
        a.mirror()
        if errors:
            break
    ended.set()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    assert objects_of(any_store) == ("", "0-5")


# -- removal of frames, deletion -------------------------------------------------------------------------


def test_frames_are_removed_from_merged_objects(server: Server, store: Store) -> None:
    """Each object is replaced once; a chunk that came after the plan stays whole."""
    a = with_chunks(server, *range(7))
    a.finish()
    planned = a.stored()
    a.thinned.plan(lambda first, n: np.arange(first, first + n) % 4 == 0)
    a.update_about(thinning={"every": 4, "planned": True})
    commit(a, 7)
    a.merge_chunks()
    etags = [store.head(MERGED.format(number)).etag for number in (0, 1)]
    freed = [a.thinned.remove(index, planned) for index in planned]
    assert [size > 0 for size in freed] == [True, False, False, False, True, False, False]
    assert [store.head(MERGED.format(number)).etag for number in (0, 1)] != etags
    assert [a.thinned.remove(index, planned) for index in planned] == [0] * 7
    expected = all_frames(*range(8))
    expected[[frame for frame in range(28) if frame % 4]] = 0
    for archive in (a, server("b")):
        assert np.array_equal(archive.frames(0, 32), expected)
    assert np.array_equal(in_store(store, "frames"), expected)


def test_a_deleted_stream_leaves_no_object(server: Server, store: Store, tmp_path: Path) -> None:
    """Merged objects and notes are removed with it."""
    a = with_chunks(server, *range(6))
    a.finish()
    a.delete(tmp_path / "deleted")
    assert list(store.keys("")) == []
    with pytest.raises(ObjectMissingError):
        server("b")


def test_streams_of_earlier_versions_stay_as_they_are(store: Store, tmp_path: Path) -> None:
    """A stream that has chunks already, and whose description names no number: each chunk stays an object."""
    CachedArchive.create_shared(tmp_path / "first" / "one", ABOUT, SharedStream(store, "one"))
    old = CachedArchive.open_shared(tmp_path / "old" / "one", SharedStream(store, "one"))
    commit(old, 0)
    new = CachedArchive.open_shared(tmp_path / "new" / "one", SharedStream(store, "one"), object_s=OBJECT_S)
    for index in range(1, 5):
        commit(new, index)
    new.finish()
    assert objects_of(store) == ("0-4", "")
    document = json.loads(store.fetch("streams/one/frames.zarr/frames/zarr.json"))
    assert document["chunk_grid"]["configuration"]["chunk_shape"] == [4, 5, 6]
