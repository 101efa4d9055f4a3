"""The port for numbered records of streams: append behind a known record, read, and follow.

A *subject* is the log of one thing, such as the results of one stream. Its entries have ascending numbers, not always
consecutive ones. An append states the number of the last entry that the writer has read. It is refused if another
writer has appended since. So if two processes act as owner of one stream, only one of them can record results.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from atomstream.errors import AtomstreamError


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An entry of a subject; ``number`` is at least 1."""

    number: int
    payload: bytes


class OutdatedWriterError(AtomstreamError):
    """Another writer has appended to the subject: what this one wanted to append was not stored."""


class BusUnavailableError(AtomstreamError):
    """The log can't be reached at present. Whether an append was stored is then unknown; the append may be repeated."""

    retriable = True


class StreamLog(Protocol):
    """Logs by subject. Used in one event loop; every method may be cancelled.

    A subject consists of letters, digits, ``-`` and ``_``, in one or more parts joined by dots. Payloads have at most 4
    MB.
    """

    async def last(self, subject: str) -> LogEntry | None:
        """The newest entry, as the engine's leader has it; None if there is none.

        Raises:
            BusUnavailableError: no answer.
        """

    async def append(self, subject: str, payload: bytes, *, after: int | None, key: str = "") -> int:
        """Store an entry durably; returns its number.

        Args:
            after: the number of the last entry that the writer has read, 0 for none. None: append in any case.
            key: of entries with the same key, appended within two minutes, only the first is stored; the others
                return its number. A repeat after a lost answer uses it. Empty: each append is a new entry.

        Raises:
            OutdatedWriterError: the last entry is not ``after``; nothing was stored.
            BusUnavailableError: no answer; the append may be repeated with the same arguments and a key.
        """

    async def read(self, subject: str, after: int, limit: int = 256) -> list[LogEntry]:
        """Up to ``limit`` entries with numbers above ``after``, in order; empty if there are none.

        Raises:
            BusUnavailableError: no answer.
        """

    def follow(self, subject: str, after: int) -> AsyncGenerator[LogEntry, None]:
        """All entries with numbers above ``after``, then each new one, until it is closed.

        While the log can't be reached it waits, and then continues where it was.
        """

    async def delete(self, subject: str) -> None:
        """Remove all entries of a subject; does nothing if there are none.

        Raises:
            BusUnavailableError: no answer.
        """
