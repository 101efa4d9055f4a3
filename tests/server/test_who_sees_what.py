"""Keys with fewer rights and projects, over HTTP: what they may do, and that nothing shows what they may not see."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from atomstream.server.app import ROUTES
from atomstream.server.http.access import required_access
from atomstream.server.http.api_keys import rotate_server_key
from atomstream.server.people.records import Actor
from atomstream.server.people.rights import Right
from atomstream.server.people.store import NewKey, People
from tests.live_server import LiveServer, Serve
from tests.wire_client import Address, WireClient, make_frames, raw_connection, request_head, shard_bytes

ACTOR = Actor("test", "command line")
UNKNOWN = "99999999-9999-4999-8999-999999999999"


def with_key(server: LiveServer, made: NewKey) -> WireClient:
    """A client with another key than the server's own."""
    return WireClient(Address(server.url, made.secret))


@dataclass
class Lab:
    """Two projects, each with a stream, a sample and a tag, and a stream without a project."""

    server: LiveServer
    owner: WireClient
    people: People
    seen: str
    hidden: str
    seen_stream: str
    hidden_stream: str
    loose_stream: str

    def key(self, scope: str, *projects: str) -> NewKey:
        """A key for these projects; without any, for all."""
        return self.people.create_key(ACTOR, scope, instrument="MBE 3", projects=projects or None)

    def client(self, scope: str, *projects: str) -> WireClient:
        """A client with such a key."""
        return with_key(self.server, self.key(scope, *projects))


async def refresh(here: Lab) -> None:
    """The server reads what was changed beside it, as it does once a second."""
    assert (await here.owner.ask("GET", "/people"))[0] == 200


@asynccontextmanager
async def lab(serve: Serve) -> AsyncIterator[Lab]:
    """A server with such streams."""
    server = await serve()
    async with WireClient(server) as owner:
        projects, streams = [], []
        for name in ("GaN", "Secret"):
            _, made = await owner.ask("POST", "/projects/", {"name": name})
            projects.append(str(made["id"]))
            streams.append(await owner.create(f"Growth {name}", project_id=projects[-1]))
            await owner.send(streams[-1], 0, make_frames(4))
            for path, links, kind in (
                ("/physical_samples/", "/data_entries/physical_sample", "physical_sample_id"),
                ("/tags/", "/tags/data-items/", "tag_ids"),
            ):
                _, made = await owner.ask("POST", path, {"name": f"Of {name}"})
                linked = [made["id"]] if kind == "tag_ids" else made["id"]
                assert (await owner.ask("POST", links, {"data_ids": streams[-1:], kind: linked}))[0] == 200
        loose = await owner.create("Growth loose")
        yield Lab(server, owner, People(server.data_dir), *projects, *streams, loose)


async def test_a_hidden_stream_is_like_none(serve: Serve) -> None:
    """Each route about a stream answers for a hidden one exactly as for one that does not exist."""
    async with lab(serve) as here, here.client("admin") as admin, here.client("write", here.seen) as client:
        assert (await admin.ask("GET", f"/rheed/stream/{here.hidden_stream}/chunks"))[0] == 200
        for route in ROUTES:
            assert isinstance(route, web.RouteDef)
            needed = required_access(route.handler).right
            if "{data_id}" not in route.path or needed in (Right.NONE, Right.ADMIN):
                continue
            path = route.path.replace("{view_id}", "x").replace("{n}", "1")
            answers = []
            for data_id in (UNKNOWN, here.hidden_stream, here.loose_stream):
                status, reply = await client.ask(route.method, path.replace("{data_id}", data_id), {})
                answers.append((status, json.dumps(reply).replace(data_id, "ID")))
            assert answers[0][0] == 404, route.path
            assert len(set(answers)) == 1, route.path
            status, _ = await client.ask("GET", f"/rheed/stream/{here.seen_stream}/chunks")
            assert status == 200


