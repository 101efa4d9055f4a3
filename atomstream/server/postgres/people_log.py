"""The log of people, keys and what was done, in a table of PostgreSQL: the lines that are in a file on a single server.

Each line has the hash of the line before, as in the file. Writers wait for each other, so that the chain holds however
many servers write.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from sqlalchemy import Connection, insert, select

from atomstream.server.postgres.postgres import PEOPLE_LOCK, Postgres
from atomstream.server.postgres.schema import PEOPLE_LOG

HASH_CHARS: Final = 32


def hash_of(line: bytes) -> str:
    """The hash of a line, which the next line has."""
    return hashlib.sha256(line).hexdigest()[:HASH_CHARS]


class ApplyLine(Protocol):
    """Decodes a line, checks that it follows the line with the hash ``after``, and applies it."""

    def __call__(self, line: bytes, after: str) -> None:
        """Raises ValueError with the end of a sentence ("can't be read") if the line is damaged."""


class LinesTable:
    """Reads and appends lines. Blocks; the caller's lock orders the threads of one process."""

    def __init__(self, postgres: Postgres, apply: ApplyLine) -> None:
        self._postgres = postgres
        self._apply = apply
        self._number = 0
        self._hash = ""

    @property
    def name(self) -> str:
        """The table, for messages."""
        return f"people_log in the catalogue {self._postgres.address.text}"

    def refresh(self) -> bool:
        """Read the lines that were added; True if there were any.

        Raises:
            ValueError: a line is damaged, or one that was read is not there any more.
        """
        with self._postgres.transaction() as connection:
            return self._read(connection)

    def _read(self, connection: Connection) -> bool:
        number, line = PEOPLE_LOG.c.number, PEOPLE_LOG.c.line
        rows = connection.execute(select(number, line).where(number >= self._number).order_by(number)).all()
        if self._number:
            first = rows[0] if rows else None
            if first is None or first.number != self._number or hash_of(bytes(first.line)) != self._hash:
                raise ValueError(f"its line {self._number} was changed or removed")
            rows = rows[1:]
        for row in rows:
            if row.number != self._number + 1:
                raise ValueError(f"its line {self._number + 1} is missing")
            self._receive(bytes(row.line))
        return bool(rows)

    def _receive(self, line: bytes) -> None:
        try:
            self._apply(line, self._hash)
        except ValueError as error:
            raise ValueError(f"its line {self._number + 1} {error}") from None
        self._number += 1
        self._hash = hash_of(line)

    @contextmanager
    def writing(self) -> Iterator[Callable[[Callable[[str], bytes]], None]]:
        """Context manager: no other server appends, all lines were read, and the yielded function appends one.

        That function receives one that makes the line from the hash of the line before. All lines are valid at the
        end, or none after an exception.
        """
        added: list[bytes] = []
        with self._postgres.transaction(PEOPLE_LOCK) as connection:
            self._read(connection)
            last = [self._hash]

            def append(make: Callable[[str], bytes]) -> None:
                line = make(last[0])
                number = self._number + len(added) + 1
                connection.execute(insert(PEOPLE_LOG).values(number=number, line=line))
                added.append(line)
                last[0] = hash_of(line)

            yield append
        for line in added:
            self._receive(line)
