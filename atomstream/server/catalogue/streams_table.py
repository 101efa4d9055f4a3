"""The table of streams: one row per stream, written from its files, searched with the protocol's filters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from atomstream.protocol import normalized_name
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.catalogue.catalogue import OWNER
from atomstream.server.catalogue.database import Database, Project, Sample, Stream, StreamTag, Tag, iso_now
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")
SOURCE_TYPE = "rheed"
GROWN_PERIOD_S = 0.5
ROWS_AT_ONCE = 100
_ROW_NAMES = (
    *("name", "name_key", "status", "fps", "rpm", "azimuth_label"),
    *("project_id", "sample_id", "made", "last_updated"),
)
TAGS_AT_ONCE = 500
"""Most streams in one query for tags: SQLite limits the number of parameters."""


class position(GenericFunction[int]):  # noqa: N801  (the name of the function in SQL)
    """``position(text, part)``: where ``part`` begins in ``text``, from 1; 0 if it is not in it."""

    inherit_cache = True
    name = "instr"


@compiles(position, "postgresql")
def _strpos(element: position, compiler: Any, **named: Any) -> str:
    return f"strpos{compiler.process(element.clause_expr, **named)}"


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which streams to list. An empty field sets no condition. Lengths in s, times as in the tables."""

    keywords: tuple[str, ...] = ()
    data_ids: tuple[str, ...] = ()
    sample_ids: tuple[str, ...] = ()
    project_ids: tuple[str, ...] = ()
    data_types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    growth_length: tuple[float | None, float | None] = (None, None)
    uploaded: tuple[str | None, str | None] = (None, None)
    updated: tuple[str | None, str | None] = (None, None)
    visible: frozenset[str] | None = None
    """Only streams of these projects; None: all streams."""
    limit: int | None = None
    """Most streams to list; None: all."""
    after: str | None = None
    """Continue after this stream, the last one of the page before."""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as SQL conditions. All values are bound parameters."""
        found: list[ColumnElement[bool]] = [_mentions(normalized_name(word)) for word in self.keywords]
        for column, values in (
            (Stream.data_id, self.data_ids),
            (Stream.sample_id, self.sample_ids),
            (Stream.project_id, self.project_ids),
            (Stream.status, self.statuses),
        ):
            if values:
                found.append(column.in_(values))
        if self.data_types and not {SOURCE_TYPE, "all"} & set(self.data_types):
            found.append(Stream.data_id.is_(None))
        found += _within(Stream.n_frames / func.nullif(Stream.fps, 0), self.growth_length)
        found += _within(Stream.made, self.uploaded)
        if self.visible is not None:
            found.append(Stream.project_id.in_(self.visible))
        if self.after is not None:
            found.append(_follows(self.after, self.visible))
        return found + _within(Stream.last_updated, self.updated)


def _mentions(key: str) -> ColumnElement[bool]:
    part = literal(key, Stream.name_key.type)
    tagged = (
        select(StreamTag.data_id)
        .join(Tag, Tag.id == StreamTag.tag_id)
        .where(StreamTag.data_id == Stream.data_id, position(Tag.name_key, part) > 0)
    )
    by_name = position(Stream.name_key, part) > 0
    return or_(by_name, position(func.coalesce(Sample.name_key, ""), part) > 0, tagged.exists())


def _follows(data_id: str, visible: frozenset[str] | None) -> ColumnElement[bool]:
    """The condition that a stream follows ``data_id`` in the list, which begins with the newest one."""
    named = select(Stream.made).where(Stream.data_id == data_id)
    made = (named if visible is None else named.where(Stream.project_id.in_(visible))).scalar_subquery()
    return or_(Stream.made < made, and_(Stream.made == made, Stream.data_id > data_id))


def _within(column: Any, bounds: tuple[Any, Any]) -> list[ColumnElement[bool]]:
    low, high = bounds
    return [*([column >= low] if low is not None else []), *([column <= high] if high is not None else [])]


class StreamsTable:
    """Reads and writes the rows of streams."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._grown: dict[str, tuple[int, str]] = {}
        self._grown_at = -math.inf

    async def require(self) -> None:
        """Raises CatalogueUnavailableError if no stream can be made now, because the database can't be reached."""
        await self._db.require()

    async def silent_s(self, data_id: str) -> float | None:
        """Time in s since another server has changed a stream; None where this server is the only one."""
        return None

    async def silent_for(self, least_s: float, statuses: Sequence[str]) -> list[str]:
        """Streams with one of these statuses that no server has changed for ``least_s``; none for a single server."""
        return []

    @property
    def pending(self) -> int:
        """Streams whose row is older than their files."""
        return len(self._grown)

    @property
    def problem(self) -> str:
        """A sentence while the database can't be reached; empty otherwise."""
        return self._db.problem

    @property
    def is_shared(self) -> bool:
        """Whether other servers write rows, too."""
        return self._db.is_shared

    async def add(self, about: StreamMetadata) -> None:
        """Write the row of a new stream."""
        await self.put(about)

    async def put(self, about: StreamMetadata) -> None:
        """Write the row of a new or changed stream."""
        # Lengths first: a restart reads only those of growing streams again, and the new status may be another one.
        await self._write_grown()
        async with self._db.writing() as session:
            await put_stream(session, about)

    @property
    def deleted(self) -> set[str]:
        """The ids of streams that are being deleted or were deleted: no row of them is written any more."""
        return self._db.deleted

    def mark_incomplete(self) -> None:
        """A row may differ from its stream's files: the next start of the server reads them again."""
        self._db.complete = False

    async def note_chunk(self, data_id: str, n_frames: int) -> None:
        """Note that a chunk was stored, and that the archive now has at least ``n_frames`` frames. Lengths are written
        at most twice a second, and before each search: 40 statements/s would take more time of the event loop than the
        chunks. After a crash the next start reads the lengths from the files.
        """
        before, _ = self._grown.get(data_id, (0, ""))
        self._grown[data_id] = (max(before, n_frames), iso_now())
        if time.monotonic() - self._grown_at >= GROWN_PERIOD_S:
            await self._write_grown()

    async def note_length(self, data_id: str, n_frames: int) -> None:
        """Note that an archive was opened and has at least ``n_frames`` frames, perhaps more than its row states."""
        await self.note_chunk(data_id, n_frames)

    async def _write_grown(self) -> None:
        self._grown_at = time.monotonic()
        grown, self._grown = self._grown, {}
        if not grown:
            return
        try:
            async with self._db.writing() as session:
                for data_id, (n_frames, at) in grown.items():
                    await session.execute(_growth(data_id, n_frames, at))
        except BaseException:
            for data_id, (n_frames, at) in grown.items():
                later = self._grown.get(data_id, (0, at))
                self._grown[data_id] = (max(later[0], n_frames), later[1])
            raise

    async def known(self, data_ids: Sequence[str]) -> set[str]:
        """The ``data_ids`` that are in the table."""
        async with self._db.reading() as session:
            return set(await session.scalars(select(Stream.data_id).where(Stream.data_id.in_(data_ids))))

    async def project_of(self, data_id: str) -> str | None:
        """The id of a stream's project; None if there is none."""
        async with self._db.reading() as session:
            found = await session.scalars(select(Stream.project_id).where(Stream.data_id == data_id))
            return found.first()

    async def of_sample(self, sample_id: str) -> list[str]:
        """The ids of the streams of a sample."""
        async with self._db.reading() as session:
            return list(await session.scalars(select(Stream.data_id).where(Stream.sample_id == sample_id)))

    async def with_status(self, *statuses: str) -> list[str]:
        """The ids of streams with one of these statuses."""
        async with self._db.reading() as session:
            query = select(Stream.data_id).where(Stream.status.in_(statuses))
            return list(await session.scalars(query))

    async def count_by_status(self) -> dict[str, int]:
        """The number of streams with each status."""
        async with self._db.reading() as session:
            found = await session.execute(select(Stream.status, func.count()).group_by(Stream.status))
            return {str(status): int(count) for status, count in found}

    async def all_ids(self) -> set[str]:
        """The ids of all streams in the table."""
        async with self._db.reading() as session:
            return set(await session.scalars(select(Stream.data_id)))

    async def remove(self, data_ids: Sequence[str]) -> None:
        """Delete the rows of streams whose files were removed."""
        for data_id in data_ids:
            self._grown.pop(data_id, None)
        async with self._db.writing() as session:
            await session.execute(delete(StreamTag).where(StreamTag.data_id.in_(data_ids)))
            await session.execute(delete(Stream).where(Stream.data_id.in_(data_ids)))

    async def search(self, wanted: EntryFilter) -> Callable[[], list[dict[str, Any]]]:
        """A function that returns the streams that match ``wanted``, newest first. It blocks."""
        try:
            await self._write_grown()
        except DatabaseError as error:  # the disk is full: the list still shows everything
            log.warning("the lengths of streams can't be written to the catalogue: %s", error.orig)
        return partial(self._search, wanted, dict(self._grown))

    def _search(self, wanted: EntryFilter, grown: Mapping[str, tuple[int, str]]) -> list[dict[str, Any]]:
        with self._db.reading_in_thread() as connection:
            rows = connection.execute(_entry_query(wanted)).all()
            tags = _tags_of(connection, [row.data_id for row in rows])
        entries = []
        for row in rows:
            check_wanted()
            n_frames, at = grown.get(row.data_id, (0, ""))
            length = max(row.n_frames, n_frames), max(row.last_updated, at)
            entries.append(_entry(row, *length, tags.get(row.data_id, [])))
        return entries


