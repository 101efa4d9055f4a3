"""Building the catalogue from the files: completely, or only what differs after a crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.errors import AtomstreamError
from atomstream.protocol import normalized_name
from atomstream.server.archive.metadata import StreamMetadata, read_about, read_about_file
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES
from atomstream.server.catalogue.catalogue import project_row, put_tracking, sample_row, tag_row
from atomstream.server.catalogue.database import Database, Project, Sample, Stream, Tag
from atomstream.server.catalogue.names_log import (
    NameRecord,
    NamesLog,
    ProjectCreated,
    SampleCreated,
    SampleTracked,
    TagCreated,
)
from atomstream.server.catalogue.streams_table import StreamsTable, put_streams
from atomstream.server.data_dir import own_data_dir
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import read_plain

log = get_logger("atomstream.server")

AT_ONCE = 500
"""Streams that are written to the catalogue in one transaction after the start."""
UNFINISHED = ("stream_active", "stream_interrupted", "stream_finalizing")

Found: TypeAlias = tuple[StreamMetadata, int]
"""A stream and its archive's length in frames."""

# Samples, tags and projects: first from the names log, then from the streams' descriptions.

Made: TypeAlias = SampleCreated | TagCreated | ProjectCreated


class NameIndex:
    """Collects names by id, and adds the missing ones to the tables."""

    def __init__(self) -> None:
        self._made: dict[type[Made], dict[str, Made]] = {
            SampleCreated: {},
            TagCreated: {},
            ProjectCreated: {},
        }
        self._keys: dict[type[Made], set[str]] = {kind: set() for kind in self._made}
        self._tracked: dict[tuple[str, str], SampleTracked] = {}

    @classmethod
    def read(cls, data_dir: Path) -> NameIndex:
        """The names in the names log of ``data_dir``. Blocks."""
        names = cls()
        for line in NamesLog(data_dir).lines():
            names._add(line)
        return names

    def _add(self, line: NameRecord) -> None:
        if isinstance(line, SampleTracked):
            # In the order of the last record of each pair: the last active sample of a project counts.
            self._tracked.pop((line.project_id, line.sample_id), None)
            self._tracked[line.project_id, line.sample_id] = line
        else:
            self._add_named(line)

    def add_stream(self, about: StreamMetadata) -> None:
        """Add names of a stream that the names log does not have: it was lost, or the folder was copied here."""
        if about.sample:
            self._add_named(SampleCreated(about.sample.id, about.sample.name, about.made))
        if about.project:
            self._add_named(ProjectCreated(about.project.id, about.project.name, about.made))
        for tag in about.tags:
            self._add_named(TagCreated(tag.id, tag.name, about.made))

    def _add_named(self, record: Made) -> None:
        records = self._made[type(record)]
        if record.id in records:
            return
        # Names are unique in the tables. Two ids have equal names where folders of another server were copied here,
        # or where an earlier version compared names differently: the later one is listed with part of its id.
        keys = self._keys[type(record)]
        if normalized_name(record.name) in keys:
            record = msgspec.structs.replace(record, name=f"{record.name} ({record.id[:8]})")
        keys.add(normalized_name(record.name))
        records[record.id] = record

    async def put(self, session: AsyncSession) -> None:
        """Add the names that are missing in the tables."""
        samples = set(await session.scalars(select(Sample.id)))
        tags = set(await session.scalars(select(Tag.id)))
        projects = set(await session.scalars(select(Project.id)))
        for line in (line for made in self._made.values() for line in made.values()):
            if isinstance(line, SampleCreated) and line.id not in samples:
                session.add(sample_row(line))
            elif isinstance(line, TagCreated) and line.id not in tags:
                session.add(tag_row(line))
            elif isinstance(line, ProjectCreated) and line.id not in projects:
                session.add(project_row(line))
        await session.flush()
        for tracking in self._tracked.values():
            await put_tracking(session, tracking)


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """The number of rows in the catalogue after it was rebuilt."""

    streams: int
    samples: int
    tags: int
    projects: int


async def reindex(data_dir: Path) -> ReindexReport:
    """Rebuild the catalogue of ``data_dir`` from its files. No server may use the folder at the same time.

    Raises:
        ConfigError: a server uses the folder, or it is not a data folder.
    """
    with own_data_dir(data_dir, must_exist=True):
        database = await Database.open(data_dir)
        try:
            await database.clear()
            await catch_up(database, data_dir)
            return await _count(database)
        finally:
            await database.close()


@dataclass(frozen=True, slots=True)
class Unread:
    """Streams that a start has not read, and the names that it knows."""

    data_ids: list[str]
    names: NameIndex


