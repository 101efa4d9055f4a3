"""The contract of the catalogue, over SQLite in a folder and over a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec
import pytest

from atomstream.cluster.engines import PostgreSQL
from atomstream.server.archive.metadata import NamedId, StreamMetadata
from atomstream.server.catalogue.catalogue import NameTakenError, TooManyNamesError
from atomstream.server.catalogue.database import Project, Sample, Tag, iso_now
from atomstream.server.catalogue.opening import OpenCatalogue, open_catalogue
from atomstream.server.catalogue.streams_table import EntryFilter, put_streams
from atomstream.server.catalogue_errors import CatalogueBusyError
from atomstream.server.postgres.postgres import opened
from atomstream.server.settings import ServerSettings
from tests.databases import make_database

Open: TypeAlias = Callable[[], Any]
LONG_AGO = "2026-01-01T00:00:00.000000+00:00"


@pytest.fixture(params=["sqlite", "postgresql"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """A factory of catalogues on the same database; the second one is that of another server, or after a restart."""
    settings = ServerSettings(data_dir=tmp_path)
    address = None
    if request.param == "postgresql":
        address = await asyncio.to_thread(make_database, request.getfixturevalue("postgres_server"))

    @asynccontextmanager
    async def make() -> AsyncIterator[OpenCatalogue]:
        async with AsyncExitStack() as stack:
            postgres = None if address is None else await stack.enter_async_context(opened(address))
            yield await stack.enter_async_context(open_catalogue(settings, postgres))

    return make


def described(name: str = "x", **fields: Any) -> StreamMetadata:
    """A description of a new stream."""
    return StreamMetadata(str(uuid4()), name, 10.0, 0.0, iso_now(), iso_now(), **fields)


async def test_names_are_unique_and_kept(connect: Open) -> None:
    """Case and blanks make no difference; what is taken is named by its id; all is there after a restart."""
    async with connect() as first:
        sample = await first.names.add_sample("GaN 12")
        for taken in ("GaN 12", "  gan 12 ", "GAN 12"):
            with pytest.raises(NameTakenError) as refused:
                await first.names.add_sample(taken)
            assert refused.value.existing_id == sample
        tag, project = await first.names.add_tag("night"), await first.names.add_project("P", str(uuid4()))
        with pytest.raises(NameTakenError) as refused:
            await first.names.add_project("Q", project)
        assert refused.value.existing_id == project
        odd = [
            await first.names.add_sample(name)
            for name in ("null\0byte", "%_\\", "'; DROP TABLE samples; --", "Ж😀")
        ]
    async with connect() as again:
        assert set(await again.names.find(Sample, [sample, *odd])) == {sample, *odd}
        assert set(await again.names.find(Tag, [tag, sample])) == {tag}
        assert [one["id"] for one in await again.names.tags()] == [tag]
        assert [one["name"] for one in await again.names.projects()] == ["P"]
        with pytest.raises(NameTakenError):
            await again.names.add_sample("null\0byte")


async def test_names_are_bounded(connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit a new name is refused, and a known one is found. A long list has all names, in order."""
    monkeypatch.setattr("atomstream.server.catalogue.catalogue.MOST_NAMES", {Sample: 3, Tag: 3, Project: 1})
    monkeypatch.setattr("atomstream.server.catalogue.catalogue.ROWS", 2)
    async with connect() as first:
        for add in (first.names.add_sample, first.names.add_tag):
            known = [await add(f"n{number}") for number in range(3)]
            with pytest.raises(TooManyNamesError, match=r"There are 3 \w+ already"):
                await add("one more")
            with pytest.raises(NameTakenError) as refused:
                await add("N1")
            assert refused.value.existing_id == known[1]
        project = await first.names.add_project("P")
        with pytest.raises(TooManyNamesError):
            await first.names.add_project("Q")
        (sample, *_) = [one["id"] for one in await first.names.samples()]
        await first.names.track(project, sample, active=True)
    async with connect() as again:
        assert [one["name"] for one in await again.names.samples()] == ["n0", "n1", "n2"]
        assert [one["name"] for one in await again.names.tags()] == ["n0", "n1", "n2"]
        assert [len(one["projects"]) for one in await again.names.samples()] == [1, 0, 0]


async def test_one_sample_of_a_project_is_active(connect: Open) -> None:
    """An active sample replaces the one before, also if many are made active at the same time."""
    async with connect() as catalogue:
        project = await catalogue.names.add_project("P")
        samples = [await catalogue.names.add_sample(f"s{k}") for k in range(5)]
        await asyncio.gather(*(catalogue.names.track(project, one, active=True) for one in samples))
        (entry,) = await catalogue.names.projects()
        assert entry["physical_sample_count"] == 5
        assert entry["tracking_physical_sample_id"] in samples
        await catalogue.names.track(project, samples[0], active=True)
        await catalogue.names.track(project, samples[1], active=False)
        (entry,) = await catalogue.names.projects()
        assert entry["tracking_physical_sample_id"] == samples[0]
        visible = frozenset({project})
        assert {one["id"] for one in await catalogue.names.samples(visible)} == set(samples)
        assert not await catalogue.names.samples(frozenset({str(uuid4())}))
        assert await catalogue.names.sees_sample(samples[3], visible)


