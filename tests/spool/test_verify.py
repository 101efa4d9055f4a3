"""Verification of the records of an earlier process (P11)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from atomstream.spool import DiskFailed, Quarantined, SpooledChunk, StreamSpool, VerifyResult, verify_records
from atomstream.spool.record import WINDOW_BYTES
from tests.spool.spool_helpers import FaultyDisk, delivered, new_stream, payload, reopened, shard


def left_behind(root: Path, count: int = 3) -> Path:
    """A stream's folder with ``count`` records of a dead process."""
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


def test_a_damaged_payload_is_quarantined(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A record with a flipped bit is in quarantine, in the journal and in the log; the others are valid."""
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
    """The caller gets control after each window of a large record."""
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=900))
    assert chunk is not None
    steps = list(verify_records(stream))
    assert len(steps) == 1 + -(-chunk.header.info.nbytes // WINDOW_BYTES)
    assert steps[-1] == chunk
    stream.close()


def test_records_resolved_meanwhile_are_skipped(tmp_path: Path) -> None:
    """A record that was purged during the verification has no result."""
    left_behind(tmp_path)
    stream = reopened(tmp_path)
    steps = verify_records(stream)
    while not isinstance(next(steps), SpooledChunk):
        pass
    stream.discard(1, "purged", "too old")
    assert [step.index for step in steps if isinstance(step, SpooledChunk)] == [2]
    assert stream.quarantined() == []
    stream.close()


def test_an_unreadable_record_is_quarantined(tmp_path: Path) -> None:
    """A record that can't be read is moved into quarantine, where it can be tried again; the others are valid."""
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


def test_records_stay_pending_while_the_disk_fails(tmp_path: Path) -> None:
    """If no journal entry can be written either, records stay pending and are verified when the disk works again."""
    left_behind(tmp_path, count=1)
    disk = FaultyDisk()
    stream = reopened(tmp_path, disk)
    disk.first, disk.last = len(disk.calls), 10_000
    steps = verify_records(stream)
    assert [next(steps), next(steps)] == [DiskFailed(), DiskFailed()]
    assert stream.pending() == [0]
    disk.recover()
    assert [type(step) for step in steps if step is not None] == [SpooledChunk]
    stream.close()
    again = reopened(tmp_path)
    assert again.pending() == [0]
    assert again.journal_state.states == {0: "pending"}
    again.close()
