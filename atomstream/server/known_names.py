"""Samples, tags and projects as the files tell them: the journal first, then what streams remember."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.server.about import NamedId, StreamAbout
from atomstream.server.catalogue import project_row, put_tracking, sample_row, tag_row
from atomstream.server.journal import Journal, Line, ProjectMade, SampleMade, SampleTracked, TagMade
from atomstream.server.models import Project, Sample, Tag
from atomstream.server.names import name_key

Made: TypeAlias = SampleMade | TagMade | ProjectMade


class KnownNames:
    """Collects names by id, and puts those into the tables that lack there."""

    def __init__(self) -> None:
        self._made: dict[type[Made], dict[str, Made]] = {SampleMade: {}, TagMade: {}, ProjectMade: {}}
        self._tracked: dict[tuple[str, str], SampleTracked] = {}

    @classmethod
    def read(cls, data_dir: Path) -> KnownNames:
        """What the journal of ``data_dir`` says; blocking."""
        names = cls()
        for line in Journal(data_dir).lines():
            names._add(line)
        return names

    def _add(self, line: Line) -> None:
        if isinstance(line, SampleTracked):
            # Kept in the order of the last word on each, for the last active one of a project counts.
            self._tracked.pop((line.project_id, line.sample_id), None)
            self._tracked[line.project_id, line.sample_id] = line
        else:
            self._made[type(line)].setdefault(line.id, line)

    def learn(self, about: StreamAbout) -> None:
        """Take from a stream what the journal lacks (it was lost, or the folder came from elsewhere)."""
        if about.sample:
            self._learn(SampleMade, about.sample, about.made)
        if about.project:
            self._learn(ProjectMade, about.project, about.made)
        for tag in about.tags:
            self._learn(TagMade, tag, about.made)

    def _learn(self, kind: type[Made], named: NamedId, made: str) -> None:
        known = self._made[kind]
        if named.id in known:
            return
        keys = {name_key(line.name) for line in known.values()}
        # A name can belong to one id only; a second one stays found by its id, and its name says so.
        name = f"{named.name} ({named.id[:8]})" if name_key(named.name) in keys else named.name
        known[named.id] = kind(id=named.id, name=name, made=made)

    async def put(self, session: AsyncSession) -> None:
        """Add to the tables what they lack."""
        samples = set(await session.scalars(select(Sample.id)))
        tags = set(await session.scalars(select(Tag.id)))
        projects = set(await session.scalars(select(Project.id)))
        for line in (line for made in self._made.values() for line in made.values()):
            if isinstance(line, SampleMade) and line.id not in samples:
                session.add(sample_row(line))
            elif isinstance(line, TagMade) and line.id not in tags:
                session.add(tag_row(line))
            elif isinstance(line, ProjectMade) and line.id not in projects:
                session.add(project_row(line))
        await session.flush()
        for tracking in self._tracked.values():
            await put_tracking(session, tracking)