async def test_streams_are_listed_and_found(connect: Open) -> None:
    """Rows have sample, project, tags and length; each filter of the protocol selects the same streams."""
    async with connect() as catalogue:
        sample = NamedId(await catalogue.names.add_sample("Wafer Ä"), "Wafer Ä")
        project = NamedId(await catalogue.names.add_project("P"), "P")
        tags = (
            NamedId(await catalogue.names.add_tag("b"), "b"),
            NamedId(await catalogue.names.add_tag("a"), "a"),
        )
        first = described("GaN on Si", sample=sample, project=project, tags=tags)
        second = described("InAs 100%", status="success")
        for about in (first, second):
            await catalogue.streams.add(about)
        await catalogue.streams.note_chunk(first.data_id, 40)
        await catalogue.streams.note_chunk(first.data_id, 20)

        async def found(**wanted: Any) -> list[str]:
            search = await catalogue.streams.search(EntryFilter(**wanted))
            return [entry["data_id"] for entry in await asyncio.to_thread(search)]

        assert await found() == [second.data_id, first.data_id]
        (entry,) = (await catalogue.streams.search(EntryFilter(data_ids=(first.data_id,))))()
        assert entry["growth_length"] == 4.0
        assert [tag["name"] for tag in entry["tags"]] == ["a", "b"]
        assert (entry["physical_sample_name"], entry["projects"][0]["name"]) == ("Wafer Ä", "P")
        for word in ("gan ON", "WAFER ä", "b"):
            assert first.data_id in await found(keywords=(word,))
        assert await found(keywords=("100%",)) == [second.data_id]
        for none in ("_", "nul\0l", "'"):
            assert await found(keywords=(none,)) == []
        assert await found(statuses=("success",)) == [second.data_id]
        assert (
            await found(sample_ids=(sample.id,)) == await found(project_ids=(project.id,)) == [first.data_id]
        )
        assert await found(growth_length=(3.0, float("inf"))) == [first.data_id]
        assert await found(visible=frozenset({project.id})) == [first.data_id]
        assert await found(limit=1) == [second.data_id]
        assert await found(after=second.data_id) == [first.data_id]
        assert await found(uploaded=(None, LONG_AGO)) == []
        assert await catalogue.streams.count_by_status() == {"stream_active": 1, "success": 1}
        assert await catalogue.streams.known([first.data_id, str(uuid4())]) == {first.data_id}
        assert await catalogue.streams.of_sample(sample.id) == [first.data_id]
        assert await catalogue.streams.project_of(first.data_id) == project.id


async def test_changes_of_a_stream_are_kept(connect: Open) -> None:
    """Name, status and tags are those of the last description, the length stays; a removed stream has no row."""
    async with connect() as catalogue:
        tag = NamedId(await catalogue.names.add_tag("t"), "t")
        about = described("old", tags=(tag,))
        await catalogue.streams.add(about)
        await catalogue.streams.note_chunk(about.data_id, 30)
        changed = msgspec.structs.replace(
            about, name="new", status="success", tags=(), last_updated=iso_now()
        )
        await catalogue.streams.put(changed)
        gone = described()
        await catalogue.streams.add(gone)
        await catalogue.streams.remove([gone.data_id])
    async with connect() as again:
        (entry,) = (await again.streams.search(EntryFilter()))()
        assert (entry["raw_name"], entry["pipeline_status"], entry["tags"]) == ("new", "success", [])
        assert entry["file_metadata"]["n_frames"] == 30
        assert await again.streams.with_status("success") == [about.data_id]


async def test_a_late_reader_replaces_no_newer_row(connect: Open) -> None:
    """A description that was read before a row changed does not replace the row's status, nor a larger length."""
    async with connect() as catalogue:
        old = described(status="stream_active")
        old = msgspec.structs.replace(old, last_updated=LONG_AGO)
        new = msgspec.structs.replace(old, status="success", last_updated=iso_now())
        for about, n_frames in ((new, 5), (old, 9)):
            async with catalogue.database.writing() as session:
                await put_streams(session, [(about, n_frames)], newer=True)
        (entry,) = (await catalogue.streams.search(EntryFilter()))()
        assert (entry["pipeline_status"], entry["file_metadata"]["n_frames"]) == ("success", 9)


async def test_a_deletion_is_noted(connect: Open, tmp_path: Path) -> None:
    """Deleted streams are known after a restart, each with its project."""
    data_id, project = str(uuid4()), str(uuid4())
    async with connect() as catalogue:
        await catalogue.names.note_deleted(data_id, "x", project)
    async with connect() as again:
        assert await again.names.deleted_streams(tmp_path / "streams") == {data_id: project}
        assert await again.names.find(Project, [project]) == {}


async def test_names_that_another_server_holds(
    postgres_server: PostgreSQL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that waits too long for the lock of another one raises an error that is worth a retry, and changes
    nothing."""
    monkeypatch.setattr("atomstream.server.catalogue.shared_database.LOCK_S", 0.1)
    address = await asyncio.to_thread(make_database, postgres_server)
    settings = ServerSettings(data_dir=tmp_path)
    async with (
        opened(address) as here,
        opened(address) as there,
        open_catalogue(settings, here) as first,
        open_catalogue(settings, there) as second,
    ):
        async with first.database.naming():
            with pytest.raises(CatalogueBusyError, match="Another server"):
                await second.names.add_sample("Wafer")
        assert second.database.problem == ""
        assert await second.names.add_sample("Wafer")
