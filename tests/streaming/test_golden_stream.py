"""The requests and shards of our streamers equal a recording of the hosted service's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore
import zarr

from atomstream import AsyncRHEEDStreamer
from atomstream.records import Chunk, Timestamp
from atomstream.shard import ShardEncoder, decode_shard
from atomstream.testing import MemoryService
from tests.paths import WIRE
from tests.service.recorder import KEY

TRAFFIC: list[dict[str, Any]] = [
    json.loads(line) for line in (WIRE / "traffic.jsonl").read_text().splitlines()
]
FRAMES = np.load(WIRE / "frames.npz")
CHUNKS: dict[str, npt.NDArray[np.uint8]] = {
    "stream0-c0": FRAMES["chunk0"],
    "stream0-c1": FRAMES["chunk1"],
    "stream0-c2": FRAMES["frame"][np.newaxis],
    "stream1-c0": FRAMES["chunk0"],
    "stream1-c1": FRAMES["chunk1"],
}
STREAMS = ("06f34b41-c1ff-466f-bc3c-812ce4ea3d9d", "1bc47439-38e8-4030-8413-0d93be3a0035")
GIVEN_MS = {(STREAMS[0], 0): 1735689600000, (STREAMS[0], 1): 1735689602000, (STREAMS[1], 1): 1735689602000}
MATTERING = {"accept", "cache-control", "content-type", "content-length", "transfer-encoding", "x-api-key"}
ASIDE = {"start_unix_ms_utc", "end_unix_ms_utc", "clock_offset_ms", "clock_uncertainty_ms", "data_item_name"}
MADE = {"physical_sample_id", "tag_ids"}
PROJECT = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
async def service() -> AsyncIterator[MemoryService]:
    """The recorded service, after our streamer has sent it both recorded streams."""
    async with MemoryService() as server:
        server.next_ids.extend(STREAMS)
        async with AsyncRHEEDStreamer(KEY, server.url, spool_min_free_bytes=0) as streamer:
            await _first_stream(streamer)
            await _second_stream(streamer)
        yield server


async def _first_stream(streamer: AsyncRHEEDStreamer) -> None:
    data_id = await streamer.initialize(
        fps=120.0,
        rotations_per_min=15.0,
        chunk_size=240,
        stream_name="Growth 001",
        physical_sample="GaN-2025-001",
        project_id=PROJECT,
        tags=["night shift", "GaN"],
    )
    await streamer.push(data_id, 0, FRAMES["chunk0"], capture_start_ms_utc=1735689600000)
    await streamer.push(data_id, 1, FRAMES["chunk1"], capture_start_ms_utc=1735689602000)
    await streamer.push(data_id, 2, FRAMES["frame"])
    assert (await streamer.finalize(data_id))["chunks_uploaded"] == 3


async def _second_stream(streamer: AsyncRHEEDStreamer) -> None:
    data_id = await streamer.initialize(fps=120.0, rotations_per_min=0.0, chunk_size=240, azimuth="110")
    await streamer.run(data_id, [FRAMES["chunk0"], (FRAMES["chunk1"], 1735689602000)])
    assert (await streamer.finalize(data_id))["chunks_uploaded"] == 2


def normal_form(one: dict[str, Any]) -> dict[str, Any]:
    """A request without its variable parts: ids made by the server, clock values, levels, the name with a time."""
    headers = {name: value for name, value in one["headers"].items() if name in MATTERING}
    if not headers.get("content-type"):
        headers.pop("content-type", None)  # for a presigned URL an empty value equals a missing one
    headers.pop("content-length", None)  # compared with the body where there is one
    body = json.loads(one["body"]) if one["body"] and one["body"].startswith("{") else None
    shape = {key: type(value).__name__ for key, value in (body or {}).items() if key not in ASIDE}
    kept = {key: value for key, value in (body or {}).items() if key in shape and key not in MADE}
    return {
        "method": one["method"],
        "path": one["path"],
        "query": {key: value for key, value in one["query"].items() if key != "sig"},
        "headers": headers,
        "keys": list(shape.items()),
        "body": kept,
    }


def normal_forms(requests: list[dict[str, Any]]) -> list[str]:
    """All requests except the clock's, whose number depends on timing; sorted, because uploads run in parallel."""
    return sorted(
        json.dumps(normal_form(one), sort_keys=True) for one in requests if one["path"] != "/gateway/time"
    )


def sent(service: MemoryService) -> list[dict[str, Any]]:
    """The requests of our client, in the form of the recording."""
    return [
        {**vars(one), "body": "" if one.method == "PUT" else one.body.decode()} for one in service.requests
    ]


