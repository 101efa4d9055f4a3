"""The spool as a whole: folder names, limits, ages and status."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.spool import JournalEntry, Spool, SpoolStatus, WriteTime
from atomstream.spool.paths import endpoint_folder, record_bytes, stream_folder
from atomstream.spool.quota import MAX_DEFAULT_BYTES, usage_of
from atomstream.spool.record import RecordHeader, record_nbytes
from atomstream.system.files import FileSystem
from tests.spool.spool_helpers import (
    DATA_ID,
    ENDPOINT,
    FaultyDisk,
    delivered,
    new_spool,
    new_stream,
    payload,
    reopened,
    shard,
    spec,
)

RECORD = max(record_nbytes(RecordHeader.of(shard(index))) for index in range(12))
"""The size of one of the kit's records, within a few bytes."""


# Folder names.


@settings(max_examples=300)
@given(st.text(max_size=80))
def test_hostile_ids_have_safe_folder_names(data_id: str) -> None:
    """For any id the folder name is valid on every system: no dots, separators or device names."""
    name = stream_folder(data_id)
    assert name.removeprefix("~").replace("-", "").replace("_", "").isalnum()
    assert name.isascii()
    assert name == name.lower()
    assert len(name) <= 64
    assert name not in {"con", "prn", "aux", "nul", "com1", "lpt1"}


@settings(max_examples=300)
@given(st.text(max_size=40), st.text(max_size=40))
def test_each_id_has_its_own_folder(one: str, other: str) -> None:
    """Different ids have different folders, also on file systems that ignore case."""
    assert (stream_folder(one) == stream_folder(other)) == (one == other)
    assert stream_folder("ABC") != stream_folder("abc")


@pytest.mark.parametrize("data_id", ["../../etc", "", "a/b", "CON", "nul", "\x00", "𝔤", "x" * 300, "\ud800"])
def test_hostile_ids_work(tmp_path: Path, data_id: str) -> None:
    """A stream with a hostile id works, and its folder is inside the spool."""
    stream = new_spool(tmp_path / "spool").create_stream(ENDPOINT, spec(data_id))
    stream.put(shard(0, data_id=data_id))
    stream.close()
    again = new_spool(tmp_path / "spool").open_stream(ENDPOINT, data_id)
    assert again.data_id == data_id
    assert delivered(again, 0) == payload(shard(0, data_id=data_id))
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_endpoints_compare_normalised(tmp_path: Path) -> None:
    """Equivalent spellings of an endpoint have the same streams; another endpoint has others."""
    assert endpoint_folder("HTTP://Host:80/") == endpoint_folder("http://host")
    spool = new_spool(tmp_path)
    spool.create_stream("HTTP://Host:80/", spec()).close()
    assert [found.manifest.endpoint for found in spool.recoverable("http://host/") if found.manifest] == [
        "http://host"
    ]
    assert spool.recoverable("https://host") == []
    spool.create_stream("https://host", spec()).close()
    assert len(spool.streams()) == 2


# Limits.


def test_full_and_free_again(tmp_path: Path) -> None:
    """At its limit the spool refuses a record, and accepts it after another one was removed."""
    stream = new_stream(tmp_path, max_bytes=3 * RECORD)
    for index in range(3):
        stream.put(shard(index))
    with pytest.raises(SpoolFullError, match="spool_max_bytes"):
        stream.put(shard(3))
    assert stream.pending() == [0, 1, 2]
    stream.mark_stored(0)
    assert stream.put(shard(3)) is not None
    stream.close()


def test_quarantined_and_other_streams_count(tmp_path: Path) -> None:
    """The limit covers all streams of the root, quarantined records included, also after a restart."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.quarantine(0, "422")
    stream.close()
    other = new_spool(tmp_path, max_bytes=RECORD).create_stream(ENDPOINT, spec("other"))
    assert new_spool(tmp_path).status()["bytes"] > 0
    with pytest.raises(SpoolFullError):
        other.put(shard(0, data_id="other"))
    other.close()


def test_one_record_over_the_limit_is_accepted_alone(tmp_path: Path) -> None:
    """A record larger than the limit is accepted if the spool is empty, and then no other one."""
    stream = new_stream(tmp_path, max_bytes=10)
    assert stream.put(shard(0)) is not None
    with pytest.raises(SpoolFullError):
        stream.put(shard(1))
    stream.close()


def test_min_free_bytes_are_left_free(tmp_path: Path) -> None:
    """spool_min_free_bytes are left free on the disk."""

    class NearlyFull(FileSystem):
        def free_bytes(self, path: Path) -> int:
            return 10_000_000

    stream = new_stream(tmp_path, NearlyFull(), min_free_bytes=10_000_000)
    with pytest.raises(SpoolFullError, match="spool_min_free_bytes"):
        stream.put(shard(0))
    stream.close()


def test_the_usage_always_equals_the_files(tmp_path: Path) -> None:
    """The usage always equals the size of the files; a torn, missing or wrong number is computed again."""
    disk = FaultyDisk()
    stream = new_stream(tmp_path, disk)
    for index in range(12):
        disk.first = disk.last = len(disk.calls) + index
        disk.code = errno.EIO
        try:
            stream.put(shard(index))
        except SpoolError:
            disk.recover()
            stream.put(shard(index))
        disk.recover()
    for index in range(0, 12, 2):
        stream.mark_stored(index)
    assert usage_of(stream.folder) == record_bytes(stream.folder) > 0
    stream.close()
    for damage in (b"", b"x" * 12, bytes(12), os.urandom(12)):
        (stream.folder / "usage").write_bytes(damage)
        assert new_spool(tmp_path).status()["bytes"] == stream.pending_bytes()
    (stream.folder / "usage").unlink()
    assert new_spool(tmp_path).status()["bytes"] == stream.pending_bytes()


def test_threads_and_streams_share_the_limit(tmp_path: Path) -> None:
    """Many threads with several streams of one process stay below the limit together."""
    spool = new_spool(tmp_path, max_bytes=20 * RECORD)
    streams = [spool.create_stream(ENDPOINT, spec(f"s{k}")) for k in range(3)]

    def fill(k: int) -> None:
        for index in range(100):
            try:
                streams[k].put(shard(index, data_id=f"s{k}"))
            except SpoolFullError:
                return

    threads = [threading.Thread(target=fill, args=(k % 3,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum(stream.pending_bytes() for stream in streams)
    assert 19 * RECORD < total <= 20 * RECORD
    for stream in streams:
        stream.close()


def test_the_default_limit(tmp_path: Path) -> None:
    """The default limit is 20 GB or 10 % of the free space, not counting the spool's own records."""

    class Sized(FileSystem):
        def __init__(self, free: int) -> None:
            self.free = free

        def free_bytes(self, path: Path) -> int:
            return self.free

    assert Spool(tmp_path, disk=Sized(50_000_000_000)).max_bytes == 5_000_000_000
    assert Spool(tmp_path, disk=Sized(10**13)).max_bytes == MAX_DEFAULT_BYTES == 20_000_000_000