def _growth(data_id: str, n_frames: int, at: str) -> Update:
    longer = case((Stream.n_frames < n_frames, n_frames), else_=Stream.n_frames)
    return update(Stream).where(Stream.data_id == data_id).values(n_frames=longer, last_updated=at)


def _entry_query(wanted: EntryFilter) -> Select[Any]:
    joined = (
        select(
            *Stream.__table__.columns, Sample.name.label("sample_name"), Project.name.label("project_name")
        )
        .outerjoin(Sample, Sample.id == Stream.sample_id)
        .outerjoin(Project, Project.id == Stream.project_id)
    )
    found = joined.where(*wanted.conditions()).order_by(Stream.made.desc(), Stream.data_id)
    return found if wanted.limit is None else found.limit(wanted.limit)


async def put_stream(session: AsyncSession, about: StreamMetadata) -> None:
    """Write the row of a stream. Its length stays unchanged."""
    if _is_postgres(session):
        await put_streams(session, [(about, 0)])
        return
    await session.merge(Stream(**_row(about)))
    await session.flush()
    await _put_tags(session, [about])


async def put_streams(
    session: AsyncSession, found: Sequence[tuple[StreamMetadata, int]], *, newer: bool = False
) -> None:
    """Write the rows of many streams, each with its length in frames, in few statements.

    With ``newer``, a row that was changed after the stream's description stays, except that its length may grow. On
    PostgreSQL that is always so.
    """
    if _is_postgres(session):
        # Imported here: a server with its own data folder needs none of it.
        from atomstream.server.catalogue.shared_rows import put_rows

        for first in range(0, len(found), ROWS_AT_ONCE):
            some = found[first : first + ROWS_AT_ONCE]
            stored = await put_rows(
                session, [{**_row(about), "n_frames": n_frames} for about, n_frames in some]
            )
            await _put_tags(session, [about for about, _ in some if about.data_id in stored])
        return
    table = Stream.__table__
    assert isinstance(table, Table)
    new = sqlite.insert(table)
    names = [*_ROW_NAMES, "n_frames"]
    changed: dict[str, Any] = {name: new.excluded[name] for name in names}
    if newer:
        is_newer = new.excluded.last_updated >= table.c.last_updated
        changed = {name: case((is_newer, value), else_=table.c[name]) for name, value in changed.items()}
        changed["n_frames"] = func.max(new.excluded.n_frames, table.c.n_frames)
    upsert = new.on_conflict_do_update(index_elements=["data_id"], set_=changed)
    for first in range(0, len(found), ROWS_AT_ONCE):
        some = found[first : first + ROWS_AT_ONCE]
        # One statement for all rows, which SQLite runs in its thread: compiling one for each would block the loop.
        await session.execute(upsert, [{**_row(about), "n_frames": n_frames} for about, n_frames in some])
        await _put_tags(session, [about for about, _ in some])


