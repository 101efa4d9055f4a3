"""A stream over HTTP: the recorded requests, repeats, disorder, restarts, and the end."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import google_crc32c
import numpy as np
import pytest

from tests.live_server import Serve
from tests.paths import WIRE
from tests.wire_client import WireClient, make_frames, shard_bytes


def recorded() -> list[dict[str, Any]]:
    """The requests of the hosted service's own client, in their order."""
    return [json.loads(line) for line in (WIRE / "traffic.jsonl").read_text().splitlines()]


class Replay:
    """Sends the recorded requests again, with the ids of this server instead of the recorded ones."""

    def __init__(self, client: WireClient) -> None:
        self._client = client
        self._ids: dict[str, str] = {}
        self._urls: dict[tuple[str, str], str] = {}
        self.streams: list[str] = []
        self.statuses: list[int] = []

    def translate(self, text: str) -> str:
        """``text`` with the ids of this server."""
        for theirs, ours in self._ids.items():
            text = text.replace(theirs, ours)
        return text

    async def run(self, requests: list[dict[str, Any]]) -> None:
        """Send all requests; each new id in a reply replaces the recorded one in later requests."""
        later = self._recorded_ids(requests)
        for one in requests:
            if one["method"] == "PUT":
                await self._put(one["path"])
                continue
            reply = await self._send(one)
            if one["path"] in ("/physical_samples/", "/tags/") and one["method"] == "POST":
                self._ids[later[one["path"]].pop(0)] = reply["id"]
            if one["path"] == "/rheed/stream/":
                self._ids[later["/rheed/stream/"].pop(0)] = reply
                self.streams.append(reply)

    async def _send(self, one: dict[str, Any]) -> Any:
        body = self.translate(one["body"]).encode() if one["body"] else None
        headers = {"Content-Type": "application/json"} if body else {}
        status, reply = await self._client.ask(
            one["method"], self.translate(one["path"]), params=one["query"], data=body, headers=headers
        )
        self.statuses.append(status)
        if "upload_urls" in one["path"]:
            self._urls[json.loads(body or b"")["data_id"], one["query"]["original_filename"]] = reply[0][
                "url"
            ]
        return reply

    async def _put(self, path: str) -> None:
        _, _, theirs, name = path.split("/", 3)
        data_id = self._ids[theirs]
        chunk = name.split("/")[3]
        body = (WIRE / "shards" / f"stream{self.streams.index(data_id)}-c{chunk}.shard").read_bytes()
        headers = {"Content-Type": "", "Content-Length": str(len(body))}
        status, _, _ = await self._client.put(self._urls[data_id, name], body, headers=headers)
        self.statuses.append(status)

    @staticmethod
    def _recorded_ids(requests: list[dict[str, Any]]) -> dict[str, list[str]]:
        def bodies(path: str) -> list[dict[str, Any]]:
            return [json.loads(one["body"]) for one in requests if one["path"] == path]

        ends = [one["path"].split("/")[3] for one in requests if one["path"].endswith("/end")]
        return {
            "/physical_samples/": [bodies("/data_entries/physical_sample")[0]["physical_sample_id"]],
            "/tags/": bodies("/tags/data-items/")[0]["tag_ids"],
            "/rheed/stream/": ends,
        }


async def test_recorded_traffic_is_accepted(serve: Serve) -> None:
    """The requests of the hosted service's client, replayed one by one, make a stream; each pixel is read back."""
    server = await serve()
    frames = np.load(WIRE / "frames.npz")
    async with WireClient(server) as client:
        project = {"name": "Nitrides", "id": "11111111-2222-3333-4444-555555555555"}
        assert (await client.ask("POST", "/projects/", project))[0] == 200
        replay = Replay(client)
        await replay.run(recorded())
        first, second = replay.streams
        entry = await client.entry(first)
    assert set(replay.statuses) == {200}
    assert len(replay.statuses) == len(recorded())
    archive = server.archive(first)
    assert np.array_equal(archive.frames(0, 340), np.concatenate([frames["chunk0"], frames["chunk1"]]))
    assert np.array_equal(archive.frames(480, 481)[0], frames["frame"])
    assert np.array_equal(server.archive(second).frames(0, 240), frames["chunk0"])
    assert entry["pipeline_status"] == "success"
    assert entry["physical_sample_name"] == "GaN-2025-001"
    assert entry["projects"] == [{"id": project["id"], "name": "Nitrides"}]
    assert [tag["name"] for tag in entry["tags"]] == ["GaN", "night shift"]


async def test_creation_announces_the_server(serve: Serve) -> None:
    """The reply to POST /rheed/stream/ is a bare JSON string with the header ``Atomstream: 1``."""
    server = await serve()
    form = {
        "data_item_name": "x",
        "rotations_per_min": 15.0,
        "rotational_period": 480.0,
        "fps_capture_rate": 120.0,
    }
    async with (
        WireClient(server) as client,
        client.session.post(f"{server.url}/rheed/stream/", json=form) as reply,
    ):
        assert reply.headers["Atomstream"] == "1"
        data_id = await reply.json()
    assert server.folder(data_id).is_dir()


async def test_put_returns_the_crc_of_the_body(serve: Serve) -> None:
    """The 200 of a PUT has ``x-amz-checksum-crc32c`` of the received bytes, as S3 sends it."""
    server = await serve()
    frames = make_frames(4)
    async with WireClient(server) as client:
        data_id = await client.create()
        body = shard_bytes(frames)
        status, _, headers = await client.put(await client.url(data_id, 0, frames.shape), body)
    assert status == 200
    crc = google_crc32c.value(body).to_bytes(4, "big")
    assert headers["x-amz-checksum-crc32c"] == base64.b64encode(crc).decode()


