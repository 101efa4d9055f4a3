"""What a request costs follows what it sends and what is stored, not the numbers that it states."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import numpy as np
import pytest

from atomstream.protocol import PICTURE_HEADER
from atomstream.server.app import ROUTES
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.http.read_pools import ReadPool
from atomstream.server.http.responses import HttpError
from atomstream.shard import pack_index
from atomstream.shard.format import ABSENT
from tests.live_helpers import growth
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames, raw_connection, request_head

FAR, SIZE = 10_000_000, 100_000


async def send_far_apart(client: WireClient) -> str:
    """A stream with one frame at either end of 10^12 frame numbers."""
    data_id = await client.create(fps_capture_rate=10.0)
    for index in (0, FAR):
        status, _ = await client.send(data_id, index, make_frames(1, seed=index), SIZE)
        assert status == 200
    return data_id


async def test_a_far_chunk_makes_no_request_long(serve: Serve) -> None:
    """Series, pictures and tables of a stream with a huge gap have what is stored, and are short."""
    async with WireClient(await serve()) as client:
        data_id = await send_far_apart(client)
        _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
        assert (info["frames_stored"], info["n_frames"]) == (2, FAR * SIZE + 1)
        assert (await client.ask("GET", f"/rheed/timeseries/{data_id}/"))[0] == 200
        _, series = await client.ask("GET", f"/dashboard/streams/{data_id}/series?name=time")
        assert len([t for t in series["t"] if t is not None]) == 2
        assert series["from_frame"] == 0
        assert series["to_frame"] == FAR * SIZE + 1
        for query, frame in (("", (1 << 32) - 1), ("?time=0", 0)):
            async with client.session.get(
                f"{client.server.url}/dashboard/streams/{data_id}/picture{query}"
            ) as reply:
                assert PICTURE_HEADER.unpack((await reply.read())[: PICTURE_HEADER.size])[1] == frame
        async with client.session.get(
            f"{client.server.url}/rheed/stream/{data_id}/export", params={"to": "csv"}
        ) as reply:
            rows = (await reply.text()).splitlines()[1:]
        assert [row.split(",")[0] for row in rows] == ["0", str(FAR * SIZE)]


async def test_the_series_has_all_stored_frames_of_a_gapped_stream(serve: Serve) -> None:
    """Points are chosen among the stored frames, and ``last_n`` counts these."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=30.0)
        frames = growth(30)
        for index in (0, 50_000):
            await client.send(data_id, index, frames[:15], 15)
        await client.end(data_id)
        while (await client.ask("GET", f"/rheed/stream/{data_id}/analysis"))[1]["status"] != "ended":
            await asyncio.sleep(0.02)
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/")
        numbers = [point["frame_number"] for point in reply["series_by_angle"][0]["series"]]
        assert numbers == [*range(15), *range(750_000, 750_015)]
        _, reply = await client.ask("GET", f"/rheed/timeseries/{data_id}/", params={"last_n": "16"})
        numbers = [point["frame_number"] for point in reply["series_by_angle"][0]["series"]]
        assert numbers == [14, *range(750_000, 750_015)]


async def test_a_short_chunk_makes_no_large_files(serve: Serve) -> None:
    """One frame of a chunk of 100,000 takes the chunk's index and one file of each column on disk."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await send_far_apart(client)
        await client.end(data_id)
        files = [path for path in server.folder(data_id).glob("frames.zarr/time/c/*") if path.is_file()]
        assert len(files) == 2


async def test_large_frames_are_refused_when_they_are_announced(serve: Serve) -> None:
    """A shape above ``max_frame_bytes`` is answered with 413 with the limit, before any body is sent."""
    async with WireClient(await serve(max_frame_bytes=1000)) as client:
        data_id = await client.create()
        assert (await client.ask_url(data_id, 0, (1, 10, 100)))[0] == 200
        for dims, dtype in (((1, 10, 101), "uint8"), ((1, 10, 51), "uint16"), ((1, 32768, 32767), "uint8")):
            status, reply = await client.ask_url(data_id, 0, dims, dtype=dtype)
            assert status == 413
            assert "1000" in reply["detail"]


async def test_absent_frames_are_analysed(serve: Serve) -> None:
    """A body that is an index without frames is a chunk of black frames; it reserves no memory for them."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        url = await client.url(data_id, 0, (2, 640, 640))
        status, _, _ = await client.put(url, pack_index(index_of([(ABSENT, ABSENT)] * 2)))
        assert status == 200
        shared = server.context.results._frames
        assert shared._total == 0
        await client.end(data_id)
        while (await client.ask("GET", f"/rheed/stream/{data_id}/analysis"))[1]["status"] != "ended":
            await asyncio.sleep(0.02)
        assert (await client.ask("GET", f"/rheed/stream/{data_id}/analysis"))[1]["frames_analysed"] == 2


def index_of(entries: list[tuple[int, int]]) -> Any:
    """A shard's index with these entries."""
    return np.array(entries, dtype=np.uint64)


