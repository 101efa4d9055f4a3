"""Two servers that share S3 and PostgreSQL: any of them answers any request, from a folder that may be empty."""

from __future__ import annotations

import shutil
import uuid
from typing import TYPE_CHECKING

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from tests.databases import make_database
from tests.live_server import LiveServer, Serve
from tests.stores import s3_url
from tests.wire_client import WireClient, make_frames, shard_bytes

if TYPE_CHECKING:
    from atomstream.cluster.engines import PostgreSQL, SeaweedFS


@pytest.fixture
async def pair(
    s3_server: SeaweedFS, postgres_server: PostgreSQL, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> tuple[LiveServer, LiveServer]:
    """Two servers with the key that the first of them made."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    shared = {"store": s3_url(s3_server, f"pair/{uuid.uuid4()}"), "catalogue": make_database(postgres_server)}
    a = await serve(**shared)
    b = await serve(**shared)
    b.api_key = a.api_key
    return a, b


async def test_each_request_goes_to_another_server(pair: tuple[LiveServer, LiveServer]) -> None:
    """Sample, stream, tag, upload URLs, uploads and the end: each at the server that the one before was not at."""
    a, b = pair
    frames = [make_frames(4, seed=seed) for seed in range(4)]
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        sample = (await to_a.ask("POST", "/physical_samples/", {"name": "GaAs 12"}))[1]["id"]
        data_id = await to_b.create("Growth 12")
        link = {"data_ids": [data_id], "physical_sample_id": sample}
        assert (await to_a.ask("POST", "/data_entries/physical_sample", link))[0] == 200
        for index in range(4):
            asked, sent = (to_a, to_b) if index % 2 else (to_b, to_a)
            url = await asked.url(data_id, index, (4, 8, 12))
            status, reply, _ = await sent.put(
                url.replace(asked.server.url, sent.server.url), shard_bytes(frames[index])
            )
            assert status == 200, reply
        status, reply = await to_a.end(data_id)
        assert (status, reply["pipeline_status"]) == (200, "success")
        await b.stop()
        shutil.rmtree(b.data_dir)
        await b.start()
        for client in (to_a, to_b):
            entry = await client.entry(data_id)
            assert entry["physical_sample_name"] == "GaAs 12"
            assert (entry["pipeline_status"], entry["file_metadata"]["n_frames"]) == ("success", 16)
    archive = await b.context.streams.archive(data_id)
    assert np.array_equal(archive.frames(0, 16), np.concatenate(frames))


async def test_a_stream_goes_on_at_another_server(pair: tuple[LiveServer, LiveServer]) -> None:
    """A server stops for good in the middle of a stream: its chunks are sent again and go on at the other one."""
    a, b = pair
    frames = make_frames(8, seed=3)
    async with AsyncRHEEDStreamer(a.api_key, a.url) as streamer:
        data_id = await streamer.initialize(
            fps=2.0, rotations_per_min=0.0, chunk_size=4, physical_sample="GaAs 13"
        )
        await streamer.push(data_id, 0, frames[:4])
        await streamer.flush(data_id)
        await a.stop()
    async with WireClient(b) as client:
        assert (await client.send(data_id, 0, frames[:4]))[0] == 200
        assert (await client.send(data_id, 1, frames[4:]))[0] == 200
        assert (await client.end(data_id))[0] == 200
        assert (await client.entry(data_id))["physical_sample_name"] == "GaAs 13"
    archive = await b.context.streams.archive(data_id)
    assert np.array_equal(archive.frames(0, 8), frames)
