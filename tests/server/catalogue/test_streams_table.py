"""The streams table of the catalogue, with many streams."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import msgspec
from sqlalchemy import insert

from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.catalogue.database import Database, Stream, StreamTag, Tag, iso_now
from atomstream.server.catalogue.streams_table import TAGS_AT_ONCE, EntryFilter, StreamsTable, put_streams


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


async def test_a_damaged_frame_rate_costs_only_its_own_length(tmp_path: Path) -> None:
    """A stream whose description states 0 frames per second is listed, with length 0."""
    database = await Database.open(tmp_path)
    try:
        about = StreamMetadata(str(uuid4()), "x", 0.0, 0.0, iso_now(), iso_now())
        async with database.writing() as session:
            await put_streams(session, [(about, 7)])
        (entry,) = (await StreamsTable(database).search(EntryFilter()))()
        assert entry["growth_length"] == 0.0
        assert entry["file_metadata"]["n_frames"] == 7
    finally:
        await database.close()


async def test_a_late_start_replaces_no_newer_row(tmp_path: Path) -> None:
    """A row that changed after the description was read keeps its status, and the larger length."""
    database = await Database.open(tmp_path)
    try:
        old = StreamMetadata(str(uuid4()), "x", 10.0, 0.0, iso_now(), "2026-01-01T00:00:00.000000+00:00")
        new = msgspec.structs.replace(old, status="success", last_updated=iso_now())
        for about, n_frames in ((new, 5), (old, 9)):
            async with database.writing() as session:
                await put_streams(session, [(about, n_frames)], newer=True)
        (entry,) = (await StreamsTable(database).search(EntryFilter()))()
        assert (entry["pipeline_status"], entry["file_metadata"]["n_frames"]) == ("success", 9)
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
