"""Rows of streams on PostgreSQL, where several servers write: an older description never replaces a newer one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import case, column, delete, func, select, table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from atomstream.server.catalogue.database import Stream, StreamTag
from atomstream.server.postgres.schema import DELETED_STREAMS

_DESCRIPTION: Final = (
    *("name", "name_key", "status", "fps", "rpm", "azimuth_label"),
    *("project_id", "sample_id", "made", "described"),
)
"""Columns that come from the stream's description; ``described`` is the time of its last change."""

_TYPES: Final = {one.name: one.type for one in Stream.__table__.columns}
_STREAMS: Final = table(
    "streams",
    *(
        column(name, _TYPES.get(name, _TYPES["made"]))
        for name in ("data_id", *_DESCRIPTION, "last_updated", "n_frames")
    ),
)


async def put_rows(session: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Write rows of streams; returns the ids of those whose description is in the table now.

    A row that was written from a newer description keeps it. ``n_frames`` and ``last_updated`` never become smaller.
    Streams that were deleted get no row.
    """
    ids = sorted({row["data_id"] for row in rows})
    gone = set(
        await session.scalars(select(DELETED_STREAMS.c.data_id).where(DELETED_STREAMS.c.data_id.in_(ids)))
    )
    values = sorted(
        ({**row, "described": row["last_updated"]} for row in rows if row["data_id"] not in gone),
        key=lambda row: row["data_id"],  # two servers lock rows in the same order
    )
    if not values:
        return set()
    new = insert(_STREAMS)
    is_newer = new.excluded.described >= _STREAMS.c.described
    changed: dict[str, Any] = {
        name: case((is_newer, new.excluded[name]), else_=_STREAMS.c[name]) for name in _DESCRIPTION
    }
    for name in ("last_updated", "n_frames"):
        changed[name] = func.greatest(new.excluded[name], _STREAMS.c[name])
    await session.execute(new.on_conflict_do_update(index_elements=["data_id"], set_=changed), values)
    stored = await session.execute(
        select(_STREAMS.c.data_id, _STREAMS.c.described).where(_STREAMS.c.data_id.in_(ids))
    )
    described = {(row.data_id, row.described) for row in stored}
    return {row["data_id"] for row in values if (row["data_id"], row["described"]) in described}


async def remove_rows_of_deleted(session: AsyncSession) -> None:
    """Delete rows of streams that were deleted: a server may have written one at the same time."""
    gone = select(DELETED_STREAMS.c.data_id)
    await session.execute(delete(StreamTag).where(StreamTag.data_id.in_(gone)))
    await session.execute(delete(Stream).where(Stream.data_id.in_(gone)))