async def test_both_streams_equal_the_recording(service: MemoryService) -> None:
    """Path, query, relevant headers and the body's keys with their order, types and values equal the recorded ones."""
    assert normal_forms(sent(service)) == normal_forms(TRAFFIC)


async def test_a_stream_is_made_before_its_chunks_and_ended_after_them(service: MemoryService) -> None:
    """Registration requests come in the recorded order, uploads after them, the end last."""
    steps = [one.path for one in service.requests if one.path != "/gateway/time"]
    made = [one["path"] for one in TRAFFIC if one["path"] != "/gateway/time"][:9]
    assert steps[:9] == made
    for data_id in STREAMS:
        mine = [path for path in steps if data_id in path]
        assert mine[-1] == f"/rheed/stream/{data_id}/end"


async def test_bodies_have_their_length_and_are_not_chunked(service: MemoryService) -> None:
    """Each request with a body has a Content-Length; none is chunked, because a presigned URL refuses that."""
    for one in service.requests:
        assert "transfer-encoding" not in one.headers
        if one.body:
            assert int(one.headers["content-length"]) == len(one.body)


async def test_nothing_of_our_own_goes_to_a_foreign_server(service: MemoryService) -> None:
    """No header, key or query of our own extensions is sent to a server that did not announce itself as ours."""
    for one in service.requests:
        assert not any(name.startswith("atomstream") for name in one.headers)
        assert b"dtype" not in (b"" if one.method == "PUT" else one.body)
        assert ("x-api-key" in one.headers) == (one.path != "/gateway/time" and one.method != "PUT")


async def test_only_automatic_timestamps_have_clock_values(service: MemoryService) -> None:
    """The caller's timestamps have no clock values; automatic ones do: an integer and a number with one decimal."""
    for one in [one for one in service.requests if one.path.endswith("/upload_urls/")]:
        body = json.loads(one.body)
        assert all(isinstance(value, str) for value in body.values())
        n_frames = int(body["dims"].split(",")[0])
        start, end = int(body["start_unix_ms_utc"]), int(body["end_unix_ms_utc"])
        assert abs(end - start - 1000 * n_frames / 120.0) <= 1
        index = int(one.query["original_filename"].split("/")[3])
        explicit = GIVEN_MS.get((body["data_id"], index))
        if explicit is not None:
            assert start == explicit
            assert not any(key.startswith("clock_") for key in body)
        else:
            int(body["clock_offset_ms"])
            assert len(body["clock_uncertainty_ms"].partition(".")[2]) == 1
            assert list(body) == list(json.loads(_first_recorded_body()))


def _first_recorded_body() -> str:
    return next(str(one["body"]) for one in TRAFFIC if one["path"].endswith("/upload_urls/"))


async def test_our_shards_decode_to_the_frames(service: MemoryService, tmp_path: Path) -> None:
    """Our shards decode to the pushed frames: with our decoder, zarr-python and tensorstore."""
    for name, frames in CHUNKS.items():
        stream, chunk = STREAMS[int(name[6])], int(name[-1])
        [body] = service.uploads(stream, chunk)
        assert_reads(body, frames, tmp_path / name)


@pytest.mark.parametrize("name", CHUNKS)
def test_recorded_shards_decode_to_the_frames(name: str, tmp_path: Path) -> None:
    """The shards of the recorded client decode to its frames with all three readers."""
    assert_reads((WIRE / "shards" / f"{name}.shard").read_bytes(), CHUNKS[name], tmp_path)


@pytest.mark.parametrize("level", [-5, 1, 3, 19])
def test_shards_of_any_level_read_alike(level: int, tmp_path: Path) -> None:
    """Shards of all compression levels decode to the same frames."""
    frames = CHUNKS["stream0-c1"]
    shard = ShardEncoder(level).encode(Chunk("s", 0, frames, Timestamp(0.0)))
    assert_reads(b"".join(shard.pieces), frames, tmp_path)


def assert_reads(body: bytes, frames: npt.NDArray[np.uint8], folder: Path) -> None:
    """Assert that ``body`` decodes to ``frames`` with our decoder and two other Zarr readers."""
    n, height, width = frames.shape
    np.testing.assert_array_equal(decode_shard(body, (n, height, width)), frames)
    zarr.create_array(
        folder,
        shape=frames.shape,
        dtype="uint8",
        shards=frames.shape,
        chunks=(1, height, width),
        overwrite=True,
    )
    shard = folder / "c" / "0" / "0" / "0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(body)
    np.testing.assert_array_equal(np.asarray(zarr.open_array(folder, mode="r")[:]), frames)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), frames)
