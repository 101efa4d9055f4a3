"""Two servers on one catalogue, on a real PostgreSQL: names, keys and sessions of one are those of the other."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from atomstream.cluster.engines import PostgreSQL
from atomstream.errors import ConfigError
from atomstream.server.http.api_keys import KeyRing
from atomstream.server.http.gate import Gate
from atomstream.server.http.guessing import GuessLimiter
from atomstream.server.http.key_use import KeyUse
from atomstream.server.http.responses import HttpError
from atomstream.server.people.store import People
from atomstream.server.postgres.address import PostgresAddress
from tests.cli.commands import atomstream_here
from tests.databases import execute, make_database
from tests.engines import running
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
    """A new key is valid at once on both; a revoked one is refused by the other server after its next check."""
    async with WireClient(pair.first) as here, WireClient(pair.second) as there:
        _, made = await here.ask("POST", "/people/keys", {"scope": "read", "instrument": "camera"})
        headers = {"X-API-KEY": made["key"]}
        assert (await there.ask("GET", "/tags/", headers=headers))[0] == 200
        await here.ask("DELETE", f"/people/keys/{made['id']}")
        assert (await here.ask("GET", "/tags/", headers=headers))[0] == 401
        while (reply := await there.ask("GET", "/tags/", headers=headers))[0] == 200:
            pass  # until its next check, within a second
        status, reply = reply
        assert status == 401
        assert "revoked" in reply["detail"]


async def test_an_upload_url_of_one_is_valid_at_the_other(pair: Pair) -> None:
    """Both servers sign upload URLs with the same secret."""
    assert pair.first.context.signer.mark("x", "y") == pair.second.context.signer.mark("x", "y")


async def test_a_stream_that_one_deletes_is_gone_at_the_other(pair: Pair) -> None:
    """The other server answers 410 after its next check, and removes its own files of the stream."""
    async with WireClient(pair.first) as here, WireClient(pair.second) as there:
        data_id = await here.create()
        copy = pair.second.data_dir / "streams" / data_id
        shutil.copytree(pair.first.folder(data_id), copy)
        assert (await there.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0] == 200
        assert (await here.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
        while (status := (await there.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0]) == 200:
            pass  # until its next check, within a second
        assert status == 410
        while copy.exists():
            await there.ask("GET", "/health")  # the files are removed after that
        assert (await there.ask("GET", "/data_entries/"))[1] == []


@pytest.mark.slow
async def test_the_catalogue_is_unavailable(serve: Serve, tmp_path: Path) -> None:
    """Streams that run are stored and end; a new one is answered with 503; when it is back, the rows are right."""
    with running(PostgreSQL) as engine:
        server = await serve(catalogue=PostgresAddress.parse(engine.url, {}))
        async with WireClient(server) as client:
            running_on, ends = await client.create("first"), await client.create("second")
            assert (await client.send(ends, 0, make_frames(4)))[0] == 200
            await asyncio.to_thread(engine.kill)
            for index in range(3):
                assert (await client.send(running_on, index, make_frames(4, seed=index)))[0] == 200
            assert (await client.end(ends))[0] == 200
            status, reply = await client.ask("POST", "/physical_samples/", {"name": "Wafer"})
            assert status == 503
            assert "catalogue" in reply["detail"]
            assert (await client.ask("GET", "/tags/"))[0] == 503
            status, reply = await client.ask("GET", "/tags/", headers={"X-API-KEY": "unknown"})
            assert status == 503
            with pytest.raises(AssertionError):
                await client.create("third")
            status, reply = await client.ask("GET", "/healthz")
            assert (status, reply["ready"]) == (200, True)
            assert "can't be reached" in reply["without"][0]
            async with client.session.get(f"{server.url}/metrics") as metrics:
                text = await metrics.text()
            assert "atomstream_catalogue_away 1.0" in text
            assert "atomstream_rows_behind 2.0" in text
            assert len(list((server.data_dir / "streams").iterdir())) == 2
            await asyncio.to_thread(engine.start)
            while (found := await client.ask("GET", "/data_entries/"))[0] == 503:
                pass  # until the pause after the last failure is over
            rows = {
                entry["data_id"]: (entry["pipeline_status"], entry["file_metadata"]["n_frames"])
                for entry in found[1]
            }
            assert rows == {running_on: ("stream_active", 12), ends: ("success", 4)}
            assert "without" not in (await client.ask("GET", "/healthz"))[1]


def test_keys_are_accepted_for_a_time(tmp_path: Path) -> None:
    """What was read of people and keys counts for ``cache_s``; then requests are answered with 503."""
    now = [0.0]
    limiter = GuessLimiter()
    gate = Gate(KeyRing([]), People(tmp_path), limiter, KeyUse(tmp_path), cache_s=60.0, clock=lambda: now[0])
    now[0] = 60.0
    gate.require_confirmed()
    now[0] = 61.0
    with pytest.raises(HttpError, match="key_cache_s"):
        gate.require_confirmed()
    gate._refresh()
    gate.require_confirmed()


async def test_a_store_and_a_catalogue_of_two_servers(
    serve: Serve, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """A stream that was sent to either server is deleted on both. The store of another cluster is refused, and nothing
    is written there."""
    address, store = await asyncio.to_thread(make_database, postgres_server), str(tmp_path / "store")
    first = await serve(catalogue=address, store=store)
    second = await serve(catalogue=address, store=store)
    second.api_key = first.api_key
    async with WireClient(first) as here, WireClient(second) as there:
        data_id, kept = await here.create("first"), await there.create("second")
        assert (await here.send(data_id, 0, make_frames(4)))[0] == 200
        assert (await there.send(data_id, 1, make_frames(4, seed=1)))[0] == 200
        assert (await there.end(data_id))[0] == 200
        (entry,) = (await there.ask("GET", f"/data_entries/?data_ids={data_id}"))[1]
        assert (entry["pipeline_status"], entry["file_metadata"]["n_frames"]) == ("success", 8)
        assert {one["data_id"] for one in (await here.ask("GET", "/data_entries/"))[1]} == {data_id, kept}
        assert (await there.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
        while (status := (await here.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0]) == 200:
            pass
        assert status in (404, 410)
        assert [one["data_id"] for one in (await here.ask("GET", "/data_entries/"))[1]] == [kept]
    other = await asyncio.to_thread(make_database, postgres_server)
    with pytest.raises(ConfigError, match="belongs to the cluster"):
        await serve(catalogue=other, store=store)
    tables = "SELECT 1 FROM information_schema.tables WHERE table_schema = 'public'"
    assert await asyncio.to_thread(execute, other, tables) == []


async def test_streams_of_a_server_that_has_gone(
    serve: Serve, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """Another one notes that no data comes; a stream that any server receives is left alone."""
    address, store = await asyncio.to_thread(make_database, postgres_server), str(tmp_path / "store")
    first = await serve(catalogue=address, store=store, silence_s=0.2)
    second = await serve(catalogue=address, store=store, silence_s=0.2)
    async with WireClient(first) as here:
        data_id = await here.create()
        assert (await here.send(data_id, 0, make_frames(4)))[0] == 200
        await here.ask("GET", "/data_entries/")  # writes what is behind
    await first.stop()
    rows = second.context.streams_table
    while await rows.with_status("stream_active"):
        await second.context.lifecycle.take_over()
        await second.context.lifecycle.expire_idle()
    about = await second.context.streams.current(data_id)
    assert about.status == "stream_interrupted"
    long = 1e6
    assert await rows.silent_for(long, ["stream_interrupted"]) == []
    assert await rows.silent_for(0.0, ["stream_interrupted"]) == [data_id]


async def test_a_new_catalogue_for_an_old_store(
    serve: Serve, postgres_server: PostgreSQL, tmp_path: Path
) -> None:
    """After a database was lost, the streams of the store are listed again, with their samples."""
    address, store = await asyncio.to_thread(make_database, postgres_server), str(tmp_path / "store")
    first = await serve(catalogue=address, store=store)
    async with WireClient(first) as client:
        data_id = await client.create()
        _, sample = await client.ask("POST", "/physical_samples/", {"name": "Wafer"})
        link = {"data_ids": [data_id], "physical_sample_id": sample["id"]}
        status, reply = await client.ask("POST", "/data_entries/physical_sample", link)
        assert status == 200, reply
        await client.send(data_id, 0, make_frames(4))
        await client.end(data_id)
    await first.stop()
    other = await asyncio.to_thread(make_database, postgres_server)
    done = await asyncio.to_thread(
        atomstream_here, "cluster", "adopt", "--catalogue", other.text, "--store", store
    )
    assert done.returncode == 0, done.stderr
    second = await serve(catalogue=other, store=store)
    async with WireClient(second) as client:
        while not (entries := (await client.ask("GET", "/data_entries/"))[1]):
            pass  # until the store was read
        (entry,) = entries
        assert (entry["data_id"], entry["pipeline_status"]) == (data_id, "success")
        assert entry["physical_sample_name"] == "Wafer"
        assert [one["name"] for one in (await client.ask("GET", "/physical_samples/"))[1]] == ["Wafer"]


async def test_a_session_of_one_is_one_at_the_other(pair: Pair) -> None:
    """A browser that signed in at one server is signed in at the other at once, and signed out at both."""

    def cookie(server: LiveServer, token: str) -> dict[str, str]:
        return {"Cookie": f"atomstream_session_{URL(server.url).port}={token}", "Origin": server.url}

    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as browser:
        key = {"key": pair.first.api_key}
        async with browser.post(
            f"{pair.first.url}/session", json=key, headers={"Origin": pair.first.url}
        ) as reply:
            assert reply.status == 204
            (token,) = (one.value for one in reply.cookies.values())

        async def status(server: LiveServer, token: str) -> int:
            async with browser.get(f"{server.url}/data_entries/", headers=cookie(server, token)) as reply:
                return reply.status

        assert await status(pair.second, "unknown") == 401
        assert await status(pair.second, token) == 200
        async with browser.delete(f"{pair.second.url}/session", headers=cookie(pair.second, token)) as reply:
            assert reply.status == 204
        assert await status(pair.second, token) == 401
        while await status(pair.first, token) == 200:
            pass  # until its next check, within a second
