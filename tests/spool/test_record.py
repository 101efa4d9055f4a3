"""One record: what is read is what was written, or it is refused."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.records import Shard, Timestamp
from atomstream.shard import crc32c_of
from atomstream.spool import record as record_file
from atomstream.spool.record import RecordHead, pack_head, read_head, read_windows, verify, write_record
from atomstream.system.files import FileSystem
from tests.spool.spool_helpers import payload, shard

DISK = FileSystem()


def written(path: Path, of: Shard) -> RecordHead:
    head = RecordHead.of(of)
    write_record(DISK, path, head, of.pieces)
    return head


def plain(pieces: list[bytes]) -> Shard:
    nbytes, crc = sum(map(len, pieces)), crc32c_of(pieces)
    return Shard(
        "s", 0, tuple(pieces), nbytes, crc, (1, 1, 1), "uint8", Timestamp(0.0), b"d" * 16, raw_nbytes=1
    )


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    """The head and the bytes of a record are those of its shard."""
    of = shard(3)
    head = written(tmp_path / "r", of)
    assert read_head(DISK, tmp_path / "r") == verify(DISK, tmp_path / "r") == head
    assert (head.data_id, head.index, head.dims, head.dtype) == (of.data_id, of.index, of.dims, of.dtype)
    assert (head.stamp, head.digest, head.raw_nbytes) == (of.stamp, of.digest, of.raw_nbytes)
    assert b"".join(read_windows(DISK, tmp_path / "r")) == payload(of)
    assert not (tmp_path / "r.tmp").exists()


def test_checksum_is_that_of_the_whole_body(tmp_path: Path) -> None:
    """The head's CRC-32C is the joined payload's, so it can be compared with the server's."""
    assert RecordHead.of(shard(1)).crc32c == google_crc32c.value(payload(shard(1)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 50))
def test_any_pieces_and_any_window(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], window: int
) -> None:
    """However the shard is cut into pieces and the reader into windows, the bytes are the same."""
    path = tmp_path_factory.mktemp("r") / "r"
    written(path, plain(pieces))
    windows = list(read_windows(DISK, path, window))
    assert b"".join(windows) == b"".join(pieces)
    assert all(0 < len(piece) <= window for piece in windows)


def test_more_pieces_than_one_system_call_takes(tmp_path: Path) -> None:
    """Thousands of pieces are written whole."""
    pieces = [bytes([k % 251]) * (k % 7) for k in range(5000)]
    written(tmp_path / "r", plain(pieces))
    assert b"".join(read_windows(DISK, tmp_path / "r")) == b"".join(pieces)


def test_memoryviews_are_pieces_too(tmp_path: Path) -> None:
    """Pieces may be views of a larger buffer."""
    buffer = bytes(range(200))
    view = memoryview(buffer)
    assert crc32c_of([view[:50], buffer[50:90], view[90:]]) == google_crc32c.value(buffer)


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """A record cut off at any byte is refused, and never read to its end."""
    path = tmp_path / "r"
    written(path, shard(0))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordCorruptError):
            read_head(DISK, path)
        with pytest.raises(RecordCorruptError):
            list(read_windows(DISK, path))


def test_a_flipped_bit_at_every_byte(tmp_path: Path) -> None:
    """One flipped bit anywhere is refused before the last window is handed out."""
    path = tmp_path / "r"
    written(path, shard(0))
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        path.write_bytes(damaged)
        handed_out: list[bytes] = []
        with pytest.raises(RecordCorruptError):
            handed_out.extend(read_windows(DISK, path, 100))
        assert sum(map(len, handed_out)) < shard(0).nbytes


def test_longer_than_it_says(tmp_path: Path) -> None:
    """Bytes after the payload are damage too."""
    written(tmp_path / "r", shard(0))
    with (tmp_path / "r").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RecordCorruptError, match="longer or shorter"):
        read_head(DISK, tmp_path / "r")


def test_newer_format_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a newer atomstream is left alone: it is refused, but not as damaged."""
    with monkeypatch.context() as newer:
        newer.setattr(record_file, "VERSION", 2)
        written(tmp_path / "r", shard(0))
    with pytest.raises(SpoolError, match="format 2") as caught:
        read_head(DISK, tmp_path / "r")
    assert not isinstance(caught.value, RecordCorruptError)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    """What the disk can't read is a SpoolError, not damage."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SpoolError) as caught:
            read_head(DISK, path)
        assert not isinstance(caught.value, RecordCorruptError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    """Whatever bytes stand there, the answer is a typed error."""
    path = tmp_path_factory.mktemp("r") / "r"
    path.write_bytes(garbage)
    with pytest.raises(RecordCorruptError):
        read_head(DISK, path)


@pytest.mark.parametrize("body", [b"\x80", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1k\x01", b"\xc0"])
def test_header_that_checks_but_makes_no_sense(tmp_path: Path, body: bytes) -> None:
    """A header with a right checksum but wrong fields is refused, not crashed over."""
    start = record_file._FIXED.pack(record_file.MAGIC, record_file.VERSION, 0, len(body)) + body
    (tmp_path / "r").write_bytes(start + google_crc32c.value(start).to_bytes(4, "little"))
    with pytest.raises(RecordCorruptError, match="can't be read"):
        read_head(DISK, tmp_path / "r")


def test_windows_hold_one_window_at_a_time(tmp_path: Path) -> None:
    """A large record is read in windows of the asked size, the remainder last."""
    body = bytes(3_000_001)
    written(tmp_path / "r", plain([body]))
    sizes = [len(window) for window in read_windows(DISK, tmp_path / "r", 1 << 20)]
    assert sizes == [1 << 20, 1 << 20, 3_000_001 - (2 << 20)]
    assert all(a >= b for a, b in pairwise(sizes))


def test_head_is_small() -> None:
    """A header stays small beside even a tiny chunk."""
    head = dataclasses.replace(RecordHead.of(shard(0)), data_id="x" * 36)
    assert len(pack_head(head)) < 300
