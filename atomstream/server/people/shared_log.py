"""The log of people on PostgreSQL: the lines of ``people.jsonl``, with their chain of hashes, for several servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from atomstream.server.people.log import PeopleDamagedError
from atomstream.server.people.records import Entry
from atomstream.server.postgres.people_log import LinesTable
from atomstream.server.postgres.postgres import Postgres


class SharedPeopleLog:
    """Reads and appends; see :class:`~atomstream.server.people.log.AnyPeopleLog`. Blocks.

    ``receive`` is called with each entry, in their order, once. Methods raise CatalogueUnavailableError if the
    database can't be reached; what was read before stays valid.
    """

    def __init__(self, postgres: Postgres, receive: Callable[[Entry], None]) -> None:
        self.damage = ""
        self._receive = receive
        self._lines = LinesTable(postgres, self._apply)
        self._decoder = msgspec.json.Decoder(Entry)

    def _apply(self, line: bytes, after: str) -> None:
        try:
            entry = self._decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise ValueError("can't be read") from None
        if entry.after != after:
            raise ValueError("does not follow the line before")
        self._receive(entry)

    def refresh(self) -> bool:
        """Read the lines that were added. True if there were any, or the log was found to be damaged."""
        if self.damage:
            return False
        try:
            return self._lines.refresh()
        except ValueError as error:
            self._note_damage(error)
            return True

    def has_news(self) -> bool:
        """True: another server may have added lines, which only a query of the database shows."""
        return not self.damage

    def _note_damage(self, error: ValueError) -> None:
        self.damage = (
            f"The log of people and keys, {self._lines.name}, is damaged: {error}. Nothing in it is valid until it is "
            "repaired from a backup of the database. The server's own key is still valid."
        )

    @contextmanager
    def writing(self) -> Iterator[Callable[[Entry], None]]:
        """Context manager: no other server appends, all lines were read, and the yielded function appends one.

        Lines are valid at the end of the block, all of them or none.

        Raises:
            PeopleDamagedError: the log is damaged. CatalogueUnavailableError: it can't be reached, or another server
                holds the lock.
        """
        if self.damage:
            raise PeopleDamagedError(self.damage)
        with self._lines.writing() as append:
            yield lambda entry: append(
                lambda after: msgspec.json.encode(msgspec.structs.replace(entry, after=after))
            )
