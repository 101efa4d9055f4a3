"""Copies of a growing stream in the store that servers share: documents, columns, results; for other readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.small_arrays import SmallArray
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store import Store
from tests.server.archive.archive_helpers import (
    commit,
    frames_of,
    read_zarr,
)
from tests.server.archive.shared_archives import (
    SHARD,
    Server,
    all_frames,
    servers,
    servers_of,
)


def in_store(store: Store, name: str) -> Any:
    """An array as zarr-python reads it from the store."""
    import zarr
    from zarr.storage import LocalStore as ZarrFolder
    from zarr.storage import ObjectStore

    if isinstance(store, LocalStore):
        group = zarr.open_group(ZarrFolder(Path(store.name) / "streams/one/frames.zarr"), mode="r")
    else:
        group = zarr.open_group(ObjectStore(store._open_bucket), path="streams/one/frames.zarr", mode="r")
    return np.asarray(group[name][:])


def test_the_store_has_a_zarr_group_that_grows(server: Server, store: Store) -> None:
    """After each copy, by whichever server, readers of the store see every chunk, and their times."""
    a, b = server("a"), server("b")
    for index, archive in enumerate((a, b, b, a)):
        commit(archive, index)
        archive.mirror()
        assert np.array_equal(in_store(store, "frames"), all_frames(*range(index + 1)))
        assert np.array_equal(in_store(store, "chunk_frames"), [4] * (index + 1))
        assert np.allclose(in_store(store, "time"), np.arange(4 * (index + 1)) / 100)


def test_no_copy_has_fewer_chunks_than_the_one_before(server: Server, store: Store) -> None:
    """Two servers copy at once what each has: at the end the copy has the chunks of both."""
    a, b = server("a"), server("b")
    commit(a, 0)
    commit(b, 1)

    def copy(archive: CachedArchive) -> None:
        for _ in range(5):
            archive.flush_metadata()
            archive.mirror()

    threads = [threading.Thread(target=copy, args=(archive,)) for archive in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(in_store(store, "chunk_frames"), [4, 4])


def test_an_ended_stream_is_whole_in_the_store(server: Server, store: Store) -> None:
    """Results and their records are copied at the end; a server without a cache has them."""
    a = server("a")
    commit(a, 0)
    a.write_values("intensity", 0, np.arange(4, dtype=np.float32), attributes={"source": "analysis"})
    (a.folder / "analysis").mkdir()
    for name in ("results.log", "state", "running"):
        (a.folder / "analysis" / name).write_bytes(name.encode())
    a.finish()
    b = server("b")
    assert np.array_equal(read_zarr(b.folder, "intensity"), np.arange(4, dtype=np.float32))
    assert [path.name for path in (b.folder / "analysis").iterdir()] == ["results.log"]
    assert np.array_equal(in_store(store, "intensity"), np.arange(4, dtype=np.float32))


def test_arrays_of_results_stay_when_another_server_copies(server: Server, store: Store) -> None:
    """One server analyses, and another one receives: readers of the store see the results, as long as the frames."""
    a, analyst = server("a"), server("analyst")
    commit(a, 0)
    a.mirror()
    analyst.follow()
    analyst.write_values("intensity", 0, np.arange(4, dtype=np.float32), attributes={"source": "analysis"})
    analyst.mirror()
    for index in (1, 2):
        commit(a, index)
        a.mirror()
        expected = [*range(4), *[np.nan] * 4 * index]
        assert np.array_equal(in_store(store, "intensity"), expected, equal_nan=True)
        assert len(in_store(store, "frames")) == 4 * index + 4


def test_a_long_stream_opens_without_its_columns(server: Server, store: Store) -> None:
    """No server has copied its columns: its times are read from all shards, of which one can't be read."""
    a = server("a")
    for index in range(70):
        commit(a, index, frames_of(index, shape=(1, 1)))
    store.put(SHARD.format(66), b"damaged")
    b = server("b")
    assert str(b.stored()) == "0-65,67-69"
    assert np.array_equal(read_zarr(b.folder, "chunk_frames"), [4] * 66 + [0] + [4] * 3)
    assert [note.file for note in b.files.damage.notes()] == ["frames.zarr/frames/c/66/0/0"]


def test_marks_are_copied_while_the_stream_grows(server: Server, store: Store) -> None:
    """Small arrays, which are replaced as a whole, are copied with the columns."""
    a = server("a")
    commit(a, 0)
    for labels in (["shutter"], ["shutter", "anneal"]):
        a.write_small([SmallArray("mark_label", "mark", labels, "label of a mark")])
        a.flush_metadata()
        a.mirror()
        assert in_store(store, "mark_label").tolist() == labels


def test_results_of_the_analyst_are_not_replaced_by_older_ones(
    server: Server, store: Store, tmp_path: Path
) -> None:
    """Another process analyses: a server whose folder has results from before its start leaves those in the store."""
    analyst = server("analyst")
    for index in range(2):
        commit(analyst, index)
    analyst.write_values("intensity", 0, np.arange(4, dtype=np.float32), attributes={"source": "analysis"})
    analyst.finish()
    shared = SharedStream(store, "one")
    restarted = CachedArchive.open_shared(tmp_path / "restarted" / "one", shared, copies=False)
    analyst.write_values("intensity", 4, np.arange(4, 8, dtype=np.float32))
    analyst.finish()
    restarted.finish()
    restarted.mirror()
    assert np.array_equal(in_store(store, "intensity"), np.arange(8, dtype=np.float32))
    analyst.finish()
    assert np.array_equal(in_store(store, "intensity"), np.arange(8, dtype=np.float32))


class _WrittenMeanwhile(LocalStore):
    """After ``left`` further requests for objects, ``write()`` is called once."""

    left = -1
    write: Callable[[], object]

    def fetch(self, key: str, offset: int = 0, length: int | None = None, **more: int) -> bytes:
        self.left -= 1
        if self.left == -1:
            self.write()
        return super().fetch(key, offset, length, **more)


def _write_results(owner: CachedArchive, number: int) -> None:
    """All results of an ended stream, in version ``number``, which has one column more than the one before."""
    for name in ("intensity", f"added_{number}"):
        owner.write_values(name, 0, np.full(4, number, np.float32), attributes={"source": "analysis"})
    for name in ("position", "checkpoint", "results.log", "profiles"):
        (owner.folder / "analysis" / name).write_bytes(b"%d" % number * number)
    owner.finish()


def test_a_file_of_an_empty_cache_is_new_enough_for_the_others(tmp_path: Path) -> None:
    """The owner stores newer results while a server copies them, at any moment.

    The position states which records are in the files: those that follow it are applied to the columns again. A record
    in the log is not, so its columns must be there.
    """
    for moment in (0, 1, 2, 3, 4, 7, 12):
        store = _WrittenMeanwhile(tmp_path / f"store {moment}")
        owner = servers(store, tmp_path / f"{moment}")("owner")
        (owner.folder / "analysis").mkdir()
        commit(owner, 0)
        _write_results(owner, 1)
        store.write = partial(_write_results, owner, 2)
        store.left = moment
        opened = servers_of(store, tmp_path / f"{moment}")("empty")
        assert store.left < 0, "the owner was to write during the opening"
        names = ("position", "checkpoint", "results.log", "profiles")
        versions = [len((opened.folder / "analysis" / name).read_bytes()) for name in names]
        position, checkpoint, records, profiles = versions
        assert position <= checkpoint <= records <= profiles, moment
        for name in ("intensity", f"added_{records}"):
            assert records <= read_zarr(opened.folder, name)[0], (name, moment)
