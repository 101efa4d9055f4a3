"""Samples, tags and projects: unique by name, looked up by name or id."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Executable, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.protocol import normalized_name
from atomstream.server.catalogue.database import (
    Database,
    Project,
    Sample,
    Stream,
    StreamTag,
    Tag,
    Tracking,
    iso_now,
)
from atomstream.server.catalogue.names_log import (
    NameRecord,
    NamesLog,
    ProjectCreated,
    SampleCreated,
    SampleTracked,
    StreamDeleted,
    TagCreated,
)

OWNER = "atomstream"
"""Owner in all listings: this server has no user accounts."""

Visible: TypeAlias = frozenset[str] | None
"""The ids of the projects that somebody sees; None: everything."""

Named = TypeVar("Named", Sample, Tag, Project)

MOST_NAMES: Final = {Sample: 50_000, Tag: 50_000, Project: 2000}
"""Most samples, tags and projects: each list of them has all, in one reply."""
ROWS: Final = 500
"""Rows that are made in one iteration of the event loop."""


class NameTakenError(Exception):
    """The name or id is already used, by ``existing_id``."""

    def __init__(self, existing_id: str) -> None:
        super().__init__(f"taken by {existing_id}")
        self.existing_id = existing_id


class TooManyNamesError(Exception):
    """There are as many names of this kind as are allowed; the message is a sentence."""


class Catalogue:
    """Names and their ids. A new one is in the names log, on disk, before it is in the tables."""

    def __init__(self, database: Database, names_log: NamesLog) -> None:
        self._db = database
        self._names_log = names_log

    async def add_sample(self, name: str) -> str:
        """Create a sample and return its id.

        Raises:
            NameTakenError: it is known, also if another request was faster. TooManyNamesError.
        """
        record = SampleCreated(id=str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(sample_row(record), record)
        return record.id

    async def add_tag(self, name: str) -> str:
        """Create a tag and return its id; raises NameTakenError, TooManyNamesError."""
        record = TagCreated(id=str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(tag_row(record), record)
        return record.id

    async def add_project(self, name: str, project_id: str | None = None) -> str:
        """Create a project, with ``project_id`` if given, and return its id.

        Raises:
            NameTakenError: the name or the id is known. TooManyNamesError.
        """
        record = ProjectCreated(id=project_id or str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(project_row(record), record)
        return record.id

    async def _add(self, row: Named, record: NameRecord) -> None:
        kind = type(row)
        row_id, key = row.id, row.name_key
        try:
            async with self._db.naming() as session:
                session.add(row)
                # If two requests race, the unique index fails here, before the names log has the record.
                await session.flush()
                if (await session.scalar(select(func.count()).select_from(kind)) or 0) > MOST_NAMES[kind]:
                    raise TooManyNamesError(
                        f"There are {MOST_NAMES[kind]} {kind.__tablename__} already, and no more can be made."
                    )
                await self._note(session, record)
        except IntegrityError:
            async with self._db.reading() as session:
                found = select(kind.id).where((kind.name_key == key) | (kind.id == row_id))
                raise NameTakenError((await session.scalars(found)).first() or row_id) from None

    async def track(self, project_id: str, sample_id: str, *, active: bool) -> None:
        """Put a sample into a project. An active one replaces the project's active sample."""
        record = SampleTracked(project_id=project_id, sample_id=sample_id, active=active, made=iso_now())
        async with self._db.naming() as session:
            known = await session.get(Tracking, (project_id, sample_id))
            if known is not None and known.active == active:
                return  # the names log would grow with each repeat
            await put_tracking(session, record)
            await self._note(session, record)

    async def note_deleted(self, data_id: str, name: str, project_id: str | None) -> None:
        """Note in the names log that a stream was deleted, which was in that project."""
        record = StreamDeleted(id=data_id, name=name, made=iso_now(), project_id=project_id)
        async with self._db.naming() as session:  # one writer of the log at a time
            await self._note(session, record)

    async def _note(self, _session: AsyncSession, record: NameRecord) -> None:
        await asyncio.to_thread(self._names_log.append, record)

    async def deleted_streams(self, streams_dir: Path) -> dict[str, str | None]:
        """The ids of all streams that were deleted here, each with the id of its project.

        Those that a backup has brought back are left out.
        """

        def read() -> dict[str, str | None]:
            lines = [line for line in self._names_log.lines() if isinstance(line, StreamDeleted)]
            return {line.id: line.project_id for line in lines if not (streams_dir / line.id).is_dir()}

        return await asyncio.to_thread(read)

    async def find(self, kind: type[Named], ids: Sequence[str]) -> dict[str, Named]:
        """The rows of those ``ids`` that exist, by id."""
        async with self._db.reading() as session:
            rows = await session.scalars(select(kind).where(kind.id.in_(ids)))
            return {row.id: row for row in rows}

    async def tags(self, visible: Visible = None) -> list[dict[str, Any]]:
        """All tags, in the protocol's form, by name; of ``visible`` projects those that their streams have."""
        query = select(Tag.id, Tag.name).order_by(Tag.name_key)
        if visible is not None:
            of_streams = select(StreamTag.tag_id).join(Stream, Stream.data_id == StreamTag.data_id)
            query = query.where(Tag.id.in_(of_streams.where(Stream.project_id.in_(visible))))
        async with self._db.reading() as session:
            return [{"id": tag_id, "name": name} for tag_id, name in await _all_rows(session, query)]

    async def samples(self, visible: Visible = None) -> list[dict[str, Any]]:
        """All samples, in the protocol's form, oldest first.

        Of ``visible`` projects: those that are in one of them or on a stream of one. Then only these projects and
        streams are listed and counted.
        """
        async with self._db.reading() as session:
            counts = await _streams_by_sample(session, visible)
            projects = await _projects_by_sample(session, visible)
            columns = (Sample.id, Sample.name, Sample.made, Sample.target_material, Sample.detail_notes)
            rows = await _all_rows(session, select(*columns).order_by(Sample.made))
            return [
                _sample_entry(row, counts, projects)
                for row in rows
                if visible is None or row.id in counts or row.id in projects
            ]

    async def sees_sample(self, sample_id: str, visible: Visible) -> bool:
        """Whether a sample is in one of the ``visible`` projects, or on a stream of one."""
        if visible is None:
            return True
        tracked = select(Tracking.sample_id).where(
            Tracking.sample_id == sample_id, Tracking.project_id.in_(visible)
        )
        used = select(Stream.sample_id).where(Stream.sample_id == sample_id, Stream.project_id.in_(visible))
        async with self._db.reading() as session:
            return (await session.scalars(tracked.union_all(used).limit(1))).first() is not None

    async def projects(self, visible: Visible = None) -> list[dict[str, Any]]:
        """All projects, in the protocol's form, oldest first; only the ``visible`` ones if that is given."""
        count = select(func.count()).where(Tracking.project_id == Project.id).scalar_subquery()
        active = select(Tracking.sample_id).where(Tracking.project_id == Project.id, Tracking.active)
        query = select(Project, count, active.limit(1).scalar_subquery()).order_by(Project.made)
        async with self._db.reading() as session:
            return [
                {
                    "id": project.id,
                    "name": project.name,
                    "physical_sample_count": n_samples,
                    "tracking_physical_sample_id": tracked,
                    "last_updated": project.last_updated,
                    "owner_name": OWNER,
                }
                for project, n_samples, tracked in (await session.execute(query))
                if visible is None or project.id in visible
            ]


