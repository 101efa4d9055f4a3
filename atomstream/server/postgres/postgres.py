"""The connections of one process to PostgreSQL: of its event loop (asyncpg) and of its threads (pg8000)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from atomstream.errors import ConfigError
from atomstream.server.catalogue_errors import CatalogueBusyError, CatalogueUnavailableError
from atomstream.server.postgres.address import PostgresAddress
from atomstream.server.postgres.reachability import Reachability, sql_state

CONNECTIONS: Final = 5
"""Connections that each of the two engines keeps; as many more for a short time."""
_POOL: Final[dict[str, Any]] = {
    "pool_size": CONNECTIONS,
    "max_overflow": CONNECTIONS,
    "pool_timeout": 5,
    "pool_pre_ping": True,
    "pool_recycle": 1800,
}
LOCK_S: Final = 5
"""Longest wait for another writer in s. Less than the time-out of the drivers, which means a lost connection."""

NAMES_LOCK: Final = 1
PEOPLE_LOCK: Final = 2
SCHEMA_LOCK: Final = 3
DOCUMENTS_LOCK: Final = 4
"""What the advisory locks are for: the second number; the first one is that of atomstream."""
_OUR_LOCKS: Final = 0x61746F6D
LOCK_NOT_FREE: Final = "55P03"
"""The SQLSTATE of a lock that others have held for longer than :data:`LOCK_S`."""


def lock_statement(which: int) -> Any:
    """The statement that waits for a lock, which the end of the transaction releases."""
    return text(f"SELECT pg_advisory_xact_lock({_OUR_LOCKS}, {which})")


class Postgres:
    """The engines of a database. Neither connects before its first use."""

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address
        self.reachability = Reachability(address.text)
        self.engine = _async_engine(address)
        self.blocking = _engine(address)

    @contextmanager
    def transaction(self, lock: int = 0) -> Iterator[Connection]:
        """A connection for a thread; committed at the end, or rolled back after an exception. Blocks.

        With ``lock``, such as :data:`PEOPLE_LOCK`, no other transaction with the same one runs at the same time.

        Raises:
            CatalogueUnavailableError: the database can't be reached. CatalogueBusyError: others have held a lock for
                long.
        """
        with self.reachability.asking(), self.blocking.begin() as connection:
            try:
                if lock:
                    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_S}s'"))
                    connection.execute(lock_statement(lock))
                yield connection
            except DBAPIError as error:
                if sql_state(error) != LOCK_NOT_FREE:
                    raise
                raise CatalogueBusyError(
                    f"Another server has been changing the catalogue {self.address.text} for {LOCK_S} s; nothing "
                    "was changed. Try again."
                ) from None

    def describe(self, error: CatalogueUnavailableError) -> str:
        """The message of a command that fails with ``error``."""
        if isinstance(error, CatalogueBusyError):
            return str(error)
        return f"The catalogue {self.address.text} can't be reached: {self.reachability.cause}"

    async def close(self) -> None:
        """Close all connections; one that a thread still uses is closed when the thread returns it."""
        event.listen(self.blocking.pool, "checkin", lambda _connection, record: record.invalidate())
        await self.engine.dispose()
        await asyncio.to_thread(self.blocking.dispose)


def _async_engine(address: PostgresAddress) -> AsyncEngine:
    engine = create_async_engine(
        address.url("asyncpg"),
        connect_args=address.asyncpg_arguments(),
        **_POOL,
    )
    _give_password(engine.sync_engine, address)
    return engine


def _engine(address: PostgresAddress) -> Engine:
    engine = create_engine(
        address.url("pg8000"),
        connect_args=address.pg8000_arguments(),
        **_POOL,
    )
    _give_password(engine, address)
    return engine


def _give_password(engine: Engine, address: PostgresAddress) -> None:
    """Read the password for each connection, so that a new one in its file needs no restart."""

    @event.listens_for(engine, "do_connect")
    def give(_dialect: Any, _record: Any, _arguments: Any, named: dict[str, Any]) -> None:
        if secret := address.secret():
            named["password"] = secret


@asynccontextmanager
async def opened(address: PostgresAddress) -> AsyncIterator[Postgres]:
    """The connections, closed at the end."""
    postgres = Postgres(address)
    try:
        yield postgres
    finally:
        await postgres.close()


def require_drivers() -> None:
    """Raises ConfigError if the packages of ``atomstream[cluster]`` are missing."""
    try:
        import alembic  # noqa: F401  (to check that it is installed)
        import asyncpg  # noqa: F401  (to check that it is installed)
        import pg8000  # noqa: F401  (to check that it is installed)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"A catalogue on PostgreSQL needs the package {error.name}: pip install 'atomstream[cluster]'."
        ) from None
