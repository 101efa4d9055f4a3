"""Requests of the pages about a stream: series, images, the table, and its throughput; with a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from atomstream.protocol import PICTURE_HEADER
from tests.live_server import LiveServer, Serve
from tests.wire_client import START_MS, WireClient, make_frames

CHUNK = 4
FPS = 120.0


@pytest.fixture
async def server(serve: Serve) -> LiveServer:
    """A server."""
    return await serve()


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[WireClient]:
    """A client of this server."""
    async with WireClient(server) as made:
        yield made


async def send_chunks(client: WireClient, indices: list[int]) -> tuple[str, np.ndarray]:
    """Send these chunks, consecutive in time; returns the stream's id and the frames of one chunk."""
    data_id, frames = await client.create(), make_frames(CHUNK)
    for index in indices:
        start = START_MS + round(index * CHUNK * 1000 / FPS)
        stamps = {"start_unix_ms_utc": str(start), "end_unix_ms_utc": str(start + 33)}
        status, reply = await client.send(data_id, index, frames, **stamps)
        assert status == 200, reply
    return data_id, frames


async def test_series_of_a_time_range(client: WireClient, server: LiveServer) -> None:
    """Times and values of the requested range, downsampled to the requested points, with extremes."""
    data_id, _ = await send_chunks(client, list(range(50)))
    (await server.context.streams.archive(data_id)).write_values(
        "some_trace", 0, np.arange(200.0), "time", {"units": "counts"}
    )
    status, whole = await client.ask("GET", f"/dashboard/streams/{data_id}/series?name=some_trace&points=50")
    assert status == 200
    assert whole["n_frames"] == 200
    assert len(whole["t"]) <= 50
    trace = whole["series"]["some_trace"]
    assert min(trace["low"]) == 0.0
    assert max(trace["high"]) == 199.0
    _, fine = await client.ask(
        "GET", f"/dashboard/streams/{data_id}/series?name=some_trace&last=0.2&points=4000"
    )
    assert fine["bucket"] == 1
    assert fine["t"][-1] == pytest.approx(199 / FPS, abs=2e-3)
    assert fine["series"]["some_trace"]["mean"][-1] == 199.0


async def test_the_spectrum_of_a_trace(client: WireClient, server: LiveServer) -> None:
    """The amplitude of an oscillation is at its frequency, over the range asked for; too little has a reason."""
    data_id, _ = await send_chunks(client, list(range(50)))
    trace = 100.0 + 3.0 * np.sin(2 * np.pi * 12.0 * np.arange(200.0) / FPS)
    (await server.context.streams.archive(data_id)).write_values("some_trace", 0, trace, "time", {})
    path = f"/dashboard/streams/{data_id}/spectrum?name=some_trace"
    status, whole = await client.ask("GET", f"{path}&name=nothing")
    assert status == 200
    found = whole["series"]["some_trace"]
    best = int(np.argmax(found["amplitude"]))
    assert found["frequency"][best] == pytest.approx(12.0, abs=0.3)
    assert found["amplitude"][best] == pytest.approx(3.0, rel=0.05)
    assert found["resolution"] == pytest.approx(FPS / 200, rel=0.05)
    assert "too few" in whole["series"]["nothing"]["why"]
    _, part = await client.ask("GET", f"{path}&from=0.5&to=1")
    assert (part["from_s"], part["to_s"]) == (pytest.approx(0.5, abs=0.01), pytest.approx(1.0, abs=0.01))


async def test_the_profile_of_a_region(client: WireClient) -> None:
    """The mean over a box's height, one value for each px, with its fitted peak; an unknown line gets a 404."""
    streak = 20.0 + 150.0 * np.exp(-4 * np.log(2) * ((np.arange(64) - 31.4) / 8.0) ** 2)
    frames = np.tile(np.round(streak).astype(np.uint8), (CHUNK, 24, 1))
    data_id = await client.create()
    stamps = {"start_unix_ms_utc": str(START_MS), "end_unix_ms_utc": str(START_MS + 33)}
    assert (await client.send(data_id, 0, frames, **stamps))[0] == 200
    box = {"type": "box", "name": "b", "x": 32, "y": 12, "width": 41, "height": 3}
    assert (await client.ask("PUT", f"/rheed/stream/{data_id}/regions", {"regions": [box]}))[0] == 200
    status, found = await client.ask("GET", f"/dashboard/streams/{data_id}/profile?line=b")
    assert (status, found["frames"]) == (200, CHUNK)
    np.testing.assert_allclose(found["values"], frames[0, 12, 12:53], rtol=1e-3)
    (peak,) = found["peaks"]
    assert peak["centre"] == pytest.approx(31.4 - 12, abs=0.1)
    assert peak["fwhm"] == pytest.approx(8.0, rel=0.03)
    assert len(peak["curve"]) <= 41 - peak["first"]
    assert (await client.ask("GET", f"/dashboard/streams/{data_id}/profile?line=c"))[0] == 404


async def test_missing_frames_are_not_on_the_axis(client: WireClient) -> None:
    """Missing frames have no time; missing values are null."""
    data_id, _ = await send_chunks(client, [0, 3])
    _, got = await client.ask("GET", f"/dashboard/streams/{data_id}/series?name=nothing_yet&points=4000")
    assert got["n_frames"] == 16
    assert len(got["t"]) == 8
    assert got["series"]["nothing_yet"]["mean"] == [None] * 8


