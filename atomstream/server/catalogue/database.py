"""The catalogue's SQLite file: its tables, opening it, and one writer at a time."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Dialect,
    Engine,
    ForeignKey,
    Integer,
    String,
    Text,
    TypeDecorator,
    create_engine,
    event,
    text,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from atomstream.server.disk_errors import DiskState, is_disk_error, is_disk_full
from atomstream.system.files import LOCAL
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import create_plain, make_file_private, open_for_writing, prepare_for_library

log = get_logger("atomstream.server")

CATALOGUE_FILE = "catalogue.sqlite"

# The catalogue's tables. All of them can be rebuilt from the files.
#
# Times are ISO 8601 in UTC with microseconds, so that their order as text is their order in time.

SCHEMA_VERSION = 2
"""Kept in SQLite's user_version; a catalogue of another version is removed and rebuilt from the files."""


def iso_now(at: datetime | None = None) -> str:
    """``at``, or the present time, as the tables contain it: ISO 8601, UTC, microseconds."""
    return (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="microseconds")


class PostgresText(TypeDecorator[str]):
    """A text on PostgreSQL, compared by code points as SQLite does. NUL, which it can't store, becomes U+FFFD."""

    impl = Text(collation="C")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as it is stored and compared."""
        return value if value is None else value.replace("\0", "\ufffd")


class Base(DeclarativeBase):
    """Base of the tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: String().with_variant(PostgresText(), "postgresql"),
        int: Integer().with_variant(BigInteger(), "postgresql"),
    }


class Sample(Base):
    """A physical sample. ``name_key`` is its :func:`~atomstream.protocol.normalized_name`."""

    __tablename__ = "samples"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    target_material: Mapped[str | None] = mapped_column(default=None)
    detail_notes: Mapped[str | None] = mapped_column(default=None)


class Tag(Base):
    """A tag, by which streams are searched."""

    __tablename__ = "tags"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]


class Project(Base):
    """A project: a set of samples."""

    __tablename__ = "projects"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    name_key: Mapped[str] = mapped_column(unique=True)
    made: Mapped[str]
    last_updated: Mapped[str]


class Tracking(Base):
    """A sample in a project. At most one sample of a project is active."""

    __tablename__ = "tracking"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    sample_id: Mapped[str] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    active: Mapped[bool]


class Stream(Base):
    """One stream, from the description in its archive. ``n_frames`` is the archive's length in frames."""

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


RUN_SUFFIX: Final = "-run"
"""Of a file beside the catalogue that exists while a server runs. If it is there at a start, the server was killed."""
_CLOCK_S: Final = 2.0