async def test_lists_show_only_what_is_visible(serve: Serve) -> None:
    """Streams, samples, tags, projects, searches, pages of the list and problems: nothing of other projects."""
    async with lab(serve) as here, here.client("read", here.seen) as client:
        seen = [here.seen_stream]
        for query in (
            "",
            "?limit=5",
            "?keywords=Growth",
            "?keywords=Of",
            "?status=all",
            f"?data_ids={here.seen_stream}&data_ids={here.hidden_stream}",
            f"?project_ids={here.seen}&project_ids={here.hidden}",
        ):
            status, entries = await client.ask("GET", f"/data_entries/{query}")
            assert (status, [entry["data_id"] for entry in entries]) == (200, seen), query
        for query in (
            "?keywords=Secret",
            "?keywords=loose",
            f"?data_ids={here.hidden_stream}",
            f"?project_ids={here.hidden}",
            f"?after={here.hidden_stream}",
            f"?after={UNKNOWN}",
        ):
            assert await client.ask("GET", f"/data_entries/{query}") == (200, []), query
        here.server.context.streams.damage.of(here.hidden_stream).add("frames", "it is damaged")
        here.server.context.streams.damage.of("").add("names.jsonl", "it is damaged")
        for path in ("/physical_samples/", "/tags/", "/projects/", "/data_entries/", "/dashboard/problems"):
            status, reply = await client.ask("GET", path)
            text = json.dumps(reply)
            assert status == 200
            assert "Secret" not in text
            assert here.hidden not in text
            assert here.hidden_stream not in text
            assert "names.jsonl" not in text
            if path != "/dashboard/problems":
                assert "GaN" in text, path
        assert (await client.ask("GET", "/metrics"))[0] == 403


async def test_a_sample_of_two_projects_counts_what_is_visible(serve: Serve) -> None:
    """Number and last change of a sample's streams are those of the visible ones."""
    async with lab(serve) as here, here.client("read", here.seen) as client:
        _, samples = await here.owner.ask("GET", "/physical_samples/")
        shared = next(one["id"] for one in samples if one["name"] == "Of GaN")
        link = {"data_ids": [here.hidden_stream], "physical_sample_id": shared}
        assert (await here.owner.ask("POST", "/data_entries/physical_sample", link))[0] == 200
        _, (sample,) = await client.ask("GET", "/physical_samples/")
        assert (sample["name"], sample["num_data_items"]) == ("Of GaN", 1)


async def test_the_rights_of_each_scope(serve: Serve) -> None:
    """Reading, writing and administration each need their scope; the answer names the missing one."""
    async with lab(serve) as here:
        stream = f"/rheed/stream/{here.seen_stream}"
        for scope, statuses in (
            ("read", (200, 403, 403)),
            ("write", (200, 200, 403)),
            ("admin", (200, 200, 200)),
        ):
            async with here.client(scope) as client:
                found = [
                    (await client.ask("GET", f"{stream}/chunks"))[0],
                    (await client.ask("POST", f"{stream}/events", {"label": "x"}))[0],
                ]
                status, reply = await client.ask("DELETE", stream)
                assert (*found, status) == statuses, scope
                if status == 403:
                    assert "the right admin" in reply["detail"]
        async with here.client("read") as client:
            for path in ("/tags/", "/projects/", "/physical_samples/", "/rheed/stream/"):
                assert (await client.ask("POST", path, {"name": "x"}))[0] == 403


async def test_a_writer_stays_in_its_projects(serve: Serve) -> None:
    """A person who sees some projects makes, moves and links streams only there, and makes no projects."""
    async with lab(serve) as here, here.client("write", here.seen) as client:
        made = await client.create("Growth 2", project_id=here.seen)
        assert (await client.send(made, 0, make_frames(4)))[0] == 200
        form = {"data_item_name": "x", "rotations_per_min": 0.0, "fps_capture_rate": 10.0}
        status, own = await client.ask("POST", "/rheed/stream/", form)
        assert (status, (await here.owner.entry(own))["projects"][0]["id"]) == (200, here.seen)
        async with here.client("write", here.seen, here.hidden) as other:
            assert (await other.ask("POST", "/rheed/stream/", form))[0] == 403
        hidden, unknown = [
            await client.ask("POST", "/rheed/stream/", {**form, "project_id": one})
            for one in (here.hidden, UNKNOWN)
        ]
        assert (hidden[0], unknown[0]) == (404, 404)
        assert hidden[1]["detail"].replace(here.hidden, "") == unknown[1]["detail"].replace(UNKNOWN, "")
        path = f"/rheed/stream/{made}"
        assert (await client.ask("PATCH", path, {"project_id": here.hidden}))[0] == 404
        assert (await client.ask("PATCH", path, {"project_id": None}))[0] == 403
        assert (await client.ask_url(here.hidden_stream, 1, (4, 8, 12)))[0] == 404
        assert (await client.ask("POST", "/projects/", {"name": "Mine"}))[0] == 403
        _, samples = await here.owner.ask("GET", "/physical_samples/")
        secret = next(one["id"] for one in samples if one["name"] == "Of Secret")
        for ids, sample in (([made], secret), ([here.hidden_stream], secret)):
            link = {"data_ids": ids, "physical_sample_id": sample}
            assert (await client.ask("POST", "/data_entries/physical_sample", link))[0] == 404
        tracking = {"physical_sample_id": secret}
        for project in (here.seen, here.hidden):
            track = f"/projects/{project}/configuration/tracking_samples"
            assert (await client.ask("POST", track, tracking))[0] == 404
        assert (
            await client.ask("POST", "/tags/data-items/", {"data_ids": [here.hidden_stream], "tag_ids": []})
        )[0] == 404


