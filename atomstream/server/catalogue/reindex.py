"""Building the catalogue from the files: completely, or only what differs after a crash."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from sqlalchemy import func, select
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.errors import StreamError
from atomstream.protocol import MAX_CHUNK_INDEX, MAX_CHUNK_SIZE, normalized_name
from atomstream.server.archive.damage import DamageLog
from atomstream.server.archive.metadata import (
    ABOUT,
    StreamMetadata,
    checked_about,
    is_stream_id,
    read_about_file,
)
from atomstream.server.archive.opening import open_checked
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.zarr_group import DOCUMENT, FRAMES
from atomstream.server.catalogue.catalogue import project_row, put_tracking, sample_row, tag_row
from atomstream.server.catalogue.database import Database, Project, Sample, Stream, Tag
from atomstream.server.catalogue.names_log import (
    JOURNAL_FILE,
    NameRecord,
    NamesLog,
    ProjectCreated,
    SampleCreated,
    SampleTracked,
    StreamDeleted,
    TagCreated,
)
from atomstream.server.catalogue.streams_table import StreamsTable, put_streams
from atomstream.server.data_dir import own_data_dir
from atomstream.server.disk_errors import describe, is_disk_full, log_failure
from atomstream.system.log_privacy import get_logger
from atomstream.system.own_files import DOCUMENT_BYTES, read_plain

log = get_logger("atomstream.server")

AT_ONCE = 500
"""Streams that are written to the catalogue in one transaction after the start."""
UNFINISHED = ("stream_active", "stream_interrupted", "stream_finalizing")

MAX_FRAMES: Final = MAX_CHUNK_INDEX * MAX_CHUNK_SIZE

_BAD_VALUES: Final = (
    IntegrityError,
    DataError,
    InterfaceError,
    ProgrammingError,
    OverflowError,
    UnicodeError,
)
"""Errors of values that the tables can't hold, as opposed to those of the disk."""

Found: TypeAlias = tuple[StreamMetadata, int]
"""A stream and its archive's length in frames."""

# Samples, tags and projects: first from the names log, then from the streams' descriptions.

Made: TypeAlias = SampleCreated | TagCreated | ProjectCreated


_TABLES: Final[dict[type[Made], type[Sample] | type[Tag] | type[Project]]] = {
    SampleCreated: Sample,
    TagCreated: Tag,
    ProjectCreated: Project,
}


def _row(record: Made) -> Sample | Tag | Project:
    if isinstance(record, SampleCreated):
        return sample_row(record)
    return tag_row(record) if isinstance(record, TagCreated) else project_row(record)


def _renamed(record: Made, keys: set[str]) -> Made:
    """``record`` with a name that is not in ``keys``, and is then.

    Names are unique in the tables. Two ids have equal names where folders of another server were copied here, or where
    an earlier version compared names differently: the later one is listed with a part of its id, or all of it.
    """
    names = (record.name, f"{record.name} ({record.id[:8]})", f"{record.name} ({record.id})")
    name = next((name for name in names if normalized_name(name) not in keys), names[-1])
    keys.add(normalized_name(name))
    return msgspec.structs.replace(record, name=name)