async def catch_up(database: Database, data_dir: Path, most: int | None = None) -> Unread:
    """Update the tables from the files, reading only streams that may differ.

    These are the streams that are not in the tables, and those that were not finished when the server stopped: only
    they can have changed after their row was written. At most ``most`` of them are read, the last changed first. The
    others are returned, for :func:`catch_up_later`.
    """
    entries, streams_dir = StreamsTable(database), data_dir / "streams"
    on_disk = await asyncio.to_thread(_stream_ids, streams_dir)
    listed = await entries.all_ids()
    changed = (on_disk.keys() - listed) | (on_disk.keys() & set(await entries.with_status(*UNFINISHED)))
    ordered = sorted(changed, key=lambda data_id: (-on_disk[data_id], data_id))
    found = await asyncio.to_thread(lambda: list(_read_streams(streams_dir, ordered[:most])))
    names = await asyncio.to_thread(NameIndex.read, data_dir)
    async with database.writing() as session:
        await _fill(session, names, found)
    await entries.remove(sorted(listed - on_disk.keys()))
    return Unread([] if most is None else ordered[most:], names)


async def catch_up_later(
    database: Database,
    streams_dir: Path,
    unread: Unread,
    open_archive: Callable[[str], Awaitable[StreamArchive]],
) -> None:
    """Update the rows of these streams, while the server runs.

    ``open_archive`` returns the archive of a stream, the only one in this process.
    """
    for first in range(0, len(unread.data_ids), AT_ONCE):
        some = unread.data_ids[first : first + AT_ONCE]
        found = await asyncio.to_thread(_read_quickly, streams_dir, some)
        for data_id in some:
            if data_id not in found and (read := await _read_by(open_archive, data_id)) is not None:
                found[data_id] = read
        try:
            async with database.writing() as session:
                await _fill(session, unread.names, list(found.values()), newer=True)
        except (
            SQLAlchemyError
        ) as error:  # the disk is full, or a name was taken meanwhile: the next start repeats it
            log.warning("%d streams could not be written to the catalogue: %s", len(found), error)


async def _read_by(open_archive: Callable[[str], Awaitable[StreamArchive]], data_id: str) -> Found | None:
    try:
        archive = await open_archive(data_id)
        return read_about(archive.description), archive.n_frames()
    except Exception as error:
        # One damaged folder must not keep the others out of the catalogue.
        log.warning("stream %s can't be read and is left out of the catalogue: %s", data_id, error)
        return None


async def _fill(
    session: AsyncSession, names: NameIndex, found: Iterable[Found], *, newer: bool = False
) -> None:
    for about, _ in found:
        names.add_stream(about)
    await names.put(session)
    await put_streams(
        session, list({about.data_id: (about, n_frames) for about, n_frames in found}.values()), newer=newer
    )


def _stream_ids(streams_dir: Path) -> dict[str, float]:
    """The streams in the folder, each with the time of the last change of its description."""
    found: dict[str, float] = {}
    for path in streams_dir.iterdir():
        with suppress(OSError):  # no stream, or a link that leads nowhere
            found[path.name] = (path / "stream.json").stat().st_mtime
    return found


def _read_streams(streams_dir: Path, data_ids: Iterable[str]) -> Iterator[Found]:
    ids = list(data_ids)
    quick = _read_quickly(streams_dir, ids)
    for data_id in ids:
        try:
            yield quick.get(data_id) or _read_stream(streams_dir / data_id)
        except (AtomstreamError, OSError, msgspec.MsgspecError) as error:
            # One damaged folder must not keep the others out of the catalogue.
            log.warning("stream %s can't be read and is left out of the catalogue: %s", data_id, error)


def _read_stream(folder: Path) -> Found:
    archive = StreamArchive.open(folder)
    return read_about(archive.description), archive.n_frames()


def _read_quickly(streams_dir: Path, data_ids: Iterable[str]) -> dict[str, Found]:
    """Those of the streams that need not be opened: without any chunk, or ended with complete documents."""
    found: dict[str, Found] = {}
    for data_id in data_ids:
        folder = streams_dir / data_id
        with suppress(AtomstreamError, OSError, ValueError, LookupError, TypeError, msgspec.MsgspecError):
            about = read_about(read_about_file(folder))
            if not (folder / "frames.zarr" / FRAMES).exists():
                found[data_id] = (about, 0)
            elif about.status == "success":
                arrays = json.loads(read_plain(folder / "frames.zarr" / DOCUMENT))["consolidated_metadata"]
                found[data_id] = (about, int(arrays["metadata"][FRAMES]["shape"][0]))
    return found


async def _count(database: Database) -> ReindexReport:
    async with database.reading() as session:
        sizes = [
            await session.scalar(select(func.count()).select_from(kind)) or 0
            for kind in (Stream, Sample, Tag, Project)
        ]
    return ReindexReport(*sizes)
