"""The catalogue's SQLite file: opening it, and one writer at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from atomstream.server.models import SCHEMA_VERSION, Base

log = logging.getLogger("atomstream.server")
CATALOGUE_FILE = "catalogue.sqlite"


class Database:
    """Sessions on the catalogue. ``fresh`` says that its tables are new and empty: they want filling."""

    def __init__(self, engine: AsyncEngine, *, fresh: bool) -> None:
        self._engine = engine
        self._writer = asyncio.Lock()
        self.fresh = fresh

    @classmethod
    async def open(cls, data_dir: Path) -> Database:
        """Open the catalogue of ``data_dir``; one that is missing, damaged or of another version starts anew.

        Nothing is lost by that: the catalogue is a cache of the files.
        """
        path = data_dir / CATALOGUE_FILE
        usable = await asyncio.to_thread(_is_usable, path)
        if not usable:
            await asyncio.to_thread(_discard, path)
        engine = create_async_engine(f"sqlite+aiosqlite:///{path.as_posix()}")
        event.listen(engine.sync_engine, "connect", _configure)
        database = cls(engine, fresh=not usable)
        if not usable:
            await database._create_tables()
        return database

    async def _create_tables(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that changes nothing."""
        async with AsyncSession(self._engine) as session:
            yield session

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are committed at its end, or undone at an error.

        SQLite has one writer; waiting for it here rather than in SQLite's busy handler keeps threads free.
        """
        async with (
            self._writer,
            AsyncSession(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    async def clear(self) -> None:
        """Empty all tables, children before parents."""
        async with self.writing() as session:
            for table in reversed(Base.metadata.sorted_tables):
                await session.execute(table.delete())

    async def close(self) -> None:
        """Close all connections; their threads end."""
        await self._engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _is_usable(path: Path) -> bool:
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        log.warning("the catalogue %s is damaged (%s); it is rebuilt from the files", path, error)
        return False
    finally:
        connection.close()
    return bool(version == SCHEMA_VERSION and verdict == "ok")


def _discard(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
