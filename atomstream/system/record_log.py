"""An append-only file of numbered records, each protected by a CRC-32C.

Record n is the n-th of the file, counted from 1. An appended record is readable at once and survives the death of the
process; :meth:`RecordLog.sync` makes all records survive a power cut.

Damage loses only the damaged records: the reader searches for the next complete record. At opening, what can be read
of a damaged file is written to a new one, with a marker (:func:`is_lost`) in place of each damaged part, so that the
records after a damaged one keep their numbers. The damaged file is kept as ``<name>.damaged-N`` in the same folder. It
is not copied: with holes it may state any length.
"""

from __future__ import annotations

import io
import os
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import google_crc32c
import msgspec

from atomstream.counted import counted
from atomstream.system.files import LOCAL, FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import is_plain_file, remove_unless_plain
from atomstream.system.record_scan import HEAD as _HEAD
from atomstream.system.record_scan import MAGIC as _MAGIC
from atomstream.system.record_scan import MAX_RECORD_BYTES, LogScan, scan

log = get_logger("atomstream.server")

_PIECE_BYTES: Final = 1 << 20

Record = dict[str, Any]


class RecordLog:
    """One log file, opened or created. Thread-safe; one process at a time.

    ``cached`` is what :attr:`positions` returned earlier: the records covered by it are not read again, unless it does
    not fit the file. :attr:`n_cached` is their number, 0 if ``cached`` was not used.

    ``report`` receives a sentence about damage (None: it is logged).

    Raises:
        OSError: from the disk; the file is then unchanged.
    """

    def __init__(
        self,
        path: Path,
        cached: Record | None = None,
        file_system: FileSystem = LOCAL,
        report: Callable[[str], None] | None = None,
    ) -> None:
        self._path = path
        self._report = report or (lambda what: log.warning("%s: %s", path, what))
        self._file_system = file_system
        self._lock = threading.Lock()
        self._offsets = array("Q")
        self._folder_synced = False
        self.n_cached = 0
        file_system.make_folder(path.parent)
        if remove_unless_plain(path):
            self._report(
                "it was a link, or not a file; it is removed, and the target of a link is not changed"
            )
        elif path.exists() and not path.is_file():
            copy = self._free_name()
            file_system.rename(path, copy)
            self._report(f"it is not a file; what was there was moved to {copy.name}")
        if not path.exists() and not self._finish_repair():
            self._create()
        self._reader = file_system.open_read(path)
        try:
            if not self._load(cached):
                self._reader.close()  # Windows can't replace an open file
                self._repair()
                self._reader = file_system.open_read(path)
                self._load(None)
            self._fd = file_system.open_existing(path)
        except BaseException:
            self._reader.close()
            raise

    def __len__(self) -> int:
        return len(self._offsets)

    def append(self, record: Record | msgspec.Struct, *, durable: bool = False) -> int:
        """Add ``record`` and return its number; with ``durable`` it survives a power cut.

        A record is a map of plain values, or a struct, which is encoded as a map.

        Raises:
            OSError: from the disk; the record was not added.
        """
        payload = msgspec.msgpack.encode(record)
        with self._lock:
            try:
                self._file_system.write_at(self._fd, self._end, _frame(payload))
                if durable:
                    self._sync()
            except OSError:
                self._file_system.truncate(
                    self._fd, self._end
                )  # else the next record would follow half of this one
                raise
            self._offsets.append(self._end)
            self._end += _HEAD.size + len(payload)
            return len(self._offsets)

    def read(self, number: int) -> Record:
        """The record of that number; a marker (:func:`is_lost`) if the disk damaged it since the log was opened.

        Raises:
            IndexError: there is no record of that number. OSError: from the disk.
        """
        with self._lock:
            if not 1 <= number <= len(self._offsets):
                raise IndexError(f"{self._path} has no record {number}")
            offset = self._offsets[number - 1]
            payload = self._payload(offset)
            end = self._offsets[number] if number < len(self._offsets) else self._end
        if payload is None:
            self._report(f"record {number} at byte {offset} is damaged and can't be read")
            return lost_record(end - offset)
        record = decode(payload)
        if record is None:
            self._report(f"record {number} at byte {offset} is not a map of values")
            return lost_record(end - offset)
        return record

    @property
    def positions(self) -> Record:
        """Where the records begin and the last one ends, as plain values."""
        with self._lock:
            return {"offsets": self._offsets.tobytes(), "end": self._end}

    def sync(self) -> None:
        """Return once all records would survive a power cut."""
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        self._file_system.sync(self._fd)
        if not self._folder_synced:  # the file itself may be new
            self._file_system.sync_folder(self._path.parent)
            self._folder_synced = True

    def close(self) -> None:
        """Close the file; no other method works afterwards."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                self._reader.close()
                self._file_system.close(fd)

    def _create(self) -> None:
        fd = self._file_system.create(self._path)
        try:
            self._file_system.write(fd, [_MAGIC])
        finally:
            self._file_system.close(fd)

    def _load(self, cached: Record | None) -> bool:
        """Find all records; False if the file has anything else in it."""
        size = self._reader.seek(0, os.SEEK_END)
        self._reader.seek(0)
        if self._reader.read(len(_MAGIC)) != _MAGIC:
            return False
        offset = self._use_cached(cached, size) if cached else len(_MAGIC)
        while (payload := self._payload(offset)) is not None:
            self._offsets.append(offset)
            offset += _HEAD.size + len(payload)
        self._end = offset
        return offset == size

    def _use_cached(self, cached: Record, size: int) -> int:
        """Use the cached positions if there is a record at the last one; returns where reading continues."""
        try:
            offsets, end = array("Q", cached["offsets"]), int(cached["end"])
            last = self._payload(offsets[-1]) if len(offsets) and offsets[-1] < end <= size else None
        except (KeyError, TypeError, ValueError, OverflowError):  # a file of another program or version
            offsets, end, last = array("Q"), 0, None
        if last is None or offsets[-1] + _HEAD.size + len(last) != end:
            log.warning(
                "%s: the cached positions do not match the file; it is read from its start", self._path
            )
            return len(_MAGIC)
        self._offsets = offsets
        self.n_cached = len(offsets)
        return end

    def _payload(self, offset: int) -> bytes | None:
        self._reader.seek(offset)
        head = self._reader.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        nbytes, crc = _HEAD.unpack(head)
        if not 0 < nbytes <= MAX_RECORD_BYTES:
            return None
        payload = self._reader.read(nbytes)
        return payload if len(payload) == nbytes and google_crc32c.value(payload) == crc else None

    @property
    def _repaired(self) -> Path:
        """The name of the repaired log until the damaged one has been moved away."""
        return self._path.with_name(f"{self._path.name}.repaired")

    def _finish_repair(self) -> bool:
        """Complete a repair that a crash has interrupted after the damaged log was moved away; False if none was."""
        if not is_plain_file(self._repaired):
            return False
        self._file_system.rename(self._repaired, self._path)
        self._file_system.sync_folder(self._path.parent)
        return True

    def _repair(self) -> None:
        """Write what can be read of the damaged log to a new one, and keep the damaged one under another name."""
        self._offsets, self.n_cached = array("Q"), 0
        with self._file_system.open_read(self._path) as file:
            begin = file.read(len(_MAGIC))
            size = file.seek(0, os.SEEK_END)
            if size < len(_MAGIC) and _MAGIC.startswith(begin):  # the process died while it created the file
                self._file_system.write_atomic(self._path, [_MAGIC])
                return
            found = scan(file)
            self._write_repaired(file, found)
        copy = self._free_name()
        self._file_system.rename(self._path, copy)
        self._finish_repair()
        self._report(_what_was_lost(found, size, copy.name, is_log=begin == _MAGIC))

    def _write_repaired(self, file: io.FileIO, found: LogScan) -> None:
        """All records, and one marker for each gap; synced, so that the damaged log can be moved away."""
        fd = self._file_system.create(self._repaired)
        try:
            for piece in _pieces(file, found):
                self._file_system.write(fd, [piece])
            self._file_system.sync(fd)
        except BaseException:
            self._file_system.close(fd)
            self._file_system.unlink(self._repaired)
            raise
        self._file_system.close(fd)

    def _free_name(self) -> Path:
        number = 1
        while (copy := self._path.with_name(f"{self._path.name}.damaged-{number}")).exists():
            number += 1
        return copy


def _pieces(file: io.FileIO, found: LogScan) -> Iterator[bytes]:
    """The content of the repaired log."""
    yield _MAGIC
    gaps = set(found.gaps)
    for start, stop in sorted([*found.records, *found.gaps]):
        if (start, stop) in gaps:
            yield _frame(msgspec.msgpack.encode(lost_record(stop - start)))
            continue
        file.seek(start)
        for at in range(start, stop, _PIECE_BYTES):
            yield file.read(min(_PIECE_BYTES, stop - at))


def _what_was_lost(found: LogScan, size: int, copy: str, *, is_log: bool) -> str:
    """The damage and its consequence, in sentences that follow the file's name."""
    if not found.records and not is_log:
        return f"it is not a log of atomstream and was moved to {copy}"
    kept = f"The damaged file is kept as {copy}"
    if found.gaps:
        nbytes = sum(stop - start for start, stop in found.gaps)
        where = f"{nbytes} bytes at byte {found.gaps[0][0]}"
        if len(found.gaps) > 1:
            where = f"{nbytes} bytes in {counted(len(found.gaps), 'part')}, the first one at byte {found.gaps[0][0]},"
        lost = f"{where} can't be read and are lost, with the records in them"
        return f"it is damaged: {lost}; all others are kept. {kept}"
    if found.end < size and is_log:
        return (
            f"the last {size - found.end} bytes, from byte {found.end} on, are an incomplete record and were removed. "
            f"{kept}"
        )
    return f"its beginning is damaged; all records are kept. {kept}"


def _frame(payload: bytes) -> bytes:
    return _HEAD.pack(len(payload), google_crc32c.value(payload)) + payload


def lost_record(nbytes: int) -> Record:
    """The marker for a damaged record; ``type`` and ``what`` are the keys that identify a marker."""
    return {"type": "lost", "what": "lost", "nbytes": nbytes}


def is_lost(record: Record) -> bool:
    """Whether a record is the marker for one that was damaged."""
    return record.get("type") == "lost" and record.get("what") == "lost"


def decode(payload: bytes) -> Record | None:
    """The map in a MessagePack payload; None if it is anything else: a checksum only shows that it was written so."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


_DECODER: Final = msgspec.msgpack.Decoder(dict[str, Any])