async def test_names_that_others_use_do_not_stop_a_growth(serve: Serve) -> None:
    """A sample or a tag that only other projects have is used as if it was new, and is visible afterwards."""
    async with lab(serve) as here, here.client("write", here.seen) as client:
        data_id = await client.create("Growth 2", project_id=here.seen)
        for name in ("Of Secret", "New one"):
            status, sample = await client.ask("POST", "/physical_samples/", {"name": name})
            assert (status, sorted(sample)) == (200, ["id"])
            link = {"data_ids": [data_id], "physical_sample_id": sample["id"]}
            assert (await client.ask("POST", "/data_entries/physical_sample", link))[0] == 200
            status, taken = await client.ask("POST", "/physical_samples/", {"name": name})
            assert (status, taken["detail"]["physical_sample_id"]) == (409, sample["id"])
            status, tag = await client.ask("POST", "/tags/", {"name": name})
            assert (status, sorted(tag)) == (200, ["id"])
            link = {"data_ids": [data_id], "tag_ids": [tag["id"]]}
            assert (await client.ask("POST", "/tags/data-items/", link))[0] == 200
            assert (await client.ask("POST", "/tags/", {"name": name}))[0] == 400


async def test_a_deleted_stream_of_another_project_stays_hidden(serve: Serve) -> None:
    """A person who could see a stream gets 410 after its deletion, others 404, also after a restart."""
    async with lab(serve) as here:
        seen, hidden = here.key("read", here.seen), here.key("read", here.hidden)
        await here.owner.ask("DELETE", f"/rheed/stream/{here.hidden_stream}")
        for _ in range(2):
            for made, expected in ((seen, 404), (hidden, 410)):
                async with with_key(here.server, made) as client:
                    assert (await client.ask("GET", f"/rheed/stream/{here.hidden_stream}/chunks"))[
                        0
                    ] == expected
            await here.server.stop()
            await here.server.start()


async def test_answers_to_keys_that_ended(serve: Serve) -> None:
    """The answer states that the key has expired or was revoked; the request is not counted as a guess."""
    async with lab(serve) as here:
        revoked = here.key("read")
        here.people.revoke_key(ACTOR, revoked.key.id)
        old = People(here.server.data_dir, clock=lambda: time.time() - 1000)
        expired = old.create_key(ACTOR, "read", instrument="MBE", expires=time.time() - 500)
        for made, word in ((revoked, "revoked"), (expired, "expired at 20")):
            async with with_key(here.server, made) as client:
                for _ in range(12):
                    status, reply = await client.ask("GET", "/tags/")
                    assert (status, word in reply["detail"]) == (401, True)


async def test_an_upload_url_ends_with_its_key(serve: Serve) -> None:
    """A signed URL whose key has lost its right since is refused with 403 and the reason; nothing is stored."""
    async with lab(serve) as here:

        async def move(_key: NewKey) -> None:
            await here.owner.ask("PATCH", f"/rheed/stream/{here.seen_stream}", {"project_id": here.hidden})

        ends: tuple[Callable[[NewKey], Any], ...] = (
            lambda made: here.people.revoke_key(ACTOR, made.key.id),
            lambda made: here.people.rotate_key(ACTOR, made.key.id, overlap_s=1e-9),
            lambda _key: here.people.set_user(ACTOR, "Mia 2", role="viewer"),
            lambda _key: here.people.remove_user(ACTOR, "Mia 3"),
            move,
        )
        for number, end in enumerate(ends):
            here.people.add_user(ACTOR, f"Mia {number}", "operator", (here.seen,))
            made = here.people.create_key(ACTOR, "write", user=f"Mia {number}")
            async with with_key(here.server, made) as client:
                url = await client.url(here.seen_stream, 1, (4, 8, 12))
                assert (await client.put(url, shard_bytes(make_frames(4))))[0] == 200
                if (waiting := end(made)) is not None and asyncio.iscoroutine(waiting):
                    await waiting
                await refresh(here)
                before = here.server.frames(here.seen_stream)
                status, reply, _ = await client.put(url, shard_bytes(make_frames(4) + 1))
                named = f"The API key {made.key.id} of this upload URL" in reply["detail"]
                assert (status, named) == (403, True), number
                assert (here.server.frames(here.seen_stream) == before).all()


