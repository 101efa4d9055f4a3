"""Our requests equal the recording, byte for byte where it says anything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest

from atomstream.records import ShardInfo, StreamSpec, Timestamp
from atomstream.service.api import ServiceApi
from atomstream.service.payloads import NewStreamBody
from atomstream.streaming.registration import register
from atomstream.streaming.stream_request import InitializeRequest
from tests.paths import WIRE
from tests.service.recorder import Asked, Recorder, calling, recording

TRAFFIC: list[dict[str, Any]] = [
    json.loads(line) for line in (WIRE / "traffic.jsonl").read_text().splitlines()
]
FIRST_OF_STREAM_1 = next(
    k for k, one in enumerate(TRAFFIC) if one["path"] == "/rheed/stream/" and "110" in one["body"]
)
MATTERING = {
    "accept",
    "atomstream-lost",
    "cache-control",
    "content-type",
    "content-length",
    "transfer-encoding",
    "x-api-key",
}
PROJECT = "11111111-2222-3333-4444-555555555555"
SAMPLE = "5db5c30e-a4e7-4404-bbce-e2c3e2c819bc"
TAGS = {"night shift": "f6f76af3-c4c8-4571-b56d-f988d7205e36", "GaN": "281de0b5-cee4-438e-8e31-d11b13ae7f3d"}
STREAMS = ("06f34b41-c1ff-466f-bc3c-812ce4ea3d9d", "1bc47439-38e8-4030-8413-0d93be3a0035")


def shard_info(
    data_id: str,
    index: int,
    dims: tuple[int, int, int],
    timestamp: Timestamp,
    dtype: Literal["uint8", "uint16"] = "uint8",
) -> ShardInfo:
    return ShardInfo(
        data_id=data_id,
        index=index,
        dims=dims,
        dtype=dtype,
        timestamp=timestamp,
        nbytes=1,
        crc32c=0,
        digest=b"",
    )


@pytest.fixture
async def service() -> AsyncIterator[tuple[Recorder, ServiceApi]]:
    """The recorded server: an empty catalogue that hands out the recorded ids."""
    async with recording() as recorder, calling(recorder.url) as api:
        recorder.on_json("GET /physical_samples/", [])
        recorder.on_json("GET /tags/", [])
        recorder.on_json("POST /physical_samples/", {"id": SAMPLE})
        recorder.on("POST /tags/", lambda _, body: _reply({"id": TAGS[json.loads(body)["name"]]}))
        recorder.on(
            "POST /rheed/stream/", lambda _, body: _reply(STREAMS["110" in json.loads(body).values()])
        )
        for path in ("/data_entries/physical_sample", "/tags/data-items/"):
            recorder.on_json(f"POST {path}", {})
        recorder.on_json(f"POST /projects/{PROJECT}/configuration/tracking_samples", {})
        recorder.on("POST /data_entries/raw_data/staged/upload_urls/", lambda *ask: _signed(recorder, *ask))
        for data_id in STREAMS:
            recorder.on_json(f"POST /rheed/stream/{data_id}/end", {"ok": True})
        for one in TRAFFIC:
            if one["method"] == "PUT":
                recorder.on("PUT " + one["path"], lambda *_: _reply(None))
        yield recorder, api


def _reply(data: Any) -> Any:
    from aiohttp import web

    return web.json_response(data)


def _signed(recorder: Recorder, request: Any, body: bytes) -> Any:
    data_id, key = json.loads(body)["data_id"], request.query["original_filename"]
    return _reply([{"upload_id": "u", "url": f"{recorder.url}/blob/{data_id}/{key}", "part": 0}])


def told(one: Asked) -> dict[str, Any]:
    """A request in the recording's own form."""
    body = f"<{len(one.body)} bytes>" if one.method == "PUT" else one.body.decode()
    return normal({**vars(one), "body": body})


def normal(one: dict[str, Any]) -> dict[str, Any]:
    """Without what does not matter: no body is written as "" or null, no type as "" or left out."""
    headers = {name: value for name, value in one["headers"].items() if name in MATTERING}
    if headers.get("content-type") == "":
        del headers["content-type"]
    if not one["body"]:
        headers.pop("content-length", None)
    return {**one, "headers": headers, "body": one["body"] or None}


def recorded(start: int, stop: int) -> list[dict[str, Any]]:
    """The recording without the time requests, whose number is a matter of timing."""
    return [normal(one) for one in TRAFFIC[start:stop] if one["path"] != "/gateway/time"]


