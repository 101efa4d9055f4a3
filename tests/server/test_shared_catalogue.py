"""Two servers on one catalogue, on a real PostgreSQL: names, keys and sessions of one are those of the other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from atomstream.cluster.engines import PostgreSQL
from tests.databases import make_database
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames


@dataclass(frozen=True)
class Pair:
    """Two servers that share a catalogue, each with its own data folder."""

    first: LiveServer
    second: LiveServer


@pytest.fixture
async def pair(serve: Serve, postgres_server: PostgreSQL) -> Pair:
    address = await asyncio.to_thread(make_database, postgres_server)
    first = await serve(catalogue=address)
    second = await serve(catalogue=address)
    assert second.running is not None
    assert second.running.api_key is None  # the first start has made the key of both
    second.api_key = first.api_key
    return Pair(first, second)


async def test_one_sample_of_two_servers(pair: Pair) -> None:
    """Two servers that create the same sample at the same time make one; all answer with its id."""
    async with WireClient(pair.first) as here, WireClient(pair.second) as there:
        for k in range(3):
            asked = [
                client.ask("POST", "/physical_samples/", {"name": f"Wafer {k}"})
                for client in (here, there) * 2
            ]
            replies = await asyncio.gather(*asked)
            ids = {
                reply["id"] if status == 200 else reply["detail"]["physical_sample_id"]
                for status, reply in replies
            }
            assert len(ids) == 1
            assert sorted(status for status, _ in replies) == [200, 409, 409, 409]
        assert len((await there.ask("GET", "/physical_samples/"))[1]) == 3


async def test_streams_of_one_are_listed_by_the_other(pair: Pair) -> None:
    """The other server lists a stream with its length, and its end; a restart removes no rows of other servers."""
    async with WireClient(pair.first) as here:
        data_id = await here.create()
        assert (await here.send(data_id, 0, make_frames(4)))[0] == 200
        await here.end(data_id)
        await here.ask("GET", "/data_entries/")  # writes what is behind
        await pair.second.stop()
        await pair.second.start()
        async with WireClient(pair.second) as there_again:
            (entry,) = (await there_again.ask("GET", "/data_entries/"))[1]
        assert (entry["data_id"], entry["pipeline_status"]) == (data_id, "success")
        assert entry["file_metadata"]["n_frames"] == 4


async def test_keys_of_one_are_those_of_the_other(pair: Pair) -> None:
    """A new key is valid at once on both; a revoked one is refused by the other one after its next look."""
    async with WireClient(pair.first) as here, WireClient(pair.second) as there:
        _, made = await here.ask("POST", "/people/keys", {"scope": "read", "instrument": "camera"})
        headers = {"X-API-KEY": made["key"]}
        assert (await there.ask("GET", "/tags/", headers=headers))[0] == 200
        await here.ask("DELETE", f"/people/keys/{made['id']}")
        assert (await here.ask("GET", "/tags/", headers=headers))[0] == 401
        while (reply := await there.ask("GET", "/tags/", headers=headers))[0] == 200:
            pass  # until its next look, within a second
        status, reply = reply
        assert status == 401
        assert "revoked" in reply["detail"]


async def test_an_upload_url_of_one_is_valid_at_the_other(pair: Pair) -> None:
    """Both sign with one secret."""
    assert pair.first.context.signer.mark("x", "y") == pair.second.context.signer.mark("x", "y")