async def test_head_has_no_body(serve: Serve) -> None:
    """The reply to HEAD has no body, so the reply to the next request of the connection follows it at once."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
    parts = {"{data_id}": data_id, "{n}": "0", "{path:.+}": "js/api.js"}
    for path in sorted({route.path for route in ROUTES if route.method == "GET"}):
        for name, value in parts.items():
            path = path.replace(name, value)
        async with raw_connection(server.url) as (reader, writer):
            writer.write(request_head("HEAD", server.url + path, server.headers))
            writer.write(request_head("GET", f"{server.url}/health", {"Connection": "close"}))
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        assert head.split()[1] in {b"200", b"400", b"404", b"405"}, path
        assert b"Transfer-Encoding" not in head
        assert rest.startswith(b"HTTP/1.1 200 OK\r\n"), path


async def test_refused_methods_are_framed(serve: Serve) -> None:
    """The reply to a method that a path does not support has exactly its body, so the next reply follows it."""
    server = await serve()
    for method in ("OPTIONS", "TRACE", "DELETE", "PATCH", "PROPFIND", "PUT", "POST"):
        async with raw_connection(server.url) as (reader, writer):
            head = {**server.headers, "Content-Length": "0"}
            writer.write(request_head(method, f"{server.url}/health", head))
            writer.write(request_head("GET", f"{server.url}/health", {"Connection": "close"}))
            first, _, rest = (await reader.read()).partition(b"\r\n\r\n")
        length = int(
            next(line.split()[1] for line in first.splitlines() if line.startswith(b"Content-Length"))
        )
        assert first.split()[1] == b"405", method
        assert rest[length:].startswith(b"HTTP/1.1 200 OK\r\n"), method


async def test_one_class_of_requests_does_not_delay_another(serve: Serve) -> None:
    """With all threads for series in use, other requests are answered; work ends when its client disconnects."""
    server = await serve(read_threads=1, max_waiting_reads=2)
    series: ReadPool = server.context.readers.series
    started, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> None:
        loop.call_soon_threadsafe(started.set)
        try:
            while True:
                check_wanted()
        finally:
            loop.call_soon_threadsafe(ended.set)

    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
        transport = FakeTransport()
        work = asyncio.create_task(series.run(FakeRequest(transport), endless))  # type: ignore[arg-type]
        await started.wait()
        for path in ("", "/picture"):
            async with client.session.get(f"{client.server.url}/dashboard/streams/{data_id}{path}") as reply:
                assert reply.status == 200
        waiting = asyncio.create_task(series.run(FakeRequest(FakeTransport()), lambda: 7))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert (await client.ask("GET", f"/dashboard/streams/{data_id}/series?name=time"))[0] == 503
        transport.closing = True
        with pytest.raises(HttpError, match="disconnected"):
            await work
        await ended.wait()
        assert await waiting == 7


class FakeTransport:
    """A transport that closes when the test wants it."""

    closing = False

    def is_closing(self) -> bool:
        return self.closing


class FakeRequest:
    """A request of which only the transport is used."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport


async def test_unknown_streams_leave_nothing(serve: Serve) -> None:
    """Requests about streams that do not exist leave neither locks nor anything else."""
    server = await serve()
    context = server.context
    async with WireClient(server) as client:
        for k in range(5):
            for what in ("chunks", "analysis"):
                path = f"/rheed/stream/00000000-0000-4000-8000-00000000000{k}/{what}"
                assert (await client.ask("GET", path))[0] == 404
    assert len(context.results._locks) == 0
    assert len(context.streams._locks) == 0


async def test_the_body_of_a_login_is_short(serve: Serve) -> None:
    """A login longer than any key is answered with 400 without waiting for its body."""
    server = await serve(linger_s=0.05)
    head = {"Origin": server.url, "Content-Type": "application/json", "Content-Length": str(1 << 20)}
    async with raw_connection(server.url) as (reader, writer):
        writer.write(request_head("POST", f"{server.url}/session", head) + b'{"key":"')
        assert (await reader.readline()).split()[1] == b"400"


async def test_the_sockets_of_a_session_end_with_it(serve: Serve) -> None:
    """A logout closes the feeds that the session has opened, and no other ones."""
    server = await serve()
    own = {"Origin": server.url}
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
        jar = aiohttp.CookieJar(unsafe=True)
        path = f"/rheed/stream/{data_id}/feed"
        async with aiohttp.ClientSession(server.url, headers=own, cookie_jar=jar) as browser:
            async with browser.post("/session", json={"key": server.api_key}) as reply:
                assert reply.status == 204
            async with (
                browser.ws_connect(path, origin=server.url) as feed,
                client.session.ws_connect(server.url + path) as other,
            ):
                await feed.receive()
                await other.receive()
                async with browser.delete("/session") as reply:
                    assert reply.status == 204
                while (message := await feed.receive()).type is not aiohttp.WSMsgType.CLOSE:
                    assert message.type is not aiohttp.WSMsgType.CLOSED
                assert message.data == aiohttp.WSCloseCode.POLICY_VIOLATION
                assert not other.closed


async def test_many_lost_ranges_are_refused(serve: Serve) -> None:
    """The list of lost chunks of a stream is bounded in ranges; what it has is not changed by a refusal."""
    server: LiveServer = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        assert (await client.end(data_id, **{"Atomstream-Lost": "1-99999"}))[0] == 200
        status, _ = await client.end(data_id, **{"Atomstream-Lost": "200000-200002"})
        assert status == 400
        archive = await server.context.streams.archive(data_id)
        assert archive.about["lost"] == "1-99999"