async def test_order_and_repeats_do_not_matter(serve: Serve) -> None:
    """Chunks out of order, twice, and at another compression level make one archive, and each gets 200."""
    server = await serve()
    parts = [make_frames(4, seed=k) for k in range(3)]
    async with WireClient(server) as client:
        data_id = await client.create()
        for k, level in ((2, 1), (0, 1), (2, 9), (1, 3), (0, 1)):
            assert (await client.send(data_id, k, parts[k], level=level))[0] == 200
    assert np.array_equal(server.archive(data_id).frames(0, 12), np.concatenate(parts))


async def test_conflicting_chunk_is_409(serve: Serve) -> None:
    """Other frames under a stored index are refused with 409, and the stored ones stay."""
    server = await serve()
    kept = make_frames(4)
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, kept)
        status, reply = await client.send(data_id, 0, make_frames(4, seed=1))
    assert status == 409
    assert "Chunk 0" in reply["detail"]
    assert np.array_equal(server.archive(data_id).frames(0, 4), kept)


async def test_concurrent_uploads_of_one_index_agree(serve: Serve) -> None:
    """Of many concurrent uploads of one index, those of one content get 200 and are stored, all others 409."""
    server = await serve()
    contents = [make_frames(4, seed=k) for k in range(3)]
    async with WireClient(server) as client:
        data_id = await client.create()
        sent = contents * 4
        replies = await asyncio.gather(*[client.send(data_id, 0, frames) for frames in sent])
    stored = server.archive(data_id).frames(0, 4)
    for frames, (status, _) in zip(sent, replies, strict=True):
        assert status == (200 if np.array_equal(frames, stored) else 409)
    assert [status for status, _ in replies].count(200) == 4


async def test_concurrent_first_chunks_fix_one_geometry(serve: Serve) -> None:
    """Of concurrent first chunks of two shapes, one shape is fixed, the other gets 409."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        shapes = [make_frames(4, height=8), make_frames(4, height=9)]
        replies = await asyncio.gather(*[client.send(data_id, k, f) for k, f in enumerate(shapes)])
    statuses = [status for status, _ in replies]
    assert sorted(statuses) == [200, 409]
    assert list(server.archive(data_id).chunks()) == [statuses.index(200)]


@pytest.mark.parametrize(
    ("dims", "chunk_size", "changes"),
    [((4, 8, 13), 4, {}), ((4, 9, 12), 4, {}), ((4, 8, 12), 5, {}), ((4, 8, 12), 4, {"dtype": "uint16"})],
    ids=["width", "height", "chunk_size", "dtype"],
)
async def test_changed_geometry_is_409(
    serve: Serve, dims: tuple[int, ...], chunk_size: int, changes: dict[str, str]
) -> None:
    """A URL for another geometry than that of the first chunk is refused with 409, also after a restart."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
        status, reply = await client.ask_url(data_id, 1, dims, chunk_size, **changes)
        assert status == 409, reply
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await client.ask_url(data_id, 1, dims, chunk_size, **changes))[0] == 409


async def test_uint16_frames(serve: Serve) -> None:
    """16-bit frames, announced by ``dtype``, are read back in 16 bit."""
    server = await serve()
    frames = make_frames(3).astype(np.uint16) * 257
    async with WireClient(server) as client:
        data_id = await client.create()
        assert (await client.send(data_id, 0, frames))[0] == 200
    stored = server.archive(data_id).frames(0, 3)
    assert stored.dtype == np.uint16
    assert np.array_equal(stored, frames)


async def test_restart_keeps_all(serve: Serve) -> None:
    """A restart between two chunks loses no chunk, status, name, link or key, and old URLs stay valid."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Wafer growth")
        (_, sample), (_, tag) = [
            await client.ask("POST", path, {"name": "Wafer-A1"}) for path in ("/physical_samples/", "/tags/")
        ]
        link = {"data_ids": [data_id], "physical_sample_id": sample["id"]}
        assert (await client.ask("POST", "/data_entries/physical_sample", link))[0] == 200
        assert (
            await client.ask("POST", "/tags/data-items/", {"data_ids": [data_id], "tag_ids": [tag["id"]]})
        )[0] == 200
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
        url = await client.url(data_id, 1, (4, 8, 12))
        before = await client.entry(data_id)
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        after = await client.entry(data_id)
        assert {**after, "last_updated": ""} == {**before, "last_updated": ""}
        assert (await client.put(url, shard_bytes(make_frames(4, seed=1))))[0] == 200
        assert (await client.entry(data_id))["growth_length"] == pytest.approx(8 / 120.0)


async def test_late_chunks_are_accepted_after_the_end(serve: Serve) -> None:
    """A chunk that arrives after the end is stored, and the stream has the status success again."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 1, make_frames(4, seed=1))
        assert (await client.end(data_id))[0] == 200
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
        assert (await client.entry(data_id))["pipeline_status"] == "success"
    assert server.archive(data_id).missing_ranges() == []


async def test_end_is_idempotent(serve: Serve) -> None:
    """Two requests to end the stream get 200 each and change nothing; an unknown stream is 404."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
        first, second = [await client.end(data_id) for _ in range(2)]
        assert first == second == (200, {"data_id": data_id, "pipeline_status": "success"})
        assert (await client.end("5db5c30e-a4e7-4404-bbce-e2c3e2c819bc"))[0] == 404


async def test_lost_indices_are_listed(serve: Serve) -> None:
    """Indices in ``Atomstream-Lost`` are listed in the archive until they arrive."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 6, make_frames(4))
        assert (await client.end(data_id, **{"Atomstream-Lost": "1-3, 5"}))[0] == 200
        assert server.archive(data_id).about["lost"] == "1-3,5"
        await client.send(data_id, 2, make_frames(4))
    assert server.archive(data_id).about["lost"] == "1,3,5"
