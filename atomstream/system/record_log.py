"""An append-only file of numbered records, each with its CRC-32C; a torn or damaged tail is cut off when opened.

Number n is the n-th record of the file, from 1. An append reaches every reader at once and survives the death of
the process; :meth:`RecordLog.sync` makes it survive a power cut.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from array import array
from pathlib import Path
from typing import Any, Final

import google_crc32c
import msgspec

log = logging.getLogger("atomstream.server")
_HEAD: Final = struct.Struct("<II")
_MAGIC: Final = b"atslog1\n"
MAX_RECORD_BYTES: Final = 1 << 26
Record = dict[str, Any]


class RecordLog:
    """One such file, opened or made. Thread-safe; one process at a time.

    ``known`` is what :attr:`places` was once: the records up to there are not read again, unless it does not fit.
    :attr:`trusted` tells how many were taken so.

    Raises:
        OSError: the disk's.
    """

    def __init__(self, path: Path, known: Record | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._offsets = array("Q")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
        self.trusted = 0
        self._end = self._scan(known)

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, record: Record) -> int:
        """Add ``record`` (plain values) and return its number.

        Raises:
            OSError: the disk's; nothing was added.
        """
        payload = msgspec.msgpack.encode(record)
        head = _HEAD.pack(len(payload), google_crc32c.value(payload))
        with self._lock:
            try:
                self._write(head + payload)
            except OSError:
                self._cut(self._end)  # else the next record would follow half of this one
                raise
            self._offsets.append(self._end)
            self._end += len(head) + len(payload)
            return len(self._offsets)

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def read(self, number: int) -> Record:
        """The record of that number; raises IndexError where there is none."""
        with self._lock:
            if not 1 <= number <= len(self._offsets):
                raise IndexError(f"{self._path} has no record {number}")
            payload = self._payload(self._offsets[number - 1])
        if payload is None:
            raise OSError(
                f"record {number} of {self._path} can't be read any more: the disk changed under it"
            )
        return decode(payload)

    @property
    def places(self) -> Record:
        """Where the records lie, as plain values."""
        with self._lock:
            return {"offsets": self._offsets.tobytes(), "end": self._end}

    def sync(self) -> None:
        """Have all records on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _scan(self, known: Record | None) -> int:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if self._file.read(len(_MAGIC)) != _MAGIC:
            return self._begin(size)
        offset = self._trust(known, size) if known else len(_MAGIC)
        while (payload := self._payload(offset)) is not None:
            self._offsets.append(offset)
            offset += _HEAD.size + len(payload)
        if offset < size:
            log.warning(
                "%s: the last %d bytes are no whole record; they are cut off", self._path, size - offset
            )
            self._cut(offset)
        return offset

    def _trust(self, known: Record, size: int) -> int:
        """Take over known places, where the last one does hold the last record; returns where to read on."""
        offsets, end = array("Q", known["offsets"]), int(known["end"])
        last = self._payload(offsets[-1]) if len(offsets) and end <= size else None
        if last is None or offsets[-1] + _HEAD.size + len(last) != end:
            log.warning("%s: what was noted of it does not fit; it is read from its start", self._path)
            return len(_MAGIC)
        self._offsets = offsets
        self.trusted = len(offsets)
        return end

    def _begin(self, size: int) -> int:
        if size > len(_MAGIC):
            aside = self._path.with_suffix(f".damaged-{os.getpid()}")
            log.warning(
                "%s is no log of ours or damaged from its start; it is kept as %s", self._path, aside.name
            )
            aside.write_bytes(self._path.read_bytes())
        self._cut(0)
        self._end = 0
        self._write(_MAGIC)
        return len(_MAGIC)

    def _payload(self, offset: int) -> bytes | None:
        self._file.seek(offset)
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        nbytes, stated = _HEAD.unpack(head)
        if nbytes > MAX_RECORD_BYTES:
            return None
        payload = self._file.read(nbytes)
        return payload if len(payload) == nbytes and google_crc32c.value(payload) == stated else None

    def _cut(self, size: int) -> None:
        self._file.truncate(size)


def decode(payload: bytes) -> Record:
    """A record's plain values again."""
    record: Record = msgspec.msgpack.decode(payload)
    return record
