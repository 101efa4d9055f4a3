"""One chunk on disk: a self-describing record, checked by CRC-32C over its header and over its payload.

::

    magic (8)  version (u16)  reserved (u16)  header length (u32)        little endian
    header     msgpack: whose chunk it is, its shape, its stamp, its digest, the payload's length and CRC-32C
    CRC-32C    of all of the above (u32)
    payload    the shard's bytes

The payload's checksum is the encoder's, so it covers the way from there to the disk too, and the upload compares
it with the server's (promise P18); the file is written once, strictly forward.
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
from typing import Any, Final, Literal, NoReturn

import google_crc32c
import msgpack

from atomstream.errors import RecordCorruptError, SpoolError
from atomstream.records import Piece, Shard, Timestamp
from atomstream.spool.disk_errors import READ_REFUSED, disk_errors
from atomstream.system.files import FileSystem, write_whole

# How old a record certainly is, whatever the wall clock was set to meanwhile.
#
# The monotonic clock counts from the machine's start on Linux, macOS and Windows, for all processes alike. A
# record keeps that uptime and the machine's name. While the machine runs, its age is the difference. After a
# restart the true age is at least the new uptime, so the smaller of the two still never says too much: a
# restart or a sleep may keep a record longer than asked, and no step of a clock can expire one (promise P6).
# Records of another machine, whose uptime says nothing here, have no age at all.


@dataclass(frozen=True, slots=True)
class WriteTime:
    """When a record was written: the machine's name, and its uptime in seconds."""

    host: str
    uptime_s: float

    @classmethod
    def now(cls) -> WriteTime:
        """This machine, this moment."""
        return cls(platform.node(), time.monotonic())

    def certain_age_s(self, now: WriteTime) -> float:
        """Seconds that certainly went by from this moment to ``now``; 0 where nothing can be known."""
        if self.host != now.host:
            return 0.0
        if now.uptime_s < self.uptime_s:  # the machine has been restarted since
            return now.uptime_s
        return now.uptime_s - self.uptime_s


MAGIC: Final = b"\x89ATREC\r\n"

VERSION: Final = 1

WINDOW_BYTES: Final = 1 << 20

_FIXED = struct.Struct("<8sHHI")

_CRC = struct.Struct("<I")

_MAX_HEADER_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class RecordHead:
    """What a record says of itself: a :class:`Shard` without its bytes.

    ``nbytes`` and ``crc32c`` are the payload's; ``raw_nbytes`` is the decoded size; ``dims`` is (N, H, W).
    """

    data_id: str
    index: int
    nbytes: int
    crc32c: int
    dims: tuple[int, int, int]
    dtype: Literal["uint8", "uint16"]
    stamp: Timestamp
    digest: bytes
    raw_nbytes: int
    written: WriteTime

    @classmethod
    def of(cls, shard: Shard) -> RecordHead:
        """The head for ``shard``, written now."""
        return cls(
            data_id=shard.data_id,
            index=shard.index,
            nbytes=shard.nbytes,
            crc32c=shard.crc32c,
            dims=shard.dims,
            dtype=shard.dtype,
            stamp=shard.stamp,
            digest=shard.digest,
            raw_nbytes=shard.raw_nbytes,
            written=WriteTime.now(),
        )


def record_nbytes(head: RecordHead) -> int:
    """The size of the record's file."""
    return len(pack_head(head)) + head.nbytes


def write_record(
    disk: FileSystem, path: Path, head: RecordHead, pieces: Sequence[Piece], *, over: Path | None = None
) -> None:
    """Put the record at ``path``, whole or not at all; it survives a power cut once this returns.

    It is written over the file ``over``, where one is given, which is gone afterwards.

    Raises:
        OSError: what the disk said; nothing is left behind as far as the disk allows.
    """
    write_whole(disk, path, [pack_head(head), *pieces], over=over)


