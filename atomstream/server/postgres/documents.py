"""Documents that the servers of a cluster share: rows of a table of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from atomstream.server.postgres.postgres import DOCUMENTS_LOCK, Postgres
from atomstream.server.postgres.schema import DOCUMENTS


class TableDocuments:
    """The documents of a cluster; see :class:`~atomstream.server.documents.Documents`. Blocks."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @property
    def is_shared(self) -> bool:
        """True: any server of the cluster may change a document."""
        return True

    def place(self, name: str) -> str:
        """The table and the row."""
        return f"{name} in the catalogue {self._postgres.address.text}"

    def read(self, name: str) -> bytes | None:
        """The content of a document; None if there is none."""
        with self._postgres.transaction() as connection:
            return _read(connection, name)

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a document."""
        with self._postgres.transaction(DOCUMENTS_LOCK) as connection:
            _write(connection, name, content)

    def change(self, name: str, revise: Callable[[bytes | None], bytes | None]) -> bytes | None:
        """Replace a document by ``revise(content)``; no other server changes one meanwhile."""
        with self._postgres.transaction(DOCUMENTS_LOCK) as connection:
            before = _read(connection, name)
            after = revise(before)
            if after is None or after == before:
                return before
            _write(connection, name, after)
            return after

    def mark(self, name: str) -> Hashable:
        """The version of the document; None if there is none."""
        with self._postgres.transaction() as connection:
            return connection.scalar(select(DOCUMENTS.c.version).where(DOCUMENTS.c.name == name))


def _read(connection: Connection, name: str) -> bytes | None:
    found = connection.scalar(select(DOCUMENTS.c.content).where(DOCUMENTS.c.name == name))
    return None if found is None else bytes(found)


def _write(connection: Connection, name: str, content: bytes) -> None:
    new = insert(DOCUMENTS).values(name=name, content=content, version=1)
    changed = {"content": new.excluded.content, "version": DOCUMENTS.c.version + 1}
    connection.execute(new.on_conflict_do_update(index_elements=["name"], set_=changed))
