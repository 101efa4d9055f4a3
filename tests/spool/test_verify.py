"""The check of what an earlier process left, record by record (P11)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from atomstream.spool import DiskFailed, Quarantined, SpooledChunk, StreamSpool, VerifyResult, verify_records
from atomstream.spool.record import WINDOW_BYTES
from tests.spool.spool_helpers import FaultyDisk, delivered, new_stream, payload, reopened, shard


def left_behind(root: Path, count: int = 3) -> Path:
    """A stream's folder with ``count`` records, as a dead process leaves it."""
    stream = new_stream(root)
    for index in range(count):
        stream.put(shard(index))
    stream.close()
    return stream.folder


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def findings(stream: StreamSpool) -> list[VerifyResult]:
    return [finding for finding in verify_records(stream) if finding is not None]


def test_a_damaged_payload_is_put_aside_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit in a payload: quarantined under its name, journalled, logged; its neighbours are whole."""
    path = left_behind(tmp_path) / "chunk-00000001.rec"
    flip(path, -1)
    stream = reopened(tmp_path)
    with caplog.at_level(logging.ERROR):
        first, aside, last = findings(stream)
    assert isinstance(first, SpooledChunk)
    assert isinstance(last, SpooledChunk)
    assert (first.index, last.index) == (0, 2)
    assert isinstance(aside, Quarantined)
    assert "does not match its CRC-32C" in aside.reason
    assert aside.reason in caplog.text
    assert (stream.pending(), stream.quarantined()) == ([0, 2], [1])
    assert (path.parent / "quarantine" / path.name).exists()
    stream.close()
    again = reopened(tmp_path)
    assert again.journal_state.states == {0: "pending", 1: "quarantined", 2: "pending"}
    assert again.journal_state.reasons == {1: aside.reason}
    assert delivered(again, 2) == payload(shard(2))
    again.close()


def test_large_records_are_read_in_windows(tmp_path: Path) -> None:
    """Between any two windows of a large record somebody else may have the disk."""
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=900))
    assert chunk is not None
    steps = list(verify_records(stream))
    assert len(steps) == 1 + -(-chunk.header.info.nbytes // WINDOW_BYTES)
    assert steps[-1] == chunk
    stream.close()


def test_what_is_settled_meanwhile_is_passed_over(tmp_path: Path) -> None:
    """A record that was purged while the check was under way is neither found whole nor damaged."""
    left_behind(tmp_path)
    stream = reopened(tmp_path)
    steps = verify_records(stream)
    while not isinstance(next(steps), SpooledChunk):
        pass
    stream.discard(1, "purged", "too old")
    assert [step.index for step in steps if isinstance(step, SpooledChunk)] == [2]
    assert stream.quarantined() == []
    stream.close()


def test_a_record_that_can_not_be_read_is_put_aside(tmp_path: Path) -> None:
    """A bad sector costs its record alone, and the record stays for another try."""
    left_behind(tmp_path)
    disk = FaultyDisk()
    stream = reopened(tmp_path, disk)
    disk.first = disk.last = len(disk.calls)
    aside, *others = findings(stream)
    assert isinstance(aside, Quarantined)
    assert "could not read a record" in aside.reason
    assert [other.index for other in others if isinstance(other, SpooledChunk)] == [1, 2]
    stream.requeue(0)
    assert delivered(stream, 0) == payload(shard(0))
    stream.close()


def test_a_disk_that_is_gone_condemns_no_record(tmp_path: Path) -> None:
    """Where the disk takes no journal entry either, records stay pending, and are checked once it is back."""
    left_behind(tmp_path, count=1)
    disk = FaultyDisk()
    stream = reopened(tmp_path, disk)
    disk.first, disk.last = len(disk.calls), 10_000
    steps = verify_records(stream)
    assert [next(steps), next(steps)] == [DiskFailed(), DiskFailed()]
    assert stream.pending() == [0]
    disk.heal()
    assert [type(step) for step in steps if step is not None] == [SpooledChunk]
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == [0]
    assert again.journal_state.states == {0: "pending"}
    again.close()
