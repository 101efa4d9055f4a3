"""Making the catalogue from the files: all of it, or what a crash left different between the two."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import msgspec
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.errors import AtomstreamError
from atomstream.server.about import StreamAbout, read_about
from atomstream.server.archive import StreamArchive
from atomstream.server.data_dir import own_data_dir
from atomstream.server.database import Database
from atomstream.server.entries import Entries, put_stream
from atomstream.server.known_names import KnownNames
from atomstream.server.models import Project, Sample, Stream, Tag

log = logging.getLogger("atomstream.server")
UNSETTLED = ("stream_active", "stream_interrupted", "stream_finalizing")
Found: TypeAlias = tuple[StreamAbout, int]
"""A stream and its archive's length in frames."""


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """How much the catalogue holds after it was made from the files."""

    streams: int
    samples: int
    tags: int
    projects: int


async def reindex(data_dir: Path) -> ReindexReport:
    """Rebuild the catalogue of ``data_dir`` from its files; no server may run on it meanwhile.

    Raises:
        ConfigError: a server runs on it, or it is no data folder.
    """
    with own_data_dir(data_dir, must_exist=True):
        database = await Database.open(data_dir)
        try:
            await database.clear()
            await catch_up(database, data_dir)
            return await _count(database)
        finally:
            await database.close()


async def catch_up(database: Database, data_dir: Path) -> None:
    """Bring the tables to what the files say, looking only at streams that may differ.

    Those are the ones not in the tables, and the ones that were not settled when the server stopped: only
    these can have changed after their last line was written.
    """
    entries, streams_dir = Entries(database), data_dir / "streams"
    on_disk = await asyncio.to_thread(_stream_ids, streams_dir)
    known = await entries.all_ids()
    changed = (on_disk - known) | (on_disk & set(await entries.with_status(*UNSETTLED)))
    found = await asyncio.to_thread(lambda: list(_read_streams(streams_dir, sorted(changed))))
    names = await asyncio.to_thread(KnownNames.read, data_dir)
    async with database.writing() as session:
        await _fill(session, names, found)
    await entries.remove(sorted(known - on_disk))


async def _fill(session: AsyncSession, names: KnownNames, found: Iterable[Found]) -> None:
    for about, _ in found:
        names.learn(about)
    await names.put(session)
    for about, n_frames in found:
        await put_stream(session, about, n_frames)


def _stream_ids(streams_dir: Path) -> set[str]:
    return {path.name for path in streams_dir.iterdir() if (path / "stream.json").exists()}


def _read_streams(streams_dir: Path, data_ids: Iterable[str]) -> Iterator[Found]:
    for data_id in data_ids:
        try:
            archive = StreamArchive.open(streams_dir / data_id)
            yield read_about(archive.about), archive.n_frames()
        except (AtomstreamError, OSError, msgspec.MsgspecError) as error:
            # One damaged folder must not take the others off the list.
            log.warning("stream %s can't be read and is left out of the catalogue: %s", data_id, error)


async def _count(database: Database) -> ReindexReport:
    async with database.reading() as session:
        sizes = [
            await session.scalar(select(func.count()).select_from(kind)) or 0
            for kind in (Stream, Sample, Tag, Project)
        ]
    return ReindexReport(*sizes)
