"""Samples, tags and projects: created once each, found again by name or id."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.protocol import normalized_name
from atomstream.server.catalogue.database import Database, Project, Sample, Stream, Tag, Tracking, iso_now
from atomstream.server.catalogue.names_log import (
    NameRecord,
    NamesLog,
    ProjectCreated,
    SampleCreated,
    SampleTracked,
    TagCreated,
)

OWNER = "atomstream"
"""Who owns all there is: a server of one's own has no accounts."""
Named = TypeVar("Named", Sample, Tag, Project)


class NameTakenError(Exception):
    """What is there already under that name (or id): ``existing_id``."""

    def __init__(self, existing_id: str) -> None:
        super().__init__(f"taken by {existing_id}")
        self.existing_id = existing_id


class Catalogue:
    """Names and their ids. A new one is in the journal, on disk, before it is in the tables."""

    def __init__(self, database: Database, journal: NamesLog) -> None:
        self._db = database
        self._journal = journal

    async def add_sample(self, name: str) -> str:
        """Create a sample and return its id; raises NameTakenError, also to the loser of a race."""
        line = SampleCreated(id=str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(sample_row(line), line)
        return line.id

    async def add_tag(self, name: str) -> str:
        """Create a tag and return its id; raises NameTakenError."""
        line = TagCreated(id=str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(tag_row(line), line)
        return line.id

    async def add_project(self, name: str, project_id: str | None = None) -> str:
        """Create a project (under an id of one's own, where given) and return its id; raises NameTakenError."""
        line = ProjectCreated(id=project_id or str(uuid.uuid4()), name=name, made=iso_now())
        await self._add(project_row(line), line)
        return line.id

    async def _add(self, row: Named, line: NameRecord) -> None:
        kind = type(row)
        row_id, key = row.id, row.name_key
        try:
            async with self._db.writing() as session:
                session.add(row)
                # The unique index decides a race here, before the journal says that the row exists.
                await session.flush()
                await asyncio.to_thread(self._journal.append, line)
        except IntegrityError:
            async with self._db.reading() as session:
                found = select(kind.id).where((kind.name_key == key) | (kind.id == row_id))
                raise NameTakenError((await session.scalars(found)).first() or row_id) from None

    async def track(self, project_id: str, sample_id: str, *, active: bool) -> None:
        """Put a sample into a project; an active one takes the place of the one before it."""
        line = SampleTracked(project_id=project_id, sample_id=sample_id, active=active, made=iso_now())
        async with self._db.writing() as session:
            await put_tracking(session, line)
            await asyncio.to_thread(self._journal.append, line)

    async def find(self, kind: type[Named], ids: Sequence[str]) -> dict[str, Named]:
        """Those rows of ``ids`` that exist, by id."""
        async with self._db.reading() as session:
            rows = await session.scalars(select(kind).where(kind.id.in_(ids)))
            return {row.id: row for row in rows}

    async def tags(self) -> list[dict[str, Any]]:
        """All tags, as the protocol lists them."""
        async with self._db.reading() as session:
            rows = await session.scalars(select(Tag).order_by(Tag.name_key))
            return [{"id": tag.id, "name": tag.name} for tag in rows]

    async def samples(self) -> list[dict[str, Any]]:
        """All samples, as the protocol lists them."""
        async with self._db.reading() as session:
            counts = await _streams_by_sample(session)
            projects = await _projects_by_sample(session)
            rows = await session.scalars(select(Sample).order_by(Sample.made))
            return [_sample_entry(row, counts, projects) for row in rows]

    async def projects(self) -> list[dict[str, Any]]:
        """All projects, as the protocol lists them."""
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
            ]


def sample_row(line: SampleCreated) -> Sample:
    """The row of a journal line."""
    return Sample(id=line.id, name=line.name, name_key=normalized_name(line.name), made=line.made)


def tag_row(line: TagCreated) -> Tag:
    """The row of a journal line."""
    return Tag(id=line.id, name=line.name, name_key=normalized_name(line.name), made=line.made)


def project_row(line: ProjectCreated) -> Project:
    """The row of a journal line."""
    return Project(
        id=line.id,
        name=line.name,
        name_key=normalized_name(line.name),
        made=line.made,
        last_updated=line.made,
    )


async def put_tracking(session: AsyncSession, line: SampleTracked) -> None:
    """Do what a journal line of tracking says."""
    if line.active:
        await session.execute(
            update(Tracking).where(Tracking.project_id == line.project_id).values(active=False)
        )
    await session.merge(Tracking(project_id=line.project_id, sample_id=line.sample_id, active=line.active))
    touched = update(Project).where(Project.id == line.project_id).values(last_updated=line.made)
    await session.execute(touched)


async def _streams_by_sample(session: AsyncSession) -> dict[str, tuple[int, str]]:
    query = select(Stream.sample_id, func.count(), func.max(Stream.last_updated)).group_by(Stream.sample_id)
    return {key: (n, last) for key, n, last in (await session.execute(query)) if key is not None}


async def _projects_by_sample(session: AsyncSession) -> dict[str, list[dict[str, str]]]:
    query = select(Tracking.sample_id, Project.id, Project.name).join(
        Project, Project.id == Tracking.project_id
    )
    found: dict[str, list[dict[str, str]]] = {}
    for sample_id, project_id, name in await session.execute(query):
        found.setdefault(sample_id, []).append({"id": project_id, "name": name})
    return found


def _sample_entry(
    row: Sample, counts: dict[str, tuple[int, str]], projects: dict[str, list[dict[str, str]]]
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
