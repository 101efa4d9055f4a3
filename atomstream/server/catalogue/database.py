"""The catalogue's SQLite file: opening it, and one writer at a time."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The catalogue's tables. All of them can be rebuilt from the files, so none holds anything of its own.
#
# Moments are ISO 8601 in UTC with microseconds, so that text order is time order.

SCHEMA_VERSION = 2
"""Kept in SQLite's user_version; a catalogue of another version is removed and rebuilt from the files."""


def iso_now(at: datetime | None = None) -> str:
    """``at`` (now) as the catalogue writes it."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


class Base(DeclarativeBase):
    """Base of the tables."""


class Sample(Base):
    """A physical sample; ``name_key`` is what makes two names the same."""

    __tablename__ = "samples"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    target_material: Mapped[str | None] = mapped_column(default=None)
    detail_notes: Mapped[str | None] = mapped_column(default=None)


class Tag(Base):
    """A word that streams are found by."""

    __tablename__ = "tags"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]


class Project(Base):
    """A set of samples under one aim."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    last_updated: Mapped[str]


class Tracking(Base):
    """A sample in a project; at most one of a project's is active."""

    __tablename__ = "tracking"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    active: Mapped[bool]


class Stream(Base):
    """One stream, as its archive's ``about`` tells it; ``n_frames`` is the archive's length."""

    __tablename__ = "streams"
    data_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str]
    status: Mapped[str] = mapped_column(index=True)
    fps: Mapped[float]
    rpm: Mapped[float]
    azimuth_label: Mapped[str | None]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    sample_id: Mapped[str | None] = mapped_column(ForeignKey("samples.id"), index=True)
    made: Mapped[str]
    last_updated: Mapped[str]
    n_frames: Mapped[int] = mapped_column(default=0)


class StreamTag(Base):
    """A tag on a stream."""

    __tablename__ = "stream_tags"
    data_id: Mapped[str] = mapped_column(ForeignKey("streams.data_id"), primary_key=True)
    tag_id: Mapped[str] = mapped_column(ForeignKey("tags.id"), primary_key=True)


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
