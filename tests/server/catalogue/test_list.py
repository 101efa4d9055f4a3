"""The list of streams: pages, bounded searches, and a list while the catalogue can't be written."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.parts import READ_AT_START
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames


async def test_pages(serve: Serve) -> None:
    """With ``limit`` the list comes in pages, each with the address of the next one; together they are all."""
    async with WireClient(await serve()) as client:
        for k in range(7):
            await client.create(f"Growth {k}")
        _, whole = await client.ask("GET", "/data_entries/?keywords=growth")
        found: list[Any] = []
        path = "/data_entries/?keywords=growth&limit=3"
        while path:
            async with client.session.get(client.server.url + path) as reply:
                page = await reply.json()
                link = re.fullmatch(r'<(.+)>; rel="next"', reply.headers.get("Link", ""))
            assert len(page) <= 3
            found += page
            path = link[1] if link else ""
        assert found == whole
        assert len(found) == 7


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=5001", "&".join(f"keywords=w{k}" for k in range(33))]
)
async def test_impossible_lists_are_refused(serve: Serve, query: str) -> None:
    """A page of no or too many streams, and a search for many words, are answered with 400."""
    async with WireClient(await serve()) as client:
        assert (await client.ask("GET", f"/data_entries/?{query}"))[0] == 400
        assert (await client.ask("GET", "/data_entries/?" + "&".join(["keywords=s"] * 700)))[0] == 200


async def test_the_list_works_on_a_full_disk(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If lengths can't be written, the list shows them all the same."""

    async def full(_table: StreamsTable) -> None:
        raise OperationalError("UPDATE", {}, Exception("database or disk is full"))

    async with WireClient(await serve()) as client:
        data_id = await client.create()
        monkeypatch.setattr("atomstream.server.catalogue.streams_table.GROWN_PERIOD_S", 1e9)
        await client.send(data_id, 0, make_frames(4))
        await client.send(data_id, 1, make_frames(4, seed=1))
        monkeypatch.setattr(StreamsTable, "_write_grown", full)
        assert (await client.entry(data_id))["file_metadata"]["n_frames"] == 8
        monkeypatch.undo()


async def test_a_start_reads_few_streams_before_it_listens(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams beyond the first ones are read after the start; then the list is complete."""
    monkeypatch.setattr("atomstream.server.parts.READ_AT_START", 1)
    server: LiveServer = await serve()
    async with WireClient(server) as client:
        created = {await client.create(f"Growth {k}") for k in range(4)}
        await server.stop()
        (server.data_dir / "catalogue.sqlite").unlink()
        await server.start()
        while {entry["data_id"] for entry in (await client.ask("GET", "/data_entries/"))[1]} != created:
            pass
    assert READ_AT_START >= 32