class Database:
    """Sessions on the catalogue. ``is_new`` is True if its tables were just created and are empty.

    ``changed_since`` is None after a clean end of the last server. Otherwise rows may be older than the files: those of
    streams whose description was written at this time (Unix s) or later. ``complete`` is set once they were read again.
    """

    def __init__(
        self, engine: AsyncEngine, blocking: Engine, *, is_new: bool, run_marker: Path | None = None
    ) -> None:
        self.changed_since: float | None = None
        self.complete = False
        self.deleted: set[str] = set()
        """Streams that are being deleted or were deleted."""
        self._run_marker = run_marker
        self._engine = engine
        self._blocking = blocking
        self._writer = asyncio.Lock()
        self.is_new = is_new
        self._temporary: Path | None = None

    @classmethod
    async def open(cls, data_dir: Path) -> Database:
        """Open the catalogue of ``data_dir``. If it is missing, damaged or of another version, an empty one is created.

        Nothing is lost: the catalogue can be rebuilt from the files.
        """
        try:
            return await cls._open(data_dir / CATALOGUE_FILE)
        except (sqlite3.Error, SQLAlchemyError, OSError) as error:
            if not is_disk_full(error) and not (is_disk_error(error) and DiskState(data_dir).problem()):
                raise
        # SQLite can't even read a database without room for its log. What is stored can be read nevertheless.
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="atomstream-catalogue-"))
        log.error(
            "the disk of %s is full: the list of streams is kept in %s until the next start", data_dir, folder
        )
        database = await cls._open(folder / CATALOGUE_FILE)
        database._temporary = folder
        return database

    @classmethod
    async def _open(cls, path: Path) -> Database:
        await asyncio.to_thread(_make_private, path)
        usable = await asyncio.to_thread(_is_usable, path)
        if not usable:
            await asyncio.to_thread(_discard, path)
            await asyncio.to_thread(_make_private, path)
        engine = create_async_engine(f"sqlite+aiosqlite:///{path.as_posix()}")
        blocking = create_engine(f"sqlite:///{path.as_posix()}")
        for one in (engine.sync_engine, blocking):
            event.listen(one, "connect", _configure)
        marker = path.with_name(path.name + RUN_SUFFIX)
        database = cls(engine, blocking, is_new=not usable, run_marker=marker)
        database.changed_since = await asyncio.to_thread(_begin_run, marker)
        if not usable:
            try:
                await database._create_tables()
            except BaseException:
                await database.close()
                raise
        return database

    async def _create_tables(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session for reading."""
        async with AsyncSession(self._engine) as session:
            yield session

    @contextmanager
    def reading_in_thread(self) -> Iterator[Connection]:
        """A connection for reading from a thread: thousands of rows would block the event loop. Blocks."""
        with self._blocking.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """A session whose changes are committed at the end, or rolled back after an exception.

        SQLite allows one writer. Waiting here, and not in SQLite's busy handler, blocks no thread.
        """
        async with (
            self._writer,
            AsyncSession(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def naming(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session as :meth:`writing`, for a change of names: no other server changes names at the same time."""
        return self.writing()

    async def gone(self) -> set[str]:
        """Streams that other servers have deleted: files of them that are left do not count."""
        return set()

    async def require(self) -> None:
        """Raises CatalogueUnavailableError if the database can't be reached; the file of SQLite always can."""

    @property
    def is_shared(self) -> bool:
        """Whether other servers use the same catalogue."""
        return False

    @property
    def problem(self) -> str:
        """A sentence while the database can't be reached; empty otherwise."""
        return ""

    async def clear(self) -> None:
        """Delete all rows, those with foreign keys first."""
        async with self.writing() as session:
            for table in reversed(Base.metadata.sorted_tables):
                await session.execute(table.delete())

    async def close(self) -> None:
        """Close all connections and end their threads."""
        await self._engine.dispose()
        self._blocking.dispose()
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)
        if self.complete and self._run_marker is not None:
            self._run_marker.unlink(missing_ok=True)


def _begin_run(marker: Path) -> float | None:
    """Make the marker; the time of an existing one, which stays until all changes since then have been read."""
    try:
        return marker.stat().st_mtime - _CLOCK_S
    except FileNotFoundError:
        LOCAL.write_atomic(marker, [b""])
        return None


def _configure(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _make_private(path: Path) -> None:
    """SQLite makes its files readable for all, and follows links: so the empty file is made here."""
    for suffix in ("", "-wal", "-shm"):
        _clear_name(path.with_name(path.name + suffix))
    try:
        os.close(open_for_writing(path))
    except FileNotFoundError:
        os.close(create_plain(path))
    make_file_private(path)


def _clear_name(path: Path) -> None:
    try:
        prepare_for_library(path)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        number = 1
        while (aside := path.with_name(f"{path.name}.aside-{number}")).exists():
            number += 1
        LOCAL.rename(path, aside)
        log.warning(
            "%s is not a file; it was renamed to %s, and the catalogue is built again", path, aside.name
        )


def _is_usable(path: Path) -> bool:
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if version == SCHEMA_VERSION and verdict == "ok":
            _check_content(connection)
    except sqlite3.DatabaseError as error:
        if is_disk_full(error) or (is_disk_error(error) and DiskState(path.parent).problem()):
            raise
        log.warning("The catalogue %s is damaged (%s); it is rebuilt from the files.", path, error)
        return False
    finally:
        connection.close()
    return bool(version == SCHEMA_VERSION and verdict == "ok")


def _check_content(connection: sqlite3.Connection) -> None:
    """Check that all tables have their columns, and numbers where numbers belong: SQLite itself checks neither.

    Raises:
        sqlite3.DatabaseError: they have not.
    """
    for table in Base.metadata.sorted_tables:
        names = ", ".join(column.name for column in table.columns)
        connection.execute(f"SELECT {names} FROM {table.name} LIMIT 0")
    wrong = " OR ".join(
        f"typeof({name}) NOT IN ('integer', 'real') OR {name} < 0" for name in ("fps", "rpm", "n_frames")
    )
    if connection.execute(f"SELECT 1 FROM streams WHERE {wrong} OR fps = 0 LIMIT 1").fetchone():
        raise sqlite3.DatabaseError("it has text or impossible values in columns of numbers")


def _discard(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
