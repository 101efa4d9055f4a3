"""The table of streams on PostgreSQL: rows of streams that run are written behind, so that no chunk waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.catalogue.database import Database, Stream, StreamTag, iso_now
from atomstream.server.catalogue.reindex import NameIndex
from atomstream.server.catalogue.shared_rows import remove_rows_of_deleted
from atomstream.server.catalogue.streams_table import GROWN_PERIOD_S, StreamsTable, put_streams
from atomstream.server.catalogue_errors import CatalogueUnavailableError
from atomstream.server.disk_errors import log_failure
from atomstream.server.postgres.schema import DELETED_STREAMS
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.server")

LAST_WRITE_S: Final = 3.0
"""Longest time for the last rows when a server stops, in s."""


class SharedStreams(StreamsTable):
    """Rows of streams for a server that shares its catalogue.

    A new stream waits for its row (:meth:`add`). Changes and lengths of a stream are collected, and written at most
    :data:`GROWN_PERIOD_S` later by a separate task. While the database is unreachable they are kept: the newest of each
    stream, which is little memory however long that lasts.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._changed: dict[str, StreamMetadata] = {}
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write rows behind."""
        self._task = asyncio.create_task(self._write_behind(), name="atomstream rows of streams")

    async def close(self) -> None:
        """End the task, and write what is left, if the database answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self._write_grown()
        except (CatalogueUnavailableError, TimeoutError):
            if left := self._changed.keys() | self._grown.keys():
                log.warning(
                    "the catalogue is unreachable: the rows of %d streams are older than their frames",
                    len(left),
                )

    @property
    def pending(self) -> int:
        """Streams whose row is older than their files."""
        return len(self._changed.keys() | self._grown.keys())

    async def add(self, about: StreamMetadata) -> None:
        """Write the row of a new stream. If the database can't be reached, it is written later."""
        self._changed[about.data_id] = about
        try:
            await self._write_grown()
        except CatalogueUnavailableError:
            log.warning(
                "the row of the new stream %s is written when the catalogue can be reached again",
                about.data_id,
            )

    async def put(self, about: StreamMetadata) -> None:
        """Note the row of a changed stream; it is written a moment later."""
        self._changed[about.data_id] = about

    async def note_chunk(self, data_id: str, n_frames: int) -> None:
        """A chunk was stored, and the archive now has at least ``n_frames`` frames. Waits for nothing."""
        before, _ = self._grown.get(data_id, (0, ""))
        self._grown[data_id] = (max(before, n_frames), iso_now())

    async def note_length(self, data_id: str, n_frames: int) -> None:
        """Note the length of an archive that was opened. Its time of change stays, because no data came from the
        client.
        """
        before, at = self._grown.get(data_id, (0, ""))
        self._grown[data_id] = (max(before, n_frames), at)

    async def _write_behind(self) -> None:
        while True:
            await asyncio.sleep(GROWN_PERIOD_S)
            try:
                await self._write_grown()
            except CatalogueUnavailableError:
                continue  # logged once, by the database
            except Exception as error:
                log_failure(log, error, "rows of streams can't be written to the catalogue")

    async def _write_grown(self) -> None:
        async with self._writing:
            changed, self._changed = self._changed, {}
            grown, self._grown = self._grown, {}
            if not changed and not grown:
                return
            try:
                try:
                    async with self._db.writing() as session:
                        await put_streams(session, [(about, 0) for about in changed.values()])
                        await _grow(session, grown)
                except DBAPIError:  # one of the rows can't be stored as it is; the others can
                    await self._write_singly(changed, grown)
            except BaseException:
                self._changed = {**changed, **self._changed}
                self._grown = {**grown, **self._grown}
                raise

    async def _write_singly(
        self, changed: dict[str, StreamMetadata], grown: dict[str, tuple[int, str]]
    ) -> None:
        """Write each row by itself, with names that it needs: a new catalogue may not have them."""
        for data_id, about in changed.items():
            names = NameIndex()
            names.add_stream(about)
            try:
                async with self._db.naming() as session:
                    await names.put(session)
                    await put_streams(session, [(about, 0)])
            except DBAPIError as error:
                log_failure(log, error, "stream %s can't be written to the list of streams", data_id)
        async with self._db.writing() as session:
            await _grow(session, grown)

    async def remove(self, data_ids: Sequence[str]) -> None:
        """Delete the rows of streams, and note that they were deleted, for the other servers."""
        for data_id in data_ids:
            self._changed.pop(data_id, None)
            self._grown.pop(data_id, None)
        async with self._db.writing() as session:
            await session.execute(delete(StreamTag).where(StreamTag.data_id.in_(data_ids)))
            columns = (Stream.data_id, Stream.name, Stream.project_id)
            removed = await session.execute(
                delete(Stream).where(Stream.data_id.in_(data_ids)).returning(*columns)
            )
            rows = [{**row._asdict(), "made": iso_now()} for row in removed]
            if rows:
                await session.execute(insert(DELETED_STREAMS).on_conflict_do_nothing(), rows)

    async def drop_rows(self, data_ids: Sequence[str]) -> None:
        """Remove the rows of streams that other servers have deleted."""
        for data_id in data_ids:
            self._changed.pop(data_id, None)
            self._grown.pop(data_id, None)
        async with self._db.writing() as session:
            await remove_rows_of_deleted(session)

    async def silent_s(self, data_id: str) -> float | None:
        """Time in s since any server has stored a chunk of a stream or changed it; None if there is no row."""
        age = text("extract(epoch FROM now() - CAST(streams.last_updated AS timestamptz))")
        async with self._db.reading() as session:
            found = await session.scalar(select(age).select_from(Stream).where(Stream.data_id == data_id))
            return None if found is None else float(found)

    async def silent_for(self, least_s: float, statuses: Sequence[str]) -> list[str]:
        """The ids of streams with one of these statuses that no server has changed for ``least_s``."""
        limit = text("CAST(streams.last_updated AS timestamptz) < now() - make_interval(secs => :least)")
        query = select(Stream.data_id).where(
            Stream.status.in_(statuses), limit.bindparams(bindparam("least", least_s))
        )
        async with self._db.reading() as session:
            return list(await session.scalars(query))


async def _grow(session: AsyncSession, grown: dict[str, tuple[int, str]]) -> None:
    if not grown:
        return
    table = Stream.__table__
    longer = (
        update(Stream)
        .where(table.c.data_id == bindparam("b_id"))
        .values(
            n_frames=func.greatest(table.c.n_frames, bindparam("b_frames")),
            last_updated=func.greatest(table.c.last_updated, bindparam("b_at")),
        )
    )
    rows = [
        {"b_id": data_id, "b_frames": n_frames, "b_at": at}
        for data_id, (n_frames, at) in sorted(grown.items())
    ]
    connection = await session.connection()
    await connection.execute(longer, rows)