async def test_an_upload_url_ends_with_the_servers_own_key(serve: Serve) -> None:
    """An upload URL of the server's own key gets 403 after the key was replaced without an overlap."""
    async with lab(serve) as here:
        url = await here.owner.url(here.seen_stream, 1, (4, 8, 12))
        rotate_server_key(here.server.data_dir, 0.0)
        async with WireClient(
            Address(here.server.url, "unknown")
        ) as stranger:  # then the files are read again
            assert (await stranger.ask("GET", "/tags/"))[0] == 401
        status, reply, _ = await here.owner.put(url, shard_bytes(make_frames(4)))
        assert (status, "was revoked or has expired" in reply["detail"]) == (403, True)


async def test_a_key_revoked_during_its_upload(serve: Serve) -> None:
    """A body that was being received when its key was revoked is refused at its end, and leaves no file."""
    async with lab(serve) as here:
        made = here.key("write", here.seen)
        body = shard_bytes(make_frames(4))
        async with with_key(here.server, made) as client:
            url = await client.url(here.seen_stream, 1, (4, 8, 12))
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(body))}) + body[:100])
            await writer.drain()
            while not here.server.context.ingest._running:
                await asyncio.sleep(0)
            here.people.revoke_key(ACTOR, made.key.id)
            await refresh(here)
            writer.write(body[100:])
            assert b" 403 " in await reader.readline()
        assert len(here.server.frames(here.seen_stream)) == 4


async def test_open_feeds_end_with_the_right_to_see(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed is closed when its key is revoked, and when its stream is moved to a project that the key does not see."""
    monkeypatch.setattr("atomstream.server.dashboard.sessions.CHANGES_S", 0.01)
    monkeypatch.setattr("atomstream.server.dashboard.sessions.CHECK_PERIOD_S", 0.02)
    async with lab(serve) as here:
        for end in ("revoke", "move"):
            made = here.key("read", here.seen)
            async with with_key(here.server, made) as client:
                url = f"{here.server.url}/rheed/stream/{here.seen_stream}/feed"
                async with client.session.ws_connect(url) as socket:
                    await socket.receive()
                    if end == "revoke":
                        here.people.revoke_key(ACTOR, made.key.id)
                    else:
                        body = {"project_id": here.hidden}
                        await here.owner.ask("PATCH", f"/rheed/stream/{here.seen_stream}", body)
                    async with asyncio.timeout(60):
                        async for _ in socket:
                            pass
                    # The server does not wait for the client's close frame, which may then meet a closed connection.
                    ended = {aiohttp.WSCloseCode.POLICY_VIOLATION, aiohttp.WSCloseCode.ABNORMAL_CLOSURE}
                    assert socket.close_code in ended


async def test_the_use_of_a_key_is_noted(serve: Serve) -> None:
    """The time of a key's last use is known, and in the file after the server has stopped."""
    from atomstream.server.http.key_use import read_key_use

    async with lab(serve) as here, here.client("read") as client:
        before = time.time()
        await client.ask("GET", "/tags/")
        await here.server.stop()
        (used,) = read_key_use(here.server.data_dir).values()
        assert before <= used <= time.time()


async def test_a_damaged_file_of_people_leaves_the_server_key(serve: Serve) -> None:
    """With a damaged file the server starts, its own key is valid, no other is, and the page names the file."""
    async with lab(serve) as here:
        made = here.key("read")
        await here.server.stop()
        path = here.server.data_dir / "people.jsonl"
        path.write_bytes(b"{}\n" + path.read_bytes())
        await here.server.start()
        async with with_key(here.server, made) as client:
            assert (await client.ask("GET", "/tags/"))[0] == 401
        async with WireClient(here.server) as owner:
            _, problems = await owner.ask("GET", "/dashboard/problems")
            assert any("people.jsonl" in sentence for sentence in problems["server"])


async def test_the_check_of_a_key_costs_one_hash(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with a key computes one SHA-256 of it for each place that has keys, however many keys there are."""
    async with lab(serve) as here:
        made = [here.key("read") for _ in range(50)][-1]
        counted = []
        real = hashlib.sha256

        def count(data: Any = b"") -> Any:
            counted.append(bytes(data))
            return real(data)

        async with with_key(here.server, made) as client:
            await client.ask("GET", "/tags/")
            monkeypatch.setattr("atomstream.server.http.api_keys.hashlib.sha256", count)
            await client.ask("GET", "/tags/")
        assert counted.count(made.secret.encode()) <= 2
