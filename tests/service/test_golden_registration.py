"""Our requests equal the recorded ones, byte for byte."""

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
from atomstream.testing import ReceivedRequest
from tests.paths import WIRE
from tests.service.recorder import Recorder, calling, recording

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
    """A server with an empty catalogue that returns the recorded ids."""
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


def in_recorded_form(one: ReceivedRequest) -> dict[str, Any]:
    """A request in the format of the recording."""
    body = f"<{len(one.body)} bytes>" if one.method == "PUT" else one.body.decode()
    kept = {name: value for name, value in vars(one).items() if name != "received_s"}
    return normal({**kept, "body": body})


def normal(one: dict[str, Any]) -> dict[str, Any]:
    """Without irrelevant differences: an absent body is "" or null, an absent type is "" or omitted."""
    headers = {name: value for name, value in one["headers"].items() if name in MATTERING}
    if headers.get("content-type") == "":
        del headers["content-type"]
    if not one["body"]:
        headers.pop("content-length", None)
    return {**one, "headers": headers, "body": one["body"] or None}


def recorded(start: int, stop: int) -> list[dict[str, Any]]:
    """The recording without the time requests, whose number depends on the timing."""
    return [normal(one) for one in TRAFFIC[start:stop] if one["path"] != "/gateway/time"]


async def test_full_registration_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """Sample, tags, stream, links and tracking are sent as recorded, in this order."""
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
    assert list(map(in_recorded_form, recorder.requests)) == recorded(0, 10)


async def test_plain_registration_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """A stationary stream with an azimuth sends one request: the recorded one, except for the name with its time."""
    recorder, api = service
    await register(api, InitializeRequest(120.0, 0.0, 240, azimuth="110"))
    [ours], [expected] = (
        map(in_recorded_form, recorder.requests),
        recorded(FIRST_OF_STREAM_1, FIRST_OF_STREAM_1 + 1),
    )
    our_body, recorded_body = json.loads(ours.pop("body")), json.loads(expected.pop("body"))
    assert our_body.pop("data_item_name").startswith("RHEED Stream @ ")
    assert recorded_body.pop("data_item_name").startswith("RHEED Stream @ ")
    assert list(our_body.items()) == list(recorded_body.items())
    for one in (ours, expected):
        del one["headers"]["content-length"]
    assert ours == expected


async def test_uploads_and_end_equal_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """Upload URLs, uploads and the ends of the streams are sent as recorded."""
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
    expected = [one for one in recorded(10, len(TRAFFIC)) if one["path"] != "/rheed/stream/"]
    assert in_order(map(in_recorded_form, recorder.requests)) == in_order(expected)


def in_order(requests: Any) -> list[str]:
    """As sorted JSON, because the recorded client sent several uploads at the same time."""
    return sorted(json.dumps(one, sort_keys=True) for one in requests)


async def test_time_request_equals_recording(service: tuple[Recorder, ServiceApi]) -> None:
    """The time request has no key, as recorded."""
    recorder, api = service
    recorder.on_json("GET /gateway/time", {"receivedAtUnixMs": 1.5, "transmittedAtUnixMs": 2})
    assert await api.gateway_time() == (1.5, 2.0)
    assert list(map(in_recorded_form, recorder.requests)) == [normal(TRAFFIC[0])]


async def test_announced_server_gets_its_extras(service: tuple[Recorder, ServiceApi]) -> None:
    """uint16 frames and lost chunks are sent only to an atomstream server."""
    recorder, api = service
    recorder.on_json("POST /rheed/stream/", STREAMS[0], Atomstream="1")
    created = await api.create_stream(NewStreamBody("x", 10.0, 0.0))
    assert created.announced
    info = shard_info(STREAMS[0], 0, (1, 2, 3), Timestamp(0.0), "uint16")
    await api.upload_url(StreamSpec(STREAMS[0], 10.0, 0.0, 5, announced=True), info)
    assert json.loads(recorder.requests[-1].body)["dtype"] == "uint16"
    assert "clock_offset_ms" not in json.loads(recorder.requests[-1].body)
    await api.end_stream(STREAMS[0], [5, 3, 4, 9], announced=True)
    assert recorder.requests[-1].headers["atomstream-lost"] == "3-5,9"
    with pytest.raises(TypeError, match="to_uint8"):
        await api.upload_url(StreamSpec(STREAMS[0], 10.0, 0.0, 5), info)