class NameIndex:
    """Collects names by id, and adds the missing ones to the tables."""

    def __init__(self) -> None:
        self._made: dict[type[Made], dict[str, Made]] = {
            SampleCreated: {},
            TagCreated: {},
            ProjectCreated: {},
        }
        self._tracked: dict[tuple[str, str], SampleTracked] = {}

    @classmethod
    def read(cls, data_dir: Path) -> NameIndex:
        """The names in the names log of ``data_dir``. Blocks."""
        names = cls()
        for line in NamesLog(data_dir).lines():
            names._add(line)
        return names

    def _add(self, line: NameRecord) -> None:
        if isinstance(line, StreamDeleted):
            return  # read by the registry of streams
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
        records[record.id] = record

    def split(self) -> Iterator[NameIndex]:
        """Each name alone, then each sample in a project alone."""
        for kind, records in self._made.items():
            for record in records.values():
                single = NameIndex()
                single._made[kind] = {record.id: record}
                yield single
        for place, tracking in self._tracked.items():
            single = NameIndex()
            single._tracked[place] = tracking
            yield single

    async def put(self, session: AsyncSession) -> None:
        """Add the names that are missing in the tables."""
        ids: dict[type[Made], set[str]] = {}
        for kind, table in _TABLES.items():
            rows = (await session.execute(select(table.id, table.name_key))).all()
            ids[kind], keys = {row.id for row in rows}, {row.name_key for row in rows}
            for record in self._made[kind].values():
                if record.id not in ids[kind]:
                    record = _renamed(record, keys)
                    ids[kind].add(record.id)
                    session.add(_row(record))
        await session.flush()
        for tracking in self._tracked.values():
            # The line that created one of them may be damaged.
            if tracking.project_id in ids[ProjectCreated] and tracking.sample_id in ids[SampleCreated]:
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
    """Streams that a start has not read yet, and the names that it has read."""

    data_ids: list[str]
    names: NameIndex


async def catch_up(
    database: Database, data_dir: Path, most: int | None = None, damage: DamageLog | None = None
) -> Unread:
    """Update the tables from the files, reading only streams that may differ.

    These are the streams that are not in the tables, and those that were not finished when the server stopped: only
    they can have changed after their row was written. At most ``most`` of them are read, the last changed first. The
    others are returned, for :func:`catch_up_later`. What can't be read is left out and noted in ``damage``.
    """
    damage = damage or DamageLog()
    entries, streams_dir = StreamsTable(database), data_dir / "streams"
    on_disk = await asyncio.to_thread(_stream_ids, streams_dir, damage)
    for data_id in await database.gone():
        on_disk.pop(data_id, None)
    listed = await entries.all_ids()
    changed = (on_disk.keys() - listed) | (on_disk.keys() & set(await entries.with_status(*UNFINISHED)))
    if (since := database.changed_since) is not None:  # a kill may have come between a file and its row
        changed |= {data_id for data_id, at in on_disk.items() if at >= since}
    ordered = sorted(changed, key=lambda data_id: (-on_disk[data_id], data_id))
    found = await asyncio.to_thread(lambda: list(_read_streams(streams_dir, ordered[:most], damage)))
    names = await asyncio.to_thread(NameIndex.read, data_dir)
    try:
        await _store(database, names, found, damage)
        if not database.is_shared:  # otherwise they are streams of other servers
            await entries.remove(sorted(listed - on_disk.keys()))
    except SQLAlchemyError as error:
        if not is_disk_full(error):
            raise
        # What is stored can still be read. The next start brings the catalogue up to date.
        log_failure(log, error, "the catalogue could not be brought up to date")
    unread = [] if most is None else ordered[most:]
    database.complete = not unread
    return Unread(unread, names)


async def catch_up_later(
    database: Database,
    streams_dir: Path,
    unread: Unread,
    open_archive: Callable[[str], Awaitable[StreamArchive]],
    damage: DamageLog,
) -> None:
    """Update the rows of these streams, while the server runs.

    ``open_archive`` returns the archive of a stream, the only one in this process.
    """
    complete = True
    for first in range(0, len(unread.data_ids), AT_ONCE):
        some = unread.data_ids[first : first + AT_ONCE]
        found = await asyncio.to_thread(_read_quickly, streams_dir, some)
        for data_id in some:
            if data_id not in found and (read := await _read_by(open_archive, data_id)) is not None:
                found[data_id] = read
        try:
            await _store(database, unread.names, list(found.values()), damage, newer=True)
            if gone := database.deleted & set(some):  # deleted while they were read
                await StreamsTable(database).remove(sorted(gone))
        except SQLAlchemyError as error:  # the disk is full: the next start repeats it
            log.warning("%d streams could not be written to the catalogue: %s", len(found), describe(error))
            complete = False
    if unread.data_ids:
        database.complete = complete


async def _read_by(open_archive: Callable[[str], Awaitable[StreamArchive]], data_id: str) -> Found | None:
    try:
        archive = await open_archive(data_id)
        return checked_about(archive.description, data_id), archive.n_frames()
    except Exception as error:
        # One damaged folder must not keep the others out of the catalogue.
        log.warning("stream %s can't be read and is left out of the catalogue: %s", data_id, error)
        return None