async def _all_rows(session: AsyncSession, query: Executable) -> list[Any]:
    """The rows of a long list, made in pieces, so that other requests are answered in between."""
    found: list[Any] = []
    async for piece in (await session.stream(query)).partitions(ROWS):
        found.extend(piece)
        await asyncio.sleep(0)
    return found


def sample_row(record: SampleCreated) -> Sample:
    """The table row of a record of the names log."""
    return Sample(id=record.id, name=record.name, name_key=normalized_name(record.name), made=record.made)


def tag_row(record: TagCreated) -> Tag:
    """The table row of a record of the names log."""
    return Tag(id=record.id, name=record.name, name_key=normalized_name(record.name), made=record.made)


def project_row(record: ProjectCreated) -> Project:
    """The table row of a record of the names log."""
    return Project(
        id=record.id,
        name=record.name,
        name_key=normalized_name(record.name),
        made=record.made,
        last_updated=record.made,
    )


async def put_tracking(session: AsyncSession, record: SampleTracked) -> None:
    """Apply a record of the names log that puts a sample into a project."""
    if record.active:
        await session.execute(
            update(Tracking).where(Tracking.project_id == record.project_id).values(active=False)
        )
    await session.merge(
        Tracking(project_id=record.project_id, sample_id=record.sample_id, active=record.active)
    )
    touched = update(Project).where(Project.id == record.project_id).values(last_updated=record.made)
    await session.execute(touched)


async def _streams_by_sample(session: AsyncSession, visible: Visible) -> dict[str, tuple[int, str]]:
    query = select(Stream.sample_id, func.count(), func.max(Stream.last_updated)).group_by(Stream.sample_id)
    if visible is not None:
        query = query.where(Stream.project_id.in_(visible))
    return {key: (n, last) for key, n, last in await _all_rows(session, query) if key is not None}


async def _projects_by_sample(session: AsyncSession, visible: Visible) -> dict[str, list[dict[str, str]]]:
    query = select(Tracking.sample_id, Project.id, Project.name).join(
        Project, Project.id == Tracking.project_id
    )
    if visible is not None:
        query = query.where(Project.id.in_(visible))
    found: dict[str, list[dict[str, str]]] = {}
    for sample_id, project_id, name in await _all_rows(session, query):
        found.setdefault(sample_id, []).append({"id": project_id, "name": name})
    return found


def _sample_entry(
    row: Any, counts: dict[str, tuple[int, str]], projects: dict[str, list[dict[str, str]]]
) -> dict[str, Any]:
    n_items, last = counts.get(row.id, (0, row.made))
    return {
        "id": row.id,
        "name": row.name,
        "projects": projects.get(row.id, []),
        "created_datetime": row.made,
        "last_updated": last,
        "num_data_items": n_items,
        "owner_name": OWNER,
        "target_material": row.target_material,
        "detail_notes": row.detail_notes,
    }