def test_a_root_that_can_not_be_made(tmp_path: Path) -> None:
    """A root that is a file, or that can't be written, raises SpoolError with its path."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SpoolError, match="spool_dir"):
        new_spool(tmp_path / "file" / "spool")
    with pytest.raises(SpoolError, match="spool_dir"):
        new_spool(tmp_path / "file")


# Ages.


def test_the_age_is_a_lower_bound() -> None:
    """The age is a lower bound: after a restart at most the new uptime, for another host 0."""
    written = WriteTime("lab-pc", 1000.0)
    assert written.min_age_s(WriteTime("lab-pc", 1600.0)) == 600.0
    assert written.min_age_s(WriteTime("lab-pc", 20.0)) == 20.0
    assert written.min_age_s(WriteTime("other-pc", 1e9)) == 0.0
    assert WriteTime.now().min_age_s(WriteTime.now()) < 60.0


@given(st.floats(0, 1e7), st.lists(st.floats(0, 1e7), max_size=3))
def test_the_age_is_never_too_high(first: float, restarts: list[float]) -> None:
    """For any number of restarts the age is at most the elapsed time."""
    truth, uptime = 0.0, first
    for run in restarts:
        truth, uptime = truth + run, run
    age = WriteTime("pc", first).min_age_s(WriteTime("pc", uptime))
    assert 0.0 <= age <= truth


def test_retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only records that are certainly older are purged, with a reason; a step of the wall clock has no effect."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert stream.expire(3600.0) == []
    later = WriteTime.now()
    monkeypatch.setattr(
        WriteTime, "now", classmethod(lambda _: WriteTime(later.host, later.uptime_s + 4000.0))
    )
    stream.put(shard(1))
    assert stream.expire(3600.0) == [0]
    assert stream.pending() == [1]
    stream.close()
    again = reopened(tmp_path)
    assert again.journal_state.states == {0: "purged", 1: "pending"}
    assert "spool_retention_s" in again.journal_state.reasons[0]
    again.close()


# Status.


def test_status(tmp_path: Path) -> None:
    """The status has the documented keys, and its counts add up."""
    spool = new_spool(tmp_path, max_bytes=123_456, min_free_bytes=7)
    stream = spool.create_stream(ENDPOINT, spec())
    for index in range(6):
        stream.journal.append(JournalEntry("accepted", index, shard(index).info.digest))
        if index < 5:
            stream.put(shard(index))
    stream.mark_stored(0)
    stream.discard(1, "dropped", "no room")
    stream.quarantine(2, "422")
    stream.discard(3, "purged", "asked for")
    status = spool.status()
    assert set(status) == set(get_type_hints(SpoolStatus))
    assert (status["dir"], status["max_bytes"], status["min_free_bytes"]) == (str(tmp_path), 123_456, 7)
    assert status["bytes"] == sum(path.stat().st_size for path in tmp_path.rglob("*.rec*"))
    assert status["free_bytes"] > 0
    assert status["chunks_spooled"] == status["chunks_uploaded"] + status["chunks_not_uploaded"] == 6
    assert (status["chunks_uploaded"], status["chunks_dropped"], status["chunks_failed"]) == (1, 1, 1)
    assert (status["chunks_purged"], status["chunks_pending"]) == (1, 2)
    (one,) = status["streams"]
    assert (one["data_id"], one["endpoint"], one["name"]) == (DATA_ID, ENDPOINT, "a growth")
    assert (one["chunks_on_disk"], one["chunks_quarantined_on_disk"], one["locked"]) == (1, 1, True)
    assert (one["finalizing"], one["ended"], one["problem"]) == (False, False, "")
    stream.journal.append_durable(JournalEntry("finalizing"))
    stream.close()
    (one,) = spool.status()["streams"]
    assert (one["locked"], one["finalizing"]) == (False, True)


def test_the_status_of_an_empty_spool(tmp_path: Path) -> None:
    """The status of an empty spool has no streams and no bytes."""
    status = new_spool(tmp_path / "new").status()
    assert (status["bytes"], status["chunks_spooled"], status["streams"]) == (0, 0, [])