async def test_full_registration_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """Sample, tags, stream, links and tracking go out as recorded, in that order."""
    recorder, api = service
    request = InitializeRequest(
        fps=120,
        rotations_per_min=15,
        chunk_size=240,
        stream_name="Growth 001",
        physical_sample="GaN-2025-001",
        project_id=PROJECT,
        tags=["night shift", "GaN"],
    )
    registered = await register(api, request)
    assert registered.spec.data_id == STREAMS[0]
    assert not registered.spec.announced
    assert list(map(told, recorder.asked)) == recorded(0, 10)


async def test_plain_registration_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """A stationary stream with an azimuth makes one request, the recorded one but for the timed name."""
    recorder, api = service
    await register(api, InitializeRequest(120.0, 0.0, 240, azimuth="110"))
    [ours], [theirs] = map(told, recorder.asked), recorded(FIRST_OF_STREAM_1, FIRST_OF_STREAM_1 + 1)
    ours_body, theirs_body = json.loads(ours.pop("body")), json.loads(theirs.pop("body"))
    assert ours_body.pop("data_item_name").startswith("RHEED Stream @ ")
    assert theirs_body.pop("data_item_name").startswith("RHEED Stream @ ")
    assert list(ours_body.items()) == list(theirs_body.items())
    for one in (ours, theirs):
        del one["headers"]["content-length"]
    assert ours == theirs


async def test_uploads_and_end_equal_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """Each recorded shard is asked for, sent and the streams ended as recorded."""
    recorder, api = service
    asks = [one for one in TRAFFIC if "upload_urls" in one["path"]]
    for number, data_id in enumerate(STREAMS):
        spec = StreamSpec(data_id, 120.0, 15.0 if number == 0 else 0.0, 240)
        for ask in [one for one in asks if data_id in one["body"]]:
            body = json.loads(ask["body"])
            index = int(ask["query"]["original_filename"].split("/")[3])
            timestamp = Timestamp(float(body["start_unix_ms_utc"]), 1.0, 0.9)
            shard = (WIRE / "shards" / f"stream{number}-c{index}.shard").read_bytes()
            n, height, width = map(int, body["dims"].split(","))
            url = await api.upload_url(spec, shard_info(data_id, index, (n, height, width), timestamp))
            assert await api.put_shard(url, [shard], len(shard), crc32c=0) is None
        await api.end_stream(data_id, [7], announced=False)
    theirs = [one for one in recorded(10, len(TRAFFIC)) if one["path"] != "/rheed/stream/"]
    assert in_order(map(told, recorder.asked)) == in_order(theirs)


def in_order(requests: Any) -> list[str]:
    """As JSON, sorted: the recorded client had several uploads under way at once."""
    return sorted(json.dumps(one, sort_keys=True) for one in requests)


async def test_time_request_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """The time is asked for without the key, as recorded."""
    recorder, api = service
    recorder.on_json("GET /gateway/time", {"receivedAtUnixMs": 1.5, "transmittedAtUnixMs": 2})
    assert await api.gateway_time() == (1.5, 2.0)
    assert list(map(told, recorder.asked)) == [normal(TRAFFIC[0])]


async def test_announced_server_gets_its_extras(service: tuple[Recorder, ServiceApi]) -> None:
    """Only a server that announced itself is told of uint16 frames and of lost chunks."""
    recorder, api = service
    recorder.on_json("POST /rheed/stream/", STREAMS[0], Atomstream="1")
    created = await api.create_stream(NewStreamBody("x", 10.0, 0.0))
    assert created.announced
    info = shard_info(STREAMS[0], 0, (1, 2, 3), Timestamp(0.0), "uint16")
    await api.upload_url(StreamSpec(STREAMS[0], 10.0, 0.0, 5, announced=True), info)
    assert json.loads(recorder.asked[-1].body)["dtype"] == "uint16"
    assert "clock_offset_ms" not in json.loads(recorder.asked[-1].body)
    await api.end_stream(STREAMS[0], [5, 3, 4, 9], announced=True)
    assert recorder.asked[-1].headers["atomstream-lost"] == "3-5,9"
    with pytest.raises(TypeError, match="to_uint8"):
        await api.upload_url(StreamSpec(STREAMS[0], 10.0, 0.0, 5), info)
