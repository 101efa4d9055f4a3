"""Archives on one store: each chunk is stored once, whichever server receives it, and the folder of a server may be
deleted."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atomstream.errors import ConflictError
from atomstream.index_ranges import IndexSet
from atomstream.records import FrameMeta
from atomstream.server.archive.archive_files import ArchiveDeletedError
from atomstream.server.archive.chunk_index import ChunkIndex
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.store import ObjectMissingError, Store, StoreUnavailableError
from tests.server.archive.archive_helpers import (
    START_MS,
    body_of,
    claims_of,
    commit,
    commit_body,
    frames_of,
    read_zarr,
)
from tests.server.archive.shared_archives import (
    SHARD,
    Server,
    UnreliableStore,
    all_frames,
    indices_of,
    servers,
)
from tests.stores import s3_store

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS


@pytest.fixture(params=["folder", "s3"])
def any_server(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Server]:
    if request.param == "folder":
        yield servers(store, tmp_path)
        return
    engine: SeaweedFS = request.getfixturevalue("s3_server")
    made = s3_store(engine, f"archive/{uuid.uuid4()}")
    yield servers(made, tmp_path)
    made.close()


def test_chunks_of_two_servers_are_one_stream(any_server: Server) -> None:
    """A repeat is equal on either server, other frames are refused on either; both read all, and so does a third."""
    a, b = any_server("a"), any_server("b")
    assert not commit(a, 0).repeated
    assert not commit(b, 1).repeated
    assert not commit(a, 2).repeated
    assert commit(b, 0).repeated
    assert commit(a, 1).repeated
    for archive in (a, b):
        with pytest.raises(ConflictError, match="stored already, with other frames"):
            commit(archive, 2, frames_of(7))
    assert a.follow() == []
    assert b.follow() == [2]
    for archive in (a, b, any_server("c")):
        assert archive.stored() == indices_of("0-2")
        assert np.array_equal(archive.frames(0, 12), all_frames(0, 1, 2))
        assert np.array_equal(read_zarr(archive.folder, "chunk_frames"), [4, 4, 4])


def test_a_deleted_cache_is_filled_again(server: Server) -> None:
    """Chunks, times and ids come from the store; the cached documents equal those of a server with its own data
    folder.
    """
    a = server("a")
    meta = FrameMeta(times_ms=(5.0, 6.0, 7.0, 9.0), ids=(3, 4, 5, 7))
    commit_body(a, claims_of(0, frames_of(0)), body_of(frames_of(0), meta))
    commit(a, 2)
    times, ids = read_zarr(a.folder, "time"), read_zarr(a.folder, "frame_id")
    shutil.rmtree(a.folder)
    a = server("a")
    assert a.stored() == indices_of("0,2")
    assert a.missing_ranges() == [(1, 1)]
    assert np.array_equal(read_zarr(a.folder, "time"), times, equal_nan=True)
    assert np.array_equal(read_zarr(a.folder, "frame_id"), ids)
    stamps = a.stamps(0)
    assert stamps is not None
    assert stamps.meta == meta
    assert not a.shard_file(2).exists()
    assert np.array_equal(a.frames(8, 12), frames_of(2))
    assert a.shard_file(2).exists()


def test_a_damaged_copy_of_a_chunk_is_fetched_again(server: Server, store: Store) -> None:
    """The folder is a cache: a shard in it that can't be read is not damage of the stream."""
    a = server("a")
    commit(a, 0)
    raw = a.shard_file(0).read_bytes()
    a.shard_file(0).write_bytes(raw[:40] + b"???" + raw[43:])
    assert np.array_equal(a.frames(0, 4), frames_of(0))
    assert a.shard_file(0).read_bytes() == raw == store.fetch(SHARD.format(0))
    assert a.files.damage.notes() == []


def test_a_damaged_object_is_replaced_by_the_next_upload(server: Server, store: Store) -> None:
    """An upload of the same chunk mends it, as in a folder."""
    a, b = server("a"), server("b")
    commit(a, 0)
    raw = store.fetch(SHARD.format(0))
    store.put(SHARD.format(0), raw[:40])
    assert not commit(b, 0).repeated
    assert store.fetch(SHARD.format(0)) == raw


def test_an_unreachable_store_leaves_nothing_half_stored(server: Server, store: UnreliableStore) -> None:
    """An upload fails at each of its requests to the store, then succeeds; what is cached can be read all the time."""
    a = server("a")
    commit(a, 0)
    for answered in range(20):
        store.left = answered
        try:
            done = commit(a, 1)
        except StoreUnavailableError:
            assert a.stored() == indices_of("0")
            assert np.array_equal(a.frames(0, 4), frames_of(0))
            continue
        break
    assert not done.repeated or answered > 1
    store.left = 0
    assert np.array_equal(a.frames(0, 8), all_frames(0, 1))
    with pytest.raises(StoreUnavailableError):
        server("c")


def test_a_stream_is_opened_with_all_chunks_or_not_at_all(server: Server, store: UnreliableStore) -> None:
    """The store becomes unreachable after each of the requests of an opening: the folder keeps the times of all
    chunks."""
    a, b = server("a"), server("b")
    for index in range(3):
        commit(a, index)
    b.follow()
    b.finish()
    times = read_zarr(b.folder, "time")
    for answered in range(40):
        store.left = answered
        try:
            opened = server("b")
        except StoreUnavailableError:
            assert np.array_equal(read_zarr(b.folder, "time"), times)
            continue
        break
    assert answered > 1
    store.left = None
    assert opened.stored() == indices_of("0-2")
    assert np.array_equal(opened.frames(0, 12), all_frames(0, 1, 2))


