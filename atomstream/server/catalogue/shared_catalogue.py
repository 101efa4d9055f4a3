"""Samples, tags and projects on PostgreSQL: its tables are the only place where they are stored."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.server.catalogue.catalogue import Catalogue
from atomstream.server.catalogue.names_log import NameRecord, StreamDeleted
from atomstream.server.catalogue.shared_database import SharedDatabase
from atomstream.server.postgres.schema import DELETED_STREAMS


class SharedCatalogue(Catalogue):
    """Names for servers that share them. There is no names log: PostgreSQL's own log is as durable."""

    def __init__(self, database: SharedDatabase) -> None:
        self._db = database

    async def _note(self, session: AsyncSession, record: NameRecord) -> None:
        if isinstance(record, StreamDeleted):
            values = {"name": record.name, "made": record.made, "project_id": record.project_id}
            new = insert(DELETED_STREAMS).values(data_id=record.id, **values)
            await session.execute(new.on_conflict_do_update(index_elements=["data_id"], set_=values))

    async def count_deleted(self) -> int:
        """The number of streams that any server has deleted: another one means that there are new ones."""
        async with self._db.reading() as session:
            return await session.scalar(select(func.count()).select_from(DELETED_STREAMS)) or 0

    async def deleted_streams(self, streams_dir: Path) -> dict[str, str | None]:
        """The ids of all streams that any server has deleted, each with the id of its project."""
        async with self._db.reading() as session:
            rows = await session.execute(select(DELETED_STREAMS.c.data_id, DELETED_STREAMS.c.project_id))
            return {row.data_id: row.project_id for row in rows}
