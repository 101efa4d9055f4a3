"""Recycled files: overwriting the files of stored records changes neither data, nor usage, nor leftovers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atomstream.errors import SpoolError
from atomstream.spool import StreamSpool
from atomstream.spool.paths import record_bytes
from atomstream.spool.quota import usage_of
from tests.spool.spool_helpers import (
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
from tests.system.tuning_marks import needs

SIDES = [(40, 40), (40, 20), (20, 40), (400, 40), (900, 1200), (1200, 900), (1200, 40)]
"""Of the frames of a stored record, and of the one written over it; the largest go past the page cache."""
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="no file is kept on Windows"),
    needs("recycle"),
]


def recycled_files(stream: StreamSpool) -> list[Path]:
    return list(stream.folder.glob("spare-*"))


def refused(step: Callable[[], object]) -> bool:
    try:
        step()
    except SpoolError:
        return True
    return False


@pytest.mark.parametrize(("before", "after"), SIDES)
def test_a_record_overwrites_a_stored_one(tmp_path: Path, before: int, after: int) -> None:
    """The next record overwrites the file of a stored one, and has the right length and content."""
    stream = new_stream(tmp_path)
    first = stream.put(shard(0, side=before))
    assert first is not None
    file = first.path.stat().st_ino
    stream.mark_stored(0)
    second = stream.put(shard(1, side=after))
    assert second is not None
    assert second.path.stat().st_ino == file
    assert second.path.stat().st_size == second.nbytes
    assert delivered(stream, 1) == payload(shard(1, side=after))
    assert usage_of(stream.folder) == stream.pending_bytes() == second.nbytes
    stream.close()


def test_recycled_files_are_counted_and_removed(tmp_path: Path) -> None:
    """At most two files are kept, they count as used space, and close() removes them."""
    stream = new_stream(tmp_path)
    for index in range(6):
        stream.put(shard(index))
    for index in range(5):
        stream.mark_stored(index)
    assert 0 < len(recycled_files(stream)) <= 2
    assert usage_of(stream.folder) == record_bytes(stream.folder) > stream.pending_bytes()
    stream.close()
    assert not recycled_files(stream)
    assert usage_of(stream.folder) == stream.pending_bytes() > 0


def test_no_files_are_kept_if_space_is_short(tmp_path: Path) -> None:
    """If the spool is more than half full, no files are kept."""
    stream = new_stream(tmp_path)
    record = stream.put(shard(0))
    assert record is not None
    stream.purge("to start again")
    stream.close()
    small = new_spool(tmp_path / "small", max_bytes=3 * record.nbytes).create_stream(
        "http://a", stream.manifest.spec
    )
    for index in range(2):
        small.put(shard(index))
    small.mark_stored(0)
    assert not recycled_files(small)
    assert usage_of(small.folder) == small.pending_bytes() == record.nbytes
    small.close()


def test_recycled_files_are_removed_for_a_large_record(tmp_path: Path) -> None:
    """A record larger than the limit is written into a spool that only contains a recycled file."""
    spool = new_spool(tmp_path, max_bytes=1 << 20)
    stream = spool.create_stream(ENDPOINT, spec())
    stream.put(shard(0))
    stream.mark_stored(0)
    assert len(recycled_files(stream)) == 1
    large = stream.put(shard(1, side=600))
    assert large is not None
    assert large.nbytes > 1 << 20
    assert not recycled_files(stream)
    assert usage_of(stream.folder) == large.nbytes
    stream.close()


def test_recycled_files_of_another_stream_are_removed(tmp_path: Path) -> None:
    """Recycled files of one stream are removed before another stream's record is refused."""
    spool = new_spool(tmp_path, max_bytes=1 << 20)
    idle, busy = spool.create_stream(ENDPOINT, spec("idle")), spool.create_stream(ENDPOINT, spec("busy"))
    idle.put(shard(0, data_id="idle"))
    idle.mark_stored(0)
    assert len(recycled_files(idle)) == 1
    assert busy.put(shard(0, data_id="busy", side=600)) is not None
    assert not recycled_files(idle)
    assert usage_of(idle.folder) == 0
    idle.close()
    busy.close()


def test_a_file_that_can_not_be_removed_stays_counted(tmp_path: Path) -> None:
    """If overwriting a file fails and removing it fails too, its bytes still count as used."""
    disk = FaultyDisk()
    stream = new_stream(tmp_path, disk)
    stream.put(shard(0))
    stream.mark_stored(0)
    disk.first, disk.last = len(disk.calls), 10**9
    assert refused(lambda: stream.put(shard(1)))
    disk.recover()
    assert usage_of(stream.folder) >= record_bytes(stream.folder) > 0
    stream.close()


def test_a_record_that_is_read_is_not_overwritten(tmp_path: Path) -> None:
    """A chunk that is dropped while it is read can still be read to its end."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.put(shard(1))
    reading = stream.read_windows(0, window=64)
    begun = next(reading)
    stream.discard(0, "purged", "too old")
    stream.mark_stored(1)
    stream.put(shard(2))
    assert begun + b"".join(reading) == payload(shard(0))
    stream.close()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("number", range(14))
def test_a_disk_that_fails_at_any_step(tmp_path: Path, number: int, late: bool) -> None:
    """If any call fails while a file is recycled, all acknowledged data exists and the usage is right."""
    disk = FaultyDisk(late=late)
    stream = new_stream(tmp_path, disk)
    stream.put(shard(0, side=9))
    stream.put(shard(1))
    disk.first = disk.last = len(disk.calls) + number
    refused(lambda: stream.mark_stored(0))
    acknowledged = [1] if refused(lambda: stream.put(shard(2))) else [1, 2]
    disk.recover()
    assert [delivered(stream, index) for index in acknowledged] == [payload(shard(i)) for i in acknowledged]
    stream.put(shard(2))
    assert usage_of(stream.folder) >= record_bytes(stream.folder)
    stream.close()
    again = reopened(tmp_path)
    assert [delivered(again, index) for index in (1, 2)] == [payload(shard(1)), payload(shard(2))]
    again.close()


def test_recycled_files_of_a_dead_process_are_removed(tmp_path: Path) -> None:
    """Recycled files of a dead process are removed when the stream is opened again."""
    stream = new_stream(tmp_path)
    stream.put(shard(0))
    stream.put(shard(1))
    stream.mark_stored(0)
    (spare,) = recycled_files(stream)
    stream.close()
    spare.write_bytes(os.urandom(5000))
    assert new_spool(tmp_path).status()["bytes"] == record_bytes(stream.folder)
    assert not recycled_files(stream)  # every new Spool removes it, whichever stream it then opens
    spare.write_bytes(os.urandom(5000))
    again = reopened(tmp_path)
    assert not recycled_files(again)
    assert usage_of(again.folder) == again.pending_bytes() > 0
    again.close()