async def _store(
    database: Database, names: NameIndex, found: list[Found], damage: DamageLog, *, newer: bool = False
) -> None:
    try:
        async with database.writing() as session:
            await _fill(session, names, found, newer=newer)
    except _BAD_VALUES:  # of one stream or name: the others are stored one by one
        await _fill_singly(database, names, found, damage, newer=newer)


async def _fill_singly(
    database: Database, names: NameIndex, found: Iterable[Found], damage: DamageLog, *, newer: bool
) -> None:
    for single in names.split():
        try:
            async with database.writing() as session:
                await single.put(session)
        except _BAD_VALUES as error:
            damage.of("").add(JOURNAL_FILE, f"a name in it can't be stored: {type(error).__name__}")
    for stream in found:
        try:
            async with database.writing() as session:
                await _fill(session, NameIndex(), [stream], newer=newer)
        except _BAD_VALUES as error:
            damage.of(stream[0].data_id).add(
                ABOUT, f"the stream is left out of the list: a value can't be stored ({type(error).__name__})"
            )


async def _fill(
    session: AsyncSession, names: NameIndex, found: Iterable[Found], *, newer: bool = False
) -> None:
    for about, _ in found:
        names.add_stream(about)
    await names.put(session)
    await put_streams(
        session, list({about.data_id: (about, n_frames) for about, n_frames in found}.values()), newer=newer
    )


def _stream_ids(streams_dir: Path, damage: DamageLog) -> dict[str, float]:
    """The streams in the folder, each with the time of the last change of its description."""
    found: dict[str, float] = {}
    for path in streams_dir.iterdir():
        try:
            changed = (path / ABOUT).stat().st_mtime
        except OSError:  # no stream, or a link that leads nowhere
            if not (path / "frames.zarr" / "frames").is_dir():
                continue
            changed = 0.0  # the description is lost, which is noted when the stream is opened
        if is_stream_id(path.name):
            found[path.name] = changed
        else:
            name = path.name[:64].encode("utf-8", "backslashreplace").decode()
            damage.of("").add(
                f"streams/{name}", "the name of this folder is not an id of a stream; it is left out"
            )
    return found


def _read_streams(streams_dir: Path, data_ids: Iterable[str], damage: DamageLog) -> Iterator[Found]:
    ids = list(data_ids)
    quick = _read_quickly(streams_dir, ids)
    for data_id in ids:
        with suppress(StreamError, OSError):  # one damaged folder must not keep the others out; it is noted
            yield quick.get(data_id) or _read_stream(streams_dir / data_id, damage)


def _read_stream(folder: Path, damage: DamageLog) -> Found:
    archive = open_checked(folder, damage.of(folder.name))
    return checked_about(archive.description, folder.name), archive.n_frames()


def _read_quickly(streams_dir: Path, data_ids: Iterable[str]) -> dict[str, Found]:
    """Those of the streams that need not be opened: without any chunk, or ended with complete documents."""
    found: dict[str, Found] = {}
    for data_id in data_ids:
        folder = streams_dir / data_id
        with suppress(Exception):  # whatever is wrong with it is found when it is opened
            about = checked_about(read_about_file(folder), data_id)
            if not (folder / "frames.zarr" / FRAMES).exists():
                found[data_id] = (about, 0)
            elif about.status == "success":
                arrays = json.loads(read_plain(folder / "frames.zarr" / DOCUMENT, DOCUMENT_BYTES))[
                    "consolidated_metadata"
                ]
                n_frames = int(arrays["metadata"][FRAMES]["shape"][0])
                if 0 <= n_frames <= MAX_FRAMES:
                    found[data_id] = (about, n_frames)
    return found


async def _count(database: Database) -> ReindexReport:
    async with database.reading() as session:
        sizes = [
            await session.scalar(select(func.count()).select_from(kind)) or 0
            for kind in (Stream, Sample, Tag, Project)
        ]
    return ReindexReport(*sizes)
