"""Records: the bytes that are read are those that were written, or an error is raised."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.pipeline.upload import MemoryPayload, Upload
from atomstream.records import Shard, ShardInfo, Timestamp
from atomstream.shard import crc32c_of
from atomstream.spool import record as record_file
from atomstream.spool.record import (
    RecordHeader,
    WriteTime,
    pack_header,
    read_header,
    read_windows,
    verify,
    write_record,
)
from atomstream.system.files import FileSystem
from tests.spool.spool_helpers import payload, shard, spec

DISK = FileSystem()


def written(path: Path, of: Shard) -> RecordHeader:
    header = RecordHeader.of(of)
    write_record(DISK, path, header, of.pieces)
    return header


def plain(pieces: list[bytes]) -> Shard:
    info = ShardInfo(
        data_id="s",
        index=0,
        dims=(1, 1, 1),
        dtype="uint8",
        timestamp=Timestamp(0.0),
        nbytes=sum(map(len, pieces)),
        crc32c=crc32c_of(pieces),
        digest=b"d" * 16,
    )
    return Shard(info, tuple(pieces))


def test_a_record_is_read_back(tmp_path: Path) -> None:
    """The header and the bytes of a record are those of its shard."""
    of = shard(3)
    header = written(tmp_path / "r", of)
    assert read_header(DISK, tmp_path / "r") == verify(DISK, tmp_path / "r") == header
    assert header.info == of.info
    assert b"".join(read_windows(DISK, tmp_path / "r")) == payload(of)
    assert not (tmp_path / "r.tmp").exists()


def test_shard_record_and_upload_have_one_description() -> None:
    """All three hold the same ``ShardInfo`` object, so its fields can't differ between them."""
    made = shard(3)
    header = RecordHeader.of(made)
    upload = Upload(spec(), header.info, MemoryPayload(made.pieces))
    assert upload.info is header.info is made.info
    described = {one.name for one in dataclasses.fields(ShardInfo)}
    for holder in (Shard, RecordHeader, Upload):
        assert not described & {one.name for one in dataclasses.fields(holder)}


def test_the_checksum_covers_the_whole_payload(tmp_path: Path) -> None:
    """The header's CRC-32C is that of the whole payload, so it can be compared with the server's."""
    assert RecordHeader.of(shard(1)).info.crc32c == google_crc32c.value(payload(shard(1)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=12), st.integers(1, 50))
def test_any_pieces_and_any_window(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], window: int
) -> None:
    """The bytes are the same for any division into pieces and any window size."""
    path = tmp_path_factory.mktemp("r") / "r"
    written(path, plain(pieces))
    windows = list(read_windows(DISK, path, window))
    assert b"".join(windows) == b"".join(pieces)
    assert all(0 < len(piece) <= window for piece in windows)


def test_more_pieces_than_one_system_call_accepts(tmp_path: Path) -> None:
    """Thousands of pieces are written completely."""
    pieces = [bytes([k % 251]) * (k % 7) for k in range(5000)]
    written(tmp_path / "r", plain(pieces))
    assert b"".join(read_windows(DISK, tmp_path / "r")) == b"".join(pieces)


def test_memoryviews_are_pieces_too(tmp_path: Path) -> None:
    """Pieces may be views of a larger buffer."""
    buffer = bytes(range(200))
    view = memoryview(buffer)
    assert crc32c_of([view[:50], buffer[50:90], view[90:]]) == google_crc32c.value(buffer)


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """A record truncated at any byte is refused, and its last window is never returned."""
    path = tmp_path / "r"
    written(path, shard(0))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordCorruptError):
            read_header(DISK, path)
        with pytest.raises(RecordCorruptError):
            list(read_windows(DISK, path))


def test_a_flipped_bit_at_every_byte(tmp_path: Path) -> None:
    """A record with one flipped bit is refused before its last window is returned."""
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
        assert sum(map(len, handed_out)) < shard(0).info.nbytes


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    """Bytes after the payload count as damage."""
    written(tmp_path / "r", shard(0))
    with (tmp_path / "r").open("ab") as file:
        file.write(b"x")
    with pytest.raises(RecordCorruptError, match="longer or shorter"):
        read_header(DISK, tmp_path / "r")


