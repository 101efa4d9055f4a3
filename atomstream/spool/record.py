"""The file format of one chunk on disk: a header and the shard's bytes, each with a CRC-32C.

::

    magic (8)  version (u16)  reserved (u16)  header length (u32)        little endian
    header     msgpack map: stream, index, shape, timestamp, digest, payload length and CRC-32C, write time
    CRC-32C    of all bytes above (u32)
    payload    the bytes of the shard

The encoder computes the payload's CRC-32C. So it also detects damage between encoding and writing, and the
upload is compared with the same value. A record is written once, from start to end.
"""

from __future__ import annotations

import os
import platform
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final, NoReturn

import google_crc32c
import msgpack

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.records import Piece, Shard, ShardInfo, Timestamp
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.spool.stored_values import (
    stored_digest,
    stored_dims,
    stored_dtype,
    stored_index,
    stored_integer,
    stored_number,
    stored_text,
)
from atomstream.system.files import FileSystem

MAGIC: Final = b"\x89ATREC\r\n"
VERSION: Final = 1
WINDOW_BYTES: Final = 1 << 20
"""Default size of the reads of a payload."""

_FIXED = struct.Struct("<8sHHI")
_CRC = struct.Struct("<I")
_MAX_HEADER_BYTES: Final = 1 << 16
_MAX_MS: Final = 1e15
"""Largest absolute value of a stored time or clock offset, in ms; the server accepts no larger one."""


@dataclass(frozen=True, slots=True)
class WriteTime:
    """When a record was written: the host's name and its uptime in seconds.

    The uptime is used because a change of the wall clock must never expire a record. It is the same for all
    processes of a host on Linux, macOS and Windows.
    """

    host: str
    uptime_s: float

    @classmethod
    def now(cls) -> WriteTime:
        """The present time on this host."""
        return cls(platform.node(), time.monotonic())

    def min_age_s(self, now: WriteTime) -> float:
        """Lower bound of the record's age in seconds.

        After a restart the record is at least as old as the new uptime. The uptime of another host gives no bound, so
        it is 0 then. A restart or a sleep of the host can make the bound too low, never too high.
        """
        if self.host != now.host:
            return 0.0
        if now.uptime_s < self.uptime_s:  # the host was restarted after the record was written
            return now.uptime_s
        return now.uptime_s - self.uptime_s


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The header of a record: its shard's description and the time of writing."""

    info: ShardInfo
    written: WriteTime

    @classmethod
    def of(cls, shard: Shard) -> RecordHeader:
        """The header for ``shard``, with the present time."""
        return cls(shard.info, WriteTime.now())


def record_nbytes(header: RecordHeader) -> int:
    """Size of the record's file in bytes."""
    return len(pack_header(header)) + header.info.nbytes


def pack_header(header: RecordHeader) -> bytes:
    """The bytes before the payload."""
    info, timestamp = header.info, header.info.timestamp
    fields = {
        "id": info.data_id,
        "k": info.index,
        "n": info.nbytes,
        "crc": info.crc32c,
        "dims": info.dims,
        "dtype": info.dtype,
        "stamp": (timestamp.start_ms, timestamp.clock_offset_ms, timestamp.clock_uncertainty_ms),
        "digest": info.digest,
        "raw": info.raw_nbytes,
        "at": (header.written.host, header.written.uptime_s),
    }
    body: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    start = _FIXED.pack(MAGIC, VERSION, 0, len(body)) + body
    return start + _CRC.pack(google_crc32c.value(start))


def write_record(
    disk: FileSystem, path: Path, header: RecordHeader, pieces: Sequence[Piece], *, over: Path | None = None
) -> None:
    """Write the record atomically and durably.

    If ``over`` is given, that file is overwritten and renamed to ``path``, instead of a new file.

    Raises:
        OSError: the write failed; partial files are removed if the disk allows it.
    """
    disk.write_atomic(path, [pack_header(header), *pieces], over=over)


def read_header(disk: FileSystem, path: Path) -> RecordHeader:
    """Read and check a record's header, and compare the file's size with it.

    Raises:
        RecordCorruptError: it is damaged. SpoolError: the disk could not read it.
    """
    with disk_errors("read a record", path, READ_REFUSED), disk.open_read(path) as file:
        return _header_from(file, path)


