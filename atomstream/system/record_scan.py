"""What can still be read of a damaged log: the search for whole records among bytes of any kind.

The file may have any length and any content: a hole of a terabyte, noise, half of a record. So the search reads it in
pieces and skips holes where the system names them. It ends after :data:`MAX_SEARCHED` bytes without a record; what
follows counts as damaged.
"""

from __future__ import annotations

import errno
import io
import os
import re
import struct
from typing import BinaryIO, Final, NamedTuple

import google_crc32c

MAGIC: Final = b"atslog1\n"
"""The first bytes of every log."""
HEAD: Final = struct.Struct("<II")
"""Length and CRC-32C of the payload that follows, which is a msgpack map."""
MAX_RECORD_BYTES: Final = 1 << 26
MAX_SEARCHED: Final = 1 << 32
"""Most bytes that are searched, and most bytes whose checksum is computed in vain; each takes seconds."""
_NAMES_HOLES: Final[bool] = hasattr(os, "SEEK_DATA")  # Windows does not
_PIECE_BYTES: Final = 1 << 20
_MAP_START: Final = re.compile(rb"(?=(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[ -~])", re.DOTALL)
"""The first bytes of every payload: a map with at least one key, which is a printed text. Few other bytes are like it,
and checking one that is takes the time of a whole record. It looks ahead only: bytes of a checksum may look like the
beginning of a map that includes the first bytes of the payload behind it."""
_START_BYTES: Final = 8
"""Longest match of it."""


class LogScan(NamedTuple):
    """What a damaged log holds, as (start, stop) byte ranges; ``end`` is where the last readable part ends.

    A gap is a damaged range that held at least one record. Neighbouring records are one range.
    """

    records: list[tuple[int, int]]
    gaps: list[tuple[int, int]]
    end: int


def scan(file: BinaryIO | io.FileIO) -> LogScan:
    """Find all readable records of an open log, also between damaged parts; raises OSError."""
    return _Search(file).run()


class _Search:
    def __init__(self, file: BinaryIO | io.FileIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._searched = 0
        self._in_vain = 0

    def run(self) -> LogScan:
        records: list[tuple[int, int]] = []
        gaps: list[tuple[int, int]] = []
        at = end = len(MAGIC) if self._read(0, len(MAGIC)) == MAGIC else 0
        while at < self._size:
            stop = self._record_end(at)
            if stop is not None:
                if records and records[-1][1] == at:
                    records[-1] = (records[-1][0], stop)
                else:
                    records.append((at, stop))
                at = end = stop
                continue
            begin = self._next_record(at + 1)
            if begin is None:
                # Of full length, so it was written: damaged, not torn.
                if at and (self._stated_end(at) == self._size or self._gave_up()):
                    gaps.append((at, self._size))
                    end = self._size
                break
            if begin > len(MAGIC):  # else only the file's header is damaged
                gaps.append((max(at, len(MAGIC)), begin))
            at = begin
        return LogScan(records, gaps, end)

    def _gave_up(self) -> bool:
        return max(self._searched, self._in_vain) >= MAX_SEARCHED

    def _read(self, at: int, nbytes: int) -> bytes:
        self._file.seek(at)
        found = self._file.read(nbytes)
        return found or b""

    def _stated_end(self, at: int) -> int | None:
        head = self._read(at, HEAD.size)
        if len(head) < HEAD.size:
            return None
        nbytes = int(HEAD.unpack(head)[0])
        return at + HEAD.size + nbytes if 0 < nbytes <= MAX_RECORD_BYTES else None

    def _record_end(self, at: int) -> int | None:
        """The end of the record at ``at``; None if no complete record begins there."""
        stop = self._stated_end(at)
        if stop is None or stop > self._size:
            return None
        crc = HEAD.unpack(self._read(at, HEAD.size))[1]
        payload = self._read(at + HEAD.size, stop - at - HEAD.size)
        if google_crc32c.value(payload) == crc:
            return stop
        self._in_vain += len(payload)
        return None

    def _next_record(self, at: int) -> int | None:
        """The first place from ``at`` on where a whole record begins; None if there is none, or it is too far."""
        place = at + HEAD.size
        while not self._gave_up():
            place = self._next_data(place)
            piece = self._read(place, _PIECE_BYTES + _START_BYTES)
            if len(piece) < 3:
                return None
            for found in _MAP_START.finditer(piece):
                if found.start() >= _PIECE_BYTES:
                    break
                begin = place + found.start() - HEAD.size
                if self._record_end(begin) is not None:
                    return begin
                if self._gave_up():
                    return None
            self._searched += len(piece)
            place += _PIECE_BYTES
        return None

    def _next_data(self, place: int) -> int:
        """``place``, or the end of the hole that it is in."""
        if not _NAMES_HOLES:
            return place
        try:
            return max(place, os.lseek(self._file.fileno(), place, os.SEEK_DATA))
        except OSError as error:
            return self._size if error.errno == errno.ENXIO else place  # ENXIO: nothing but a hole follows
