"""The logs of subjects as files of one folder, for a single process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from atomstream.server.ports.stream_log import LogEntry, OutdatedWriterError
from atomstream.system.record_log import RecordLog

T = TypeVar("T")
_READ: Final = 256


class LocalStreamLog:
    """Each subject is one :class:`~atomstream.system.record_log.RecordLog`, with durable appends.

    See :class:`~atomstream.server.ports.stream_log.StreamLog`. Keys are kept in memory for as long as the process runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[str, RecordLog] = {}
        self._keys: dict[tuple[str, str], int] = {}
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()

    async def last(self, subject: str) -> LogEntry | None:
        """The newest entry; None if there is none."""
        async with self._lock:
            log = await self._open(subject)
            return await asyncio.to_thread(_entry, log, len(log)) if len(log) else None

    async def append(self, subject: str, payload: bytes, *, after: int | None, key: str = "") -> int:
        """Store an entry durably; returns its number. Raises OutdatedWriterError."""
        async with self._lock:
            known = self._keys.get((subject, key)) if key else None
            if known is not None:
                return known
            log = await self._open(subject)
            if after is not None and after != len(log):
                raise OutdatedWriterError(
                    f"{subject} has {len(log)} entries, not {after} as the writer states: nothing was stored."
                )
            number = await asyncio.to_thread(log.append, {"payload": payload}, durable=True)
            if key:
                self._keys[subject, key] = number
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return number

    async def read(self, subject: str, after: int, limit: int = _READ) -> list[LogEntry]:
        """Up to ``limit`` entries with numbers above ``after``, in order."""
        async with self._lock:
            log = await self._open(subject)
            numbers = range(after + 1, min(len(log), after + limit) + 1)
            return await asyncio.to_thread(lambda: [_entry(log, number) for number in numbers])

    async def follow(self, subject: str, after: int) -> AsyncGenerator[LogEntry, None]:
        """All entries with numbers above ``after``, then each new one."""
        while True:
            changed = self._changed
            for entry in await self.read(subject, after):
                after = entry.number
                yield entry
            if len(await self._open(subject)) <= after:
                await changed.wait()

    async def delete(self, subject: str) -> None:
        """Remove all entries of a subject."""
        async with self._lock:
            log = self._logs.pop(subject, None)
            if log is not None:
                log.close()
            with suppress(FileNotFoundError):
                await asyncio.to_thread(self._path(subject).unlink)
            self._keys = {key: number for key, number in self._keys.items() if key[0] != subject}

    async def close(self) -> None:
        """Close the files."""
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    def _path(self, subject: str) -> Path:
        return self._folder / f"{subject}.log"

    async def _open(self, subject: str) -> RecordLog:
        if subject not in self._logs:
            self._logs[subject] = await asyncio.to_thread(RecordLog, self._path(subject))
        return self._logs[subject]


def _entry(log: RecordLog, number: int) -> LogEntry:
    return LogEntry(number, bytes(log.read(number)["payload"]))