def checked_header(disk: FileSystem, path: Path, data_id: str, index: int) -> RecordHeader:
    """Read a record's header and check that it belongs to the given stream and chunk.

    Raises:
        RecordCorruptError: it is damaged, or belongs to another chunk. SpoolError: it could not be read.
    """
    header = read_header(disk, path)
    info = header.info
    if (info.data_id, info.index) != (data_id, index):
        raise RecordCorruptError(
            f"The record {path} belongs to chunk {info.index} of stream {info.data_id!r}: it was renamed or copied "
            "here. It was not uploaded; only this chunk is affected."
        )
    return header


def verify(disk: FileSystem, path: Path) -> RecordHeader:
    """Read a whole record and check both checksums.

    Raises:
        RecordCorruptError: it is damaged. SpoolError: the disk could not read it.
    """
    for _ in read_windows(disk, path):
        pass
    return read_header(disk, path)


def read_windows(disk: FileSystem, path: Path, window: int = WINDOW_BYTES) -> Iterator[bytes]:
    """Read the payload in windows of at most ``window`` bytes.

    The last window is returned only if the checksum of the whole payload matches. So a damaged record can
    never be uploaded completely. One window is in memory at a time.

    Raises:
        RecordCorruptError: it is damaged (the last window is not returned). SpoolError: it could not be read.
    """
    with disk_errors("read a record", path, READ_REFUSED), disk.open_read(path) as file:
        info = _header_from(file, path).info
        remaining, crc = info.nbytes, 0
        while remaining:
            piece = _read_exactly(file, min(window, remaining), path)
            crc, remaining = google_crc32c.extend(crc, piece), remaining - len(piece)
            if not remaining and crc != info.crc32c:
                _corrupt(path, "its payload does not match its CRC-32C")
            yield piece


def _header_from(file: FileIO, path: Path) -> RecordHeader:
    fixed = _read_exactly(file, _FIXED.size, path)
    magic, version, _, size = _FIXED.unpack(fixed)
    if magic != MAGIC or size > _MAX_HEADER_BYTES:
        _corrupt(path, "it does not begin with the record's magic bytes")
    body = _read_exactly(file, size, path)
    (stated,) = _CRC.unpack(_read_exactly(file, _CRC.size, path))
    if google_crc32c.value(fixed + body) != stated:
        _corrupt(path, "its header does not match its CRC-32C")
    if version != VERSION:
        raise SpoolError(
            f"The record {path} has format version {version}; this atomstream reads version {VERSION} only."
        )
    header = _parse(body, path)
    if os.fstat(file.fileno()).st_size != file.tell() + header.info.nbytes:
        _corrupt(path, "it is longer or shorter than its header states")
    return header


def _parse(body: bytes, path: Path) -> RecordHeader:
    try:
        fields: dict[str, Any] = msgpack.unpackb(body, unicode_errors="surrogatepass")
        host, uptime_s = fields["at"]
        info = ShardInfo(
            data_id=stored_text(fields["id"]),
            index=stored_index(fields["k"]),
            dims=stored_dims(fields["dims"]),
            dtype=stored_dtype(fields["dtype"]),
            timestamp=_timestamp(*fields["stamp"]),
            nbytes=stored_integer(fields["n"], 0, 1 << 40),
            crc32c=stored_integer(fields["crc"], 0, (1 << 32) - 1),
            digest=stored_digest(fields["digest"]),
        )
        return RecordHeader(info, WriteTime(stored_text(host), stored_number(uptime_s, 0.0, 1e12)))
    except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
        _corrupt(path, f"its header can't be read ({error!r})")


def _timestamp(start_ms: Any, offset_ms: Any, uncertainty_ms: Any) -> Timestamp:
    return Timestamp(
        stored_number(start_ms, -_MAX_MS, _MAX_MS),
        None if offset_ms is None else stored_number(offset_ms, -_MAX_MS, _MAX_MS),
        None if uncertainty_ms is None else stored_number(uncertainty_ms, 0.0, _MAX_MS),
    )


def _read_exactly(file: FileIO, count: int, path: Path) -> bytes:
    piece = file.read(count) or b""
    while len(piece) < count:
        more = file.read(count - len(piece))
        if not more:
            _corrupt(path, "it ends too early")
        piece += more
    return piece


def _corrupt(path: Path, what: str) -> NoReturn:
    raise RecordCorruptError(f"The spool's record {path} is damaged: {what}. Only this chunk is affected.")