def pack_head(head: RecordHead) -> bytes:
    """The bytes in front of the payload."""
    stamp = head.stamp
    fields = {
        "id": head.data_id,
        "k": head.index,
        "n": head.nbytes,
        "crc": head.crc32c,
        "dims": head.dims,
        "dtype": head.dtype,
        "stamp": (stamp.start_ms, stamp.clock_offset_ms, stamp.clock_uncertainty_ms),
        "digest": head.digest,
        "raw": head.raw_nbytes,
        "at": (head.written.host, head.written.uptime_s),
    }
    body: bytes = msgpack.packb(fields, unicode_errors="surrogatepass")
    start = _FIXED.pack(MAGIC, VERSION, 0, len(body)) + body
    return start + _CRC.pack(google_crc32c.value(start))


def read_head(disk: FileSystem, path: Path) -> RecordHead:
    """Read and check a record's header, and that the file is as long as it says.

    Raises:
        RecordCorruptError: it is damaged. SpoolError: the disk could not read it.
    """
    with disk_errors("read a record", path, READ_REFUSED), disk.open_read(path) as file:
        return _head_from(file, path)


def checked_head(disk: FileSystem, path: Path, data_id: str, index: int) -> RecordHead:
    """The head of a record that must be that chunk's.

    Raises:
        RecordCorruptError: it is damaged, or another chunk's. SpoolError: it could not be read.
    """
    head = read_head(disk, path)
    if (head.data_id, head.index) != (data_id, index):
        raise RecordCorruptError(
            f"The record {path} is of chunk {head.index} of stream {head.data_id!r}: it was renamed or copied "
            "here. It was left unsent; only this chunk is affected."
        )
    return head


def verify(disk: FileSystem, path: Path) -> RecordHead:
    """Read a whole record and check both of its checksums.

    Raises:
        RecordCorruptError: it is damaged. SpoolError: the disk could not read it.
    """
    for _ in read_windows(disk, path):
        pass
    return read_head(disk, path)


def read_windows(disk: FileSystem, path: Path, window: int = WINDOW_BYTES) -> Iterator[bytes]:
    """The payload in pieces of at most ``window`` bytes, the last only once the checksum matches.

    So whoever sends them on can never complete a damaged body. Holds one window at a time.

    Raises:
        RecordCorruptError: it is damaged (the last window is withheld). SpoolError: it could not be read.
    """
    with disk_errors("read a record", path, READ_REFUSED), disk.open_read(path) as file:
        head = _head_from(file, path)
        left, crc = head.nbytes, 0
        while left:
            piece = _read_exactly(file, min(window, left), path)
            crc, left = google_crc32c.extend(crc, piece), left - len(piece)
            if not left and crc != head.crc32c:
                _corrupt(path, "its payload does not match its CRC-32C")
            yield piece


def _head_from(file: FileIO, path: Path) -> RecordHead:
    fixed = _read_exactly(file, _FIXED.size, path)
    magic, version, _, size = _FIXED.unpack(fixed)
    if magic != MAGIC or size > _MAX_HEADER_BYTES:
        _corrupt(path, "it does not begin as a record does")
    body = _read_exactly(file, size, path)
    (stated,) = _CRC.unpack(_read_exactly(file, _CRC.size, path))
    if google_crc32c.value(fixed + body) != stated:
        _corrupt(path, "its header does not match its CRC-32C")
    if version != VERSION:
        raise SpoolError(f"The record {path} is of format {version}; this atomstream reads {VERSION} only.")
    head = _parse(body, path)
    if os.fstat(file.fileno()).st_size != file.tell() + head.nbytes:
        _corrupt(path, "it is longer or shorter than its header says")
    return head


def _parse(body: bytes, path: Path) -> RecordHead:
    try:
        fields: dict[str, Any] = msgpack.unpackb(body, unicode_errors="surrogatepass")
        return RecordHead(
            data_id=fields["id"],
            index=fields["k"],
            nbytes=fields["n"],
            crc32c=fields["crc"],
            dims=tuple(fields["dims"]),
            dtype=fields["dtype"],
            stamp=Timestamp(*fields["stamp"]),
            digest=fields["digest"],
            raw_nbytes=fields["raw"],
            written=WriteTime(*fields["at"]),
        )
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        _corrupt(path, f"its header can't be read ({error!r})")


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
