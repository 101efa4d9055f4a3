"""The catalogue on PostgreSQL: the same tables as in SQLite, used by several servers at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.server.catalogue.database import Database
from atomstream.server.catalogue_errors import CatalogueBusyError
from atomstream.server.postgres.migrate import prepare
from atomstream.server.postgres.postgres import LOCK_NOT_FREE, LOCK_S, NAMES_LOCK, Postgres, lock_statement
from atomstream.server.postgres.reachability import sql_state
from atomstream.server.postgres.schema import DELETED_STREAMS


class SharedDatabase(Database):
    """Sessions on PostgreSQL. Each raises CatalogueUnavailableError while the database can't be reached.

    The tables are the only place of names and projects: nothing of them is in files, and :meth:`clear` is not
    possible. ``is_new`` is True if the database was empty before.
    """

    def __init__(self, postgres: Postgres, *, is_new: bool) -> None:
        super().__init__(postgres.engine, postgres.blocking, is_new=is_new)
        self._postgres = postgres
        self.complete = True

    @classmethod
    async def prepared(cls, postgres: Postgres) -> SharedDatabase:
        """The catalogue in a database whose tables are made if it is empty, and else have this version.

        The connections stay those of ``postgres``, whose owner closes them.

        Raises:
            ConfigError: the database can't be used. CatalogueUnavailableError: it can't be reached.
        """
        return cls(postgres, is_new=await asyncio.to_thread(prepare, postgres))

    @property
    def is_shared(self) -> bool:
        """True: other servers use the same catalogue."""
        return True

    @property
    def problem(self) -> str:
        """A sentence while the database can't be reached; empty otherwise."""
        return self._postgres.reachability.problem

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for reading."""
        with self._postgres.reachability.asking():
            async with AsyncSession(self._postgres.engine) as session:
                yield session

    @contextmanager
    def reading_in_thread(self) -> Iterator[Connection]:
        """A connection for reading from a thread. Blocks."""
        with self._postgres.reachability.asking(), self._postgres.blocking.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are committed at the end, or rolled back after an exception."""
        with self._postgres.reachability.asking():
            async with (
                AsyncSession(self._postgres.engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session

    @asynccontextmanager
    async def naming(self) -> AsyncIterator[AsyncSession]:
        """A session as :meth:`writing`, for a change of names: no other server changes names at the same time."""
        async with self.writing() as session:
            try:
                await session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_S}s'"))
                await session.execute(lock_statement(NAMES_LOCK))
                yield session
            except DBAPIError as error:
                if sql_state(error) != LOCK_NOT_FREE:
                    raise
                raise CatalogueBusyError(
                    f"Another server has been changing names for {LOCK_S} s; nothing was changed. Try again."
                ) from None

    async def gone(self) -> set[str]:
        """Streams that any server has deleted."""
        async with self.reading() as session:
            return set(await session.scalars(select(DELETED_STREAMS.c.data_id)))

    async def require(self) -> None:
        """Raises CatalogueUnavailableError if the database can't be reached."""
        async with self.reading() as session:
            await session.execute(text("SELECT 1"))

    async def clear(self) -> None:
        """Not possible: raises TypeError."""
        raise TypeError("names are stored in the tables alone, so they are not cleared")

    async def close(self) -> None:
        """Nothing: the connections belong to their owner."""
