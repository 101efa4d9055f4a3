"""The streams table of the catalogue, with many streams."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from sqlalchemy import insert

from atomstream.server.catalogue.database import Database, Stream, StreamTag, Tag, iso_now
from atomstream.server.catalogue.streams_table import TAGS_AT_ONCE, EntryFilter, StreamsTable


async def test_tags_of_more_streams_than_one_statement_reads(tmp_path: Path) -> None:
    """In a list of any length each stream has its tags, sorted by name."""
    database = await Database.open(tmp_path)
    try:
        data_ids = await _fill(database, 2 * TAGS_AT_ONCE + 1)
        found = (await StreamsTable(database).search(EntryFilter()))()
        assert {entry["data_id"] for entry in found} == set(data_ids)
        assert {tuple(tag["name"] for tag in entry["tags"]) for entry in found} == {("GaN", "night")}
        (one,) = (await StreamsTable(database).search(EntryFilter(keywords=("no. 7.",))))()
        assert [tag["name"] for tag in one["tags"]] == ["GaN", "night"]
    finally:
        await database.close()


async def _fill(database: Database, count: int) -> list[str]:
    data_ids = [str(uuid4()) for _ in range(count)]
    tags = [
        {"id": str(uuid4()), "name": name, "name_key": name.lower(), "made": iso_now()}
        for name in ("night", "GaN")
    ]
    about = {"status": "success", "fps": 120.0, "rpm": 0.0, "made": iso_now(), "last_updated": iso_now()}
    async with database.writing() as session:
        await session.execute(insert(Tag), tags)
        await session.execute(
            insert(Stream),
            [
                {**about, "data_id": data_id, "name": f"No. {k}.", "name_key": f"no. {k}."}
                for k, data_id in enumerate(data_ids)
            ],
        )
        await session.execute(
            insert(StreamTag), [{"data_id": d, "tag_id": tag["id"]} for d in data_ids for tag in tags]
        )
    return data_ids
