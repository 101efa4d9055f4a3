"""The results of one stream in the log that all processes of a cluster share.

The process that owns the stream appends each numbered record here first, with its per-frame columns and profiles, and
then to its own files. Every other process makes equal files of the entries. An append is refused as soon as another
process has appended: so a process that was suspended and continues can't add its own results.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from typing import Final

import msgspec
from msgspec import UNSET, structs

from atomstream.server.live.messages import AnalyzerBatch, BatchMessage, NumberedMessage, StoredRecord
from atomstream.server.ports.stream_log import BusUnavailableError, OutdatedWriterError, StreamLog
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

MOST_BYTES: Final = 700_000
"""Longest entry: NATS takes messages of 1 MB unless it is configured for more."""
_RETRY_S: Final = 0.2


class SharedEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One entry. ``number`` is that of ``record``; 0 for columns without a record.

    ``columns`` are of the frames ``start`` .. ``start`` + ``count``; ``replaces``: other columns of these frames become
    NaN. ``only`` restricts that to some columns. ``inputs`` is the number of the users' entries that are published.
    """

    number: int = 0
    record: StoredRecord | None = None
    start: int = 0
    count: int = 0
    columns: dict[str, bytes] = {}
    replaces: bool = False
    only: list[str] | None = None
    profile: bytes = b""
    lines: dict[str, bytes] = {}
    inputs: int = 0

    def batch(self) -> AnalyzerBatch:
        """The columns and profiles as a batch of the analyzer."""
        return AnalyzerBatch(
            start=self.start, count=self.count, columns=self.columns, profile=self.profile, lines=self.lines
        )


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The position of a process' files in the logs: the numbers of the last entries of results and inputs, with their
    content.

    ``published`` of the ``inputs`` have a record, as far as they need one.
    """

    results_entry: int = 0
    records: int = 0
    inputs_entry: int = 0
    inputs: int = 0
    published: int = 0


_decoder: Final = msgspec.msgpack.Decoder(SharedEntry)


def decoded(payload: bytes) -> SharedEntry:
    """The entry of a payload.

    Raises:
        msgspec.MsgspecError: it was written by another program or version.
    """
    return _decoder.decode(payload)


class SharedWriter:
    """Appends the records of a stream that this process owns. Its methods block, and are called in threads.

    ``after`` is the number of the last entry that this process has read, ``loop`` that of ``shared``.
    """

    def __init__(self, shared: StreamLog, subject: str, loop: asyncio.AbstractEventLoop) -> None:
        self.after = 0
        self.published_inputs = 0
        """Number of the users' entries that were published."""
        self._shared = shared
        self._subject = subject
        self._loop = loop
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._newest = 0

    def begin(self, after: int, newest: int) -> None:
        """Continue behind entry ``after``; ``newest`` is the number of the newest record."""
        self.after, self._newest = after, newest

    def record(self, number: int, stored: StoredRecord, message: NumberedMessage) -> None:
        """Append a record; returns once it is stored durably.

        Raises:
            OutdatedWriterError: another process owns the stream by now.
        """
        entry = SharedEntry(number=number, record=stored, inputs=self.published_inputs)
        if isinstance(message, BatchMessage) and message.columns is not UNSET:
            entry = structs.replace(
                entry,
                start=message.start,
                count=message.count,
                columns=message.columns,
                profile=b"" if message.profile is UNSET else message.profile,
                lines={} if message.lines is UNSET else message.lines,
            )
        with self._lock:
            if number != self._newest + 1:
                raise OutdatedWriterError(f"Record {number} of {self._subject} would follow {self._newest}.")
            for part in _parts(entry):
                self._append(part)
            self._newest = number

    def columns(self, batch: AnalyzerBatch, only: frozenset[str] | None, *, replaces: bool) -> None:
        """Append columns that have no record: of late chunks, and of a re-analysis. Raises OutdatedWriterError."""
        entry = SharedEntry(
            start=batch.start,
            count=batch.count,
            columns={name: raw for name, raw in batch.columns.items() if only is None or name in only},
            replaces=replaces,
            only=None if only is None else sorted(only),
            inputs=self.published_inputs,
        )
        with self._lock:
            for part in _parts(entry):
                self._append(part)

    def check(self) -> None:
        """Return if no other process has appended: the objects that this process writes to the store are then the
        newest.

        Raises:
            OutdatedWriterError: another process owns the stream by now, or this writer is closed.
            BusUnavailableError: the bus can't be reached, so this is not known; the call may be repeated.
        """
        if self._closed.is_set():
            raise OutdatedWriterError(f"{self._subject} is closed.")
        with self._lock:  # an append of this process is counted by then
            newest = self._shared.last(self._subject)
            last = asyncio.run_coroutine_threadsafe(newest, self._loop).result()
            if last is not None and last.number > self.after:
                raise OutdatedWriterError(
                    f"{self._subject} has {last.number} entries, not {self.after} as this process has read."
                )

    def _append(self, entry: SharedEntry) -> None:
        payload, key = msgspec.msgpack.encode(entry), uuid.uuid4().hex
        if self._closed.is_set():
            raise OutdatedWriterError(f"{self._subject} is analysed elsewhere.")
        self.after = asyncio.run_coroutine_threadsafe(self._stored(payload, key), self._loop).result()

    async def _stored(self, payload: bytes, key: str) -> int:
        while True:
            try:
                return await self._shared.append(self._subject, payload, after=self.after, key=key)
            except BusUnavailableError as error:
                log.debug("%s: the append is repeated: %s", self._subject, error)
            if self._closed.is_set():
                raise OutdatedWriterError(f"{self._subject} is closed.")
            await asyncio.sleep(_RETRY_S)

    def close(self) -> None:
        """Refuse further records; one that waits for the bus is abandoned."""
        self._closed.set()


def _parts(entry: SharedEntry) -> Iterator[SharedEntry]:
    """The entry; before it as many with columns alone as are needed for its size."""
    columns: dict[str, bytes] = {}
    nbytes = len(entry.profile) + sum(map(len, entry.lines.values()))
    first = True
    for name, raw in entry.columns.items():
        if columns and nbytes + len(raw) > MOST_BYTES:
            yield structs.replace(
                entry,
                number=0,
                record=None,
                columns=columns,
                profile=b"",
                lines={},
                replaces=entry.replaces and first,
            )
            columns, nbytes, first = {}, len(entry.profile) + sum(map(len, entry.lines.values())), False
        columns[name] = raw
        nbytes += len(raw)
    yield structs.replace(entry, columns=columns, replaces=entry.replaces and first)