def _is_postgres(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _row(about: StreamMetadata) -> dict[str, Any]:
    return {
        "data_id": about.data_id,
        "name": about.name,
        "name_key": normalized_name(about.name),
        "status": about.status,
        "fps": about.fps,
        "rpm": about.rotations_per_min,
        "azimuth_label": about.azimuth_label,
        "project_id": about.project.id if about.project else None,
        "sample_id": about.sample.id if about.sample else None,
        "made": about.made,
        "last_updated": about.last_updated,
    }


async def _put_tags(session: AsyncSession, found: Sequence[StreamMetadata]) -> None:
    await session.execute(delete(StreamTag).where(StreamTag.data_id.in_([about.data_id for about in found])))
    tags = dict.fromkeys((about.data_id, tag.id) for about in found for tag in about.tags)
    if tags:
        rows = [{"data_id": data_id, "tag_id": tag_id} for data_id, tag_id in tags]
        await session.execute(insert(StreamTag), rows)


def _tags_of(connection: Connection, data_ids: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    query = select(StreamTag.data_id, Tag.id, Tag.name).join(Tag, Tag.id == StreamTag.tag_id)
    found: dict[str, list[dict[str, str]]] = {}
    for first in range(0, len(data_ids), TAGS_AT_ONCE):
        some = StreamTag.data_id.in_(data_ids[first : first + TAGS_AT_ONCE])
        for data_id, tag_id, name in connection.execute(query.where(some).order_by(Tag.name_key)):
            found.setdefault(data_id, []).append({"id": tag_id, "name": name})
    return found


def _entry(row: Row[Any], n_frames: int, last_updated: str, tags: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "data_id": row.data_id,
        "char_source_type": SOURCE_TYPE,
        "raw_name": row.name,
        "pipeline_status": row.status,
        "upload_datetime": row.made,
        "last_updated": last_updated,
        "collected_datetime": row.made,
        # The frame rate is 0 only in a damaged description; its stream must not keep the others out of the list.
        "growth_length": n_frames / row.fps if row.fps > 0 else 0.0,
        "physical_sample_id": row.sample_id,
        "physical_sample_name": row.sample_name,
        "projects": [{"id": row.project_id, "name": row.project_name}] if row.project_id else [],
        "tags": tags,
        "owner_name": OWNER,
        "file_metadata": {
            "fps_capture_rate": row.fps,
            "rotations_per_min": row.rpm,
            "azimuth_label": row.azimuth_label,
            "n_frames": n_frames,
        },
    }