def test_a_chunk_whose_server_died_after_storing_it_is_there(server: Server, store: Store) -> None:
    """SIGKILL between the store and the folder: the next open has the chunk, and a repeat is answered as one."""
    a, b = server("a"), server("b")
    commit(a, 0)
    a_folder_before = server("a")  # has read chunk 0 only
    commit(b, 1)  # for "a" this equals a chunk of a process that died
    assert commit(a_folder_before, 1).repeated
    assert server("a").stored() == indices_of("0-1")


def test_a_repeat_whose_first_attempt_failed_is_new_to_this_server(
    server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply of the store was lost, or the disk refused the columns: the analysis has not had the chunk yet."""
    a = server("a")
    create_chunk, add = SharedStream.create_chunk, ChunkIndex.add

    def unanswered(stream: SharedStream, index: int, shard: bytes) -> bool:
        create_chunk(stream, index, shard)
        raise StoreUnavailableError("no reply")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    for index, (kind, name, failing, whole) in enumerate(
        ((SharedStream, "create_chunk", unanswered, create_chunk), (ChunkIndex, "add", full, add))
    ):
        monkeypatch.setattr(kind, name, failing)
        with pytest.raises((StoreUnavailableError, OSError)):
            commit(a, index)
        monkeypatch.setattr(kind, name, whole)
        again, third = commit(a, index), commit(a, index)
        assert (again.repeated, again.known) == (True, False)
        assert (third.repeated, third.known) == (True, True)


def test_chunks_of_other_servers_are_reported_once_whoever_found_them(server: Server) -> None:
    """Chunks of other servers are found by a copy to the store, a request or the end; pop_followed returns each of them
    once."""
    a, b = server("a"), server("b")
    commit(a, 0)
    commit(b, 1)
    b.mirror()
    a.mirror()
    commit(b, 3)
    a.follow(all_chunks=True)
    commit(b, 2)
    a.finish()
    assert a.pop_followed() == indices_of("1-3")
    assert not a.has_followed
    assert a.pop_followed() == IndexSet()


def test_of_many_servers_one_stores_a_chunk(store: Store, tmp_path: Path) -> None:
    """Four servers receive one index with different frames at once: one is stored, and three are refused."""
    server = servers(store, tmp_path)
    archives = [server(f"s{number}") for number in range(4)]
    results: list[object] = []

    def upload(number: int) -> None:
        try:
            results.append(commit(archives[number], 0, frames_of(number)).repeated)
        except ConflictError:
            results.append("refused")

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["False", "refused", "refused", "refused"]


def test_the_first_chunk_fixes_the_shape_for_all_servers(server: Server) -> None:
    """A chunk of another shape is refused by a server that has not seen one yet."""
    a, b = server("a"), server("b")
    commit(a, 0)
    with pytest.raises(ConflictError, match="geometry"):
        commit(b, 1, frames_of(1, shape=(7, 8)))
    assert b.stored() == IndexSet()
    assert not commit(b, 1).repeated


def test_all_servers_count_time_from_one_zero(server: Server) -> None:
    """The cameras' times are not even, and each server begins with another chunk: a frame has one time everywhere."""
    a, b, c = server("a"), server("b"), server("c")
    starts = {2: START_MS + 87.0, 0: START_MS + 3.0, 1: START_MS + 41.0}
    for archive, (index, start) in zip((a, b, c), starts.items(), strict=True):
        commit(archive, index, start_unix_ms=start, end_unix_ms=start + 40.0)
    for archive in (a, b, c):
        archive.follow(all_chunks=True)
    times = read_zarr(a.folder, "time")
    for archive in (a, b, c, server("d")):
        assert archive.origin_unix_ms == START_MS + 7.0
        assert np.array_equal(read_zarr(archive.folder, "time"), times)
        assert archive.description["start_unix_ms"] == START_MS + 7.0


def test_servers_of_an_earlier_version_are_brought_to_one_zero(server: Server, store: Store) -> None:
    """The description has no zero of time, and each cache has its own: that of the next chunk's server is used."""
    a, b = server("a"), server("b")
    commit(a, 0)
    key = "streams/one/stream.json"
    about = json.loads(store.fetch(key))
    del about["start_unix_ms"]
    store.put(key, json.dumps(about).encode())
    b.refresh_about()
    commit(b, 1, start_unix_ms=START_MS + 45.0, end_unix_ms=START_MS + 85.0)
    about["start_unix_ms"] = START_MS + 5.0
    store.put(key, json.dumps(about).encode())
    a, b = server("a"), server("b")
    for archive in (a, b):
        assert archive.origin_unix_ms == START_MS + 5.0
        expected = [-0.005, 0.005, 0.015, 0.025, 0.04, 0.05, 0.06, 0.07]
        assert np.allclose(read_zarr(archive.folder, "time"), expected)


def test_descriptions_of_two_servers_are_merged(server: Server) -> None:
    """Each field keeps the last value that was given to it; lost chunks of both are listed."""
    a, b = server("a"), server("b")
    a.update_about(name="Growth 002")
    b.update_about(**{**b.description, "status": "success"})
    assert not b.refresh_about()
    assert a.refresh_about()
    for archive in (a, b):
        assert archive.description["name"] == "Growth 002"
        assert archive.description["status"] == "success"
    a.mark_lost(indices_of("3"))
    b.mark_lost(indices_of("5-6"))
    assert b.about["lost"] == "3,5-6"


def test_a_deleted_stream_is_gone_on_all_servers(server: Server, store: Store, tmp_path: Path) -> None:
    """Nothing of it stays in the store; another server notices it at its next change."""
    a, b = server("a"), server("b")
    commit(a, 0)
    a.delete(tmp_path / "a" / ".deleted" / "one")
    assert list(store.keys("")) == []
    with pytest.raises(ArchiveDeletedError):
        b.update_about(name="x")
    with pytest.raises(ObjectMissingError):
        server("c")