async def test_a_stream_without_frames(client: WireClient) -> None:
    """Before the first chunk all replies are empty, and nothing fails."""
    data_id = await client.create()
    status, got = await client.ask("GET", f"/dashboard/streams/{data_id}/series?name=specular_intensity")
    assert (status, got["t"], got["end_s"]) == (200, [], None)
    assert (await client.ask("GET", f"/dashboard/streams/{data_id}/picture"))[0] == 404
    status, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
    assert (status, info["n_frames"], info["throughput"]) == (200, 0, None)


@pytest.mark.parametrize(
    "query",
    [
        "name=../time",
        "name=a%00",
        f"name={'x' * 99}",
        "points=1e9",
        "points=nan",
        "from=x",
        "last=-1",
        "name=A",
        "&".join(f"name=n{k}" for k in range(73)),
    ],
)
async def test_invalid_queries_are_refused(client: WireClient, query: str) -> None:
    """An invalid query gets a 400 with the reason."""
    data_id = await client.create()
    status, reply = await client.ask("GET", f"/dashboard/streams/{data_id}/series?{query}")
    assert status == 400
    assert reply["detail"]


async def test_unknown_streams(client: WireClient) -> None:
    """Each request about an unknown stream gets a 404."""
    for what in ("", "/series", "/spectrum", "/profile", "/picture", "/pictures"):
        status, _ = await client.ask("GET", f"/dashboard/streams/00000000-0000-4000-8000-000000000000{what}")
        assert status == 404


async def test_the_image_of_a_past_time(client: WireClient) -> None:
    """The image is the stored frame nearest to the requested time, equal in each pixel."""
    data_id, frames = await send_chunks(client, [0, 1, 2])
    url = f"{client.server.url}/dashboard/streams/{data_id}/picture"
    async with client.session.get(url, params={"time": str(5 / FPS)}) as reply:
        body = await reply.read()
    time_s, frame, width, height, *_ = PICTURE_HEADER.unpack(body[: PICTURE_HEADER.size])
    assert frame == 5
    assert time_s == pytest.approx(5 / FPS, abs=2e-3)
    np.testing.assert_array_equal(
        np.frombuffer(body[PICTURE_HEADER.size :], np.uint8).reshape(height, width), frames[1]
    )


async def test_images_are_sent_on_request(client: WireClient) -> None:
    """Each request is answered by one image; a new frame is sent without requesting its number."""
    data_id, _ = await send_chunks(client, [0])
    url = f"{client.server.url}/dashboard/streams/{data_id}/pictures"
    async with client.session.ws_connect(url, origin=client.server.url) as socket:
        await socket.send_str("{}")
        first = PICTURE_HEADER.unpack((await socket.receive_bytes())[: PICTURE_HEADER.size])[1]
        await socket.send_str("{}")
        status, _ = await client.send(data_id, 1, make_frames(CHUNK, seed=2))
        assert status == 200
        second = PICTURE_HEADER.unpack((await socket.receive_bytes())[: PICTURE_HEADER.size])[1]
    assert first == 3
    assert second > first


@pytest.mark.parametrize(
    "text", ["", "[]", '{"angle_deg": "x"}', '{"angle_deg": 1e9}', "[" * 4000, "x" * 5000]
)
async def test_odd_messages_close_the_socket(client: WireClient, text: str) -> None:
    """An invalid message closes the connection, and the server continues."""
    data_id, _ = await send_chunks(client, [0])
    url = f"{client.server.url}/dashboard/streams/{data_id}/pictures"
    async with client.session.ws_connect(url, origin=client.server.url) as socket:
        await socket.send_str(text)
        message = await socket.receive()
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert (await client.ask("GET", "/health"))[0] == 200


async def test_the_server_stops_with_subscribers(client: WireClient, server: LiveServer) -> None:
    """A connected browser does not delay the stop: its connection is closed with the status "going away"."""
    data_id, _ = await send_chunks(client, [0])
    url = f"{client.server.url}/dashboard/streams/{data_id}/pictures"
    async with client.session.ws_connect(url, origin=client.server.url) as socket:
        await socket.send_str("{}")
        await socket.receive_bytes()
        await socket.send_str("{}")
        await server.stop()
        assert (await socket.receive()).data == aiohttp.WSCloseCode.GOING_AWAY


async def test_facts_about_a_stream(client: WireClient) -> None:
    """The facts on the page: chunks stored and missing, the clock's correction, the path of the archive."""
    data_id = await client.create("A <b>name</b>")
    for index in (0, 2):
        await client.send(
            data_id, index, make_frames(CHUNK), clock_offset_ms="12", clock_uncertainty_ms="0.5"
        )
    _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
    assert info["name"] == "A <b>name</b>"
    assert (info["chunks_stored"], info["chunks_missing"], info["missing"]) == (2, 1, ["1"])
    assert (info["frames_stored"], info["n_frames"]) == (8, 12)
    assert (info["throughput"]["clock_offset_ms"], info["throughput"]["clock_uncertainty_ms"]) == (12.0, 0.5)
    assert info["throughput"]["late_s"] > 0
    assert json.loads((Path(info["zarr_path"]) / "zarr.json").read_bytes())["node_type"] == "group"