def test_a_newer_format_does_not_count_as_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record of a newer format version is refused, but not reported as damaged."""
    with monkeypatch.context() as newer:
        newer.setattr(record_file, "VERSION", 2)
        written(tmp_path / "r", shard(0))
    with pytest.raises(SpoolError, match="format version 2") as caught:
        read_header(DISK, tmp_path / "r")
    assert not isinstance(caught.value, RecordCorruptError)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    """A file that the disk can't read raises SpoolError, not RecordCorruptError."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(SpoolError) as caught:
            read_header(DISK, path)
        assert not isinstance(caught.value, RecordCorruptError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    """Any garbage bytes raise RecordCorruptError."""
    path = tmp_path_factory.mktemp("r") / "r"
    path.write_bytes(garbage)
    with pytest.raises(RecordCorruptError):
        read_header(DISK, path)


@pytest.mark.parametrize("body", [b"\x80", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa1k\x01", b"\xc0"])
def test_a_header_with_wrong_fields_is_refused(tmp_path: Path, body: bytes) -> None:
    """A header with a correct checksum but wrong fields raises RecordCorruptError."""
    start = record_file._FIXED.pack(record_file.MAGIC, record_file.VERSION, 0, len(body)) + body
    (tmp_path / "r").write_bytes(start + google_crc32c.value(start).to_bytes(4, "little"))
    with pytest.raises(RecordCorruptError, match="can't be read"):
        read_header(DISK, tmp_path / "r")


def test_a_record_is_read_in_windows(tmp_path: Path) -> None:
    """A large record is read in windows of the requested size; the last one is the remainder."""
    body = bytes(3_000_001)
    written(tmp_path / "r", plain([body]))
    sizes = [len(window) for window in read_windows(DISK, tmp_path / "r", 1 << 20)]
    assert sizes == [1 << 20, 1 << 20, 3_000_001 - (2 << 20)]
    assert all(a >= b for a, b in pairwise(sizes))


def test_the_header_is_small() -> None:
    """A header has less than 300 bytes."""
    info = dataclasses.replace(shard(0).info, data_id="x" * 36)
    assert len(pack_header(RecordHeader(info, WriteTime.now()))) < 300


UINT8_HEADER = bytes.fromhex(
    "8941545245430d0a01000000b20000008aa26964d92433653066366433612d353263352d346233392d396132392d366131643065346237633131"
    "a16b0ca16ece042dffc0a3637263ce89abcdefa464696d7393ccf0cd0400cd0500a56474797065a575696e7438a57374616d7093cb427937537a"
    "07b800cbc00a000000000000cb3fe8000000000000a6646967657374c410000102030405060708090a0b0c0d0e0fa3726177ce12c00000a26174"
    "92a967726f7774682d7063cb40f5180800000000fb373c2c"
)
UINT16_HEADER = bytes.fromhex(
    "8941545245430d0a01000000600000008aa26964ac612073747265616d2fedb3bfa16b00a16e05a363726307a464696d7393010302a564747970"
    "65a675696e743136a57374616d7093cb408f400000000000c0c0a6646967657374c400a37261770ca2617492a0cb0000000000000000a496d257"
)


@pytest.mark.parametrize(
    ("recorded", "header"),
    [
        (
            UINT8_HEADER,
            RecordHeader(
                ShardInfo(
                    data_id="3e0f6d3a-52c5-4b39-9a29-6a1d0e4b7c11",
                    index=12,
                    dims=(240, 1024, 1280),
                    dtype="uint8",
                    timestamp=Timestamp(1_732_838_400_123.5, -3.25, 0.75),
                    nbytes=70_123_456,
                    crc32c=0x89ABCDEF,
                    digest=bytes(range(16)),
                ),
                WriteTime("growth-pc", 86_400.5),
            ),
        ),
        (
            UINT16_HEADER,
            RecordHeader(
                ShardInfo(
                    data_id="a stream/\udcff",
                    index=0,
                    dims=(1, 3, 2),
                    dtype="uint16",
                    timestamp=Timestamp(1000.0),
                    nbytes=5,
                    crc32c=7,
                    digest=b"",
                ),
                WriteTime("", 0.0),
            ),
        ),
    ],
    ids=["uint8", "uint16"],
)
def test_header_format_is_unchanged(tmp_path: Path, recorded: bytes, header: RecordHeader) -> None:
    """Headers recorded with an earlier version of atomstream are written and read identically."""
    assert pack_header(header) == recorded
    with (tmp_path / "r").open("wb") as file:
        file.write(recorded)
        file.truncate(len(recorded) + header.info.nbytes)  # a sparse payload
    assert read_header(DISK, tmp_path / "r") == header
