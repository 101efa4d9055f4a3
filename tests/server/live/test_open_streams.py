"""Streams that nobody ended: they hold no files, and their analysis continues when a chunk or a request comes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from atomstream.server.live import manager
from atomstream.server.live.stream_results import StreamResults
from tests.live_helpers import FPS, growth
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames

CHUNK = 15


def open_files(folder: Path) -> list[str]:
    """The open files of this process in ``folder``."""
    found = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(handle)
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


async def analysed(client: WireClient, data_id: str, frames: int) -> None:
    """Wait until ``frames`` frames have results."""
    while (await client.ask("GET", f"/rheed/stream/{data_id}/analysis"))[1]["frames_analysed"] < frames:
        await asyncio.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
async def test_a_created_stream_holds_no_file(serve: Serve) -> None:
    """A stream that was created and gets no chunk opens nothing."""
    server = await serve()
    async with WireClient(server) as client:
        created = [await client.create() for _ in range(20)]
        assert open_files(server.data_dir / "streams") == []
        for data_id in created[:2]:
            await client.send(data_id, 0, make_frames(4))
        logs = {path for path in open_files(server.data_dir / "streams") if path.endswith(".log")}
        assert len(logs) == 2 * 2


async def test_an_analysis_continues_after_it_was_closed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream closed for others continues with its next chunk: each frame has results once, as without the pause."""
    monkeypatch.setattr(manager, "REST_S", 0.0)
    monkeypatch.setattr(manager, "MAX_IDLE", 0)
    monkeypatch.setattr(manager, "IDLE_S", 0.0)
    server = await serve()
    frames = growth(4 * CHUNK)
    async with WireClient(server) as client:
        first, other = await client.create(fps_capture_rate=FPS), await client.create(fps_capture_rate=FPS)
        for k in range(4):
            for data_id in (first, other):
                await client.send(data_id, k, frames[k * CHUNK : (k + 1) * CHUNK], CHUNK)
                await analysed(client, data_id, (k + 1) * CHUNK)
            await closed(server, first)
        for data_id in (first, other):
            await client.end(data_id)
        await analysed(client, first, 4 * CHUNK)
        results = await server.context.results.of(first)
        batches = [results._store.message(seq) for seq in range(1, results.seq + 1)]
    starts = [(batch.start, batch.count) for batch in batches if getattr(batch, "count", 0)]
    assert sum(count for _, count in starts) == 4 * CHUNK
    assert [start for start, _ in starts] == sorted({start for start, _ in starts})


async def closed(server: LiveServer, data_id: str) -> None:
    """Wait until the results of a stream are closed."""
    results = server.context.results
    while data_id in results._open:
        await results._close_idle()
        await asyncio.sleep(0.01)


async def test_too_many_streams_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the bound a request is answered with 503; uploads are stored, and analysed when there is room."""
    monkeypatch.setattr(manager, "REST_S", 1e9)
    monkeypatch.setattr(manager, "WAIT_S", 0.05)
    server = await serve(max_open_streams=1)
    async with WireClient(server) as client:
        first, second = await client.create(fps_capture_rate=FPS), await client.create(fps_capture_rate=FPS)
        for data_id in (first, second):
            assert (await client.send(data_id, 0, growth(CHUNK), CHUNK))[0] == 200
        assert (await client.ask("GET", f"/rheed/stream/{second}/analysis"))[0] == 503
        await analysed(client, first, CHUNK)
        monkeypatch.setattr(manager, "REST_S", 0.0)
        await analysed_soon(client, second, CHUNK)


async def test_readers_keep_no_stream_from_being_analysed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Feeds of streams that nobody ends take most places and not all. A new chunk gets a place, in the end that of a
    stream that is only read; its readers are told to connect again.
    """
    monkeypatch.setattr(manager, "REST_S", 0.0)
    server = await serve(max_open_streams=4)
    results = server.context.results
    async with WireClient(server) as client:
        read, unread = [await client.create() for _ in range(3)], await client.create()
        feeds = [
            await client.session.ws_connect(f"{server.url}/rheed/stream/{data_id}/feed") for data_id in read
        ]
        for feed in feeds:
            await feed.receive()
        assert (await client.ask("GET", f"/rheed/stream/{unread}/analysis"))[0] == 503
        monkeypatch.setattr(StreamResults, "is_over", False)  # what is analysed is in use
        monkeypatch.setattr(StreamResults, "is_idle", property(lambda one: one.followers > 0))
        for _ in range(2):
            running = await client.create()
            assert (await client.send(running, 0, make_frames(4)))[0] == 200
            while results.opened(running) is None:
                await asyncio.sleep(0.01)
        async for _ in feeds[0]:
            pass
        assert feeds[0].close_code == 1001
        assert not feeds[2].closed
        monkeypatch.undo()
        for feed in feeds:
            await feed.close()


async def test_a_start_opens_no_idle_stream(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose analysis waited for its next chunk when it was closed is opened by that chunk, or by a request."""
    monkeypatch.setattr(manager, "REST_S", 0.0)
    monkeypatch.setattr(manager, "MAX_IDLE", 0)
    monkeypatch.setattr(manager, "IDLE_S", 0.0)
    server = await serve()
    async with WireClient(server) as client:
        first, other = await client.create(fps_capture_rate=FPS), await client.create(fps_capture_rate=FPS)
        for data_id in (first, other):
            await client.send(data_id, 0, growth(CHUNK), CHUNK)
            await analysed(client, data_id, CHUNK)
        await closed(server, first)
        chunks = server.folder(other) / "frames.zarr" / "frames" / "c"
        await closed(server, other)
        await server.stop()
        assert manager._unfinished(server.data_dir / "streams") == []
        os.utime(chunks)  # a chunk was stored, and the server was killed before its analysis was opened
        assert manager._unfinished(server.data_dir / "streams") == [other]
        await server.start()
    async with WireClient(server) as client:
        await client.send(first, 1, growth(2 * CHUNK)[CHUNK:], CHUNK)
        await analysed(client, first, 2 * CHUNK)


async def analysed_soon(client: WireClient, data_id: str, frames: int) -> None:
    """Wait until ``frames`` frames have results; the stream may have to wait for room."""
    while True:
        status, reply = await client.ask("GET", f"/rheed/stream/{data_id}/analysis")
        if status == 200 and reply["frames_analysed"] >= frames:
            return
        await asyncio.sleep(0.02)
