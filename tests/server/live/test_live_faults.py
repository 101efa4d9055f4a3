"""Crashes, restarts, damage, gaps: results are neither duplicated nor lost, and missing chunks are reported."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest

from atomstream.server.live.manager import ResultsManager
from tests.live_helpers import (
    CHUNK,
    FPS,
    analysed,
    analysis_status,
    batches,
    batches_until,
    column,
    feed,
    follow,
    frame_numbers,
    growth,
    next_message,
    rate_of,
    send_chunks,
    with_a_damaged_chunk,
)
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient

NAMES = ("specular_intensity", "lattice_spacing", "growth_rate_ml_s")


def workers() -> list[psutil.Process]:
    """The worker processes of this process."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "atomstream.server.live.worker" in child.cmdline()]


_undisturbed: list[dict[str, Any]] = []


async def undisturbed(serve: Serve) -> list[dict[str, Any]]:
    """The batches of the growth without faults; they are the same in all tests, so they are computed once."""
    if not _undisturbed:
        async with WireClient(await serve()) as client:
            data_id = await client.create(fps_capture_rate=FPS)
            _undisturbed.extend(batches(await analysed(client, data_id, growth())))
    return _undisturbed


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal results, frame by frame, each once."""
    assert frame_numbers(found) == frame_numbers(expected)
    for name in NAMES:
        np.testing.assert_array_equal(column(found, name), column(expected, name), err_msg=name)


async def stopped(server: LiveServer, socket: aiohttp.ClientWebSocketResponse) -> None:
    """Stop the server while a subscriber reads its feed to the end."""
    stop = asyncio.create_task(server.stop())
    async for _ in socket:
        pass
    assert socket.close_code == 1001
    await stop


def stored(server: LiveServer, data_id: str, name: str) -> np.ndarray[Any, Any]:
    """The values of a column of the archive."""
    archive = server.archive(data_id)
    return archive.results.read([name], 0, archive.n_frames())[name]


async def test_a_request_before_the_analyses_are_resumed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A started server may answer a subscriber before it has resumed all analyses: the feed does not end early."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0])
            await batches_until(socket, CHUNK)
            await stopped(server, socket)
        monkeypatch.setattr(ResultsManager, "resume", _not_yet)
        await server.start()
        async with feed(client, data_id) as socket:
            assert (await next_message(socket, "hello"))["status"] == "running"
            await send_chunks(client, data_id, growth(), [1])
            await batches_until(socket, 2 * CHUNK)
        await client.end(data_id)
        found = await follow(client, data_id)
    assert frame_numbers(batches(found)) == list(range(2 * CHUNK))
    assert [message["type"] for message in found].count("missing") == 0


async def _not_yet(_manager: ResultsManager) -> None:
    pass


@pytest.mark.slow
async def test_restart_in_the_middle(serve: Serve) -> None:
    """A server that restarts during a stream continues: consecutive numbers, no frame twice, none missing."""
    expected = await undisturbed(serve)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            before = await batches_until(socket, CHUNK + 15)
            await stopped(server, socket)
    await server.start()
    async with WireClient(server) as client:
        following = asyncio.create_task(follow(client, data_id, after=before[-1]["seq"]))
        await send_chunks(client, data_id, growth(), [2, 3])
        await client.end(data_id)
        rest = batches(await following)
    assert rest[0]["seq"] == before[-1]["seq"] + 1
    assert_same(before + rest, expected)
    np.testing.assert_array_equal(stored(server, data_id, NAMES[0]), column(expected, NAMES[0]))


@pytest.mark.slow
async def test_deleted_shared_memory_loses_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Frames in shared memory that are deleted under a running server lose no result: the archive has them too."""
    expected = await undisturbed(serve)
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr("atomstream.server.live.shared_frames._MEMORY", place)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1, 2])
            before = await batches_until(socket, 2 * CHUNK + 15)
            (folder,) = place.iterdir()
            assert len(list(folder.iterdir())) > 1  # its lock file, and frames
            while folder.exists():  # a thread may be creating another file there
                shutil.rmtree(folder, ignore_errors=True)
            await send_chunks(client, data_id, growth(), [3])
            await client.end(data_id)
            rest = await batches_until(socket, len(growth()))
        assert_same(before + rest, expected)


@pytest.mark.slow
async def test_restart_as_another_version(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that another version began to analyse is analysed from its beginning, with one result per frame."""
    expected = await undisturbed(serve)
    monkeypatch.setattr("atomstream.server.live.live_analysis.SNAPSHOT_S", 0.0)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1])
            await batches_until(socket, CHUNK + 15)
            await stopped(server, socket)
    monkeypatch.setattr("atomstream.server.live.result_store.SNAPSHOT_VERSION", "another version")
    await server.start()
    async with WireClient(server) as client:
        following = asyncio.create_task(follow(client, data_id))
        await send_chunks(client, data_id, growth(), [2, 3])
        await client.end(data_id)
        assert_same(batches(await following), expected)
    assert "begun by another version" in caplog.text


@pytest.mark.slow
async def test_killed_worker(serve: Serve) -> None:
    """A worker killed during a stream costs only the time to repeat its last seconds."""
    expected = await undisturbed(serve)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0])
            found = await batches_until(socket, CHUNK)
            for worker in workers():
                worker.kill()
            await send_chunks(client, data_id, growth(), [1, 2, 3])
            await client.end(data_id)
            found += await batches_until(socket, 4 * CHUNK)
            found.append(await next_message(socket, "batch"))
    assert_same(found, expected)


async def test_damaged_shard_is_skipped(serve: Serve) -> None:
    """A stored shard that cannot be read is reported as a gap, and the analysis continues after it."""
    _, _, messages = await with_a_damaged_chunk(serve)
    found = batches(messages)
    assert frame_numbers(found) == [*range(CHUNK), *range(2 * CHUNK, 3 * CHUNK)]
    gaps = [event for batch in found for event in batch["events"] if event["kind"] == "gap"]
    assert [gap["value"] for gap in gaps] == [CHUNK]


async def test_missing_chunk_and_its_late_arrival(serve: Serve) -> None:
    """A missing chunk is skipped after the wait; when it arrives, it is filled in, and the end repeats the fit."""
    server = await serve(gap_wait_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 2])
            found = await batches_until(socket, 3 * CHUNK)
            assert frame_numbers(found) == [*range(CHUNK), *range(2 * CHUNK, 3 * CHUNK)]
            await send_chunks(client, data_id, growth(), [1, 3])
            await client.end(data_id)
            rest = [await next_message(socket, "batch")]
            while not rest[-1].get("reanalysis"):
                rest.append(await next_message(socket, "batch"))
            await next_message(socket, "end")
    assert not any(event["kind"] == "gap" for event in rest[-1]["events"])
    whole_stream = await undisturbed(serve)
    np.testing.assert_array_equal(stored(server, data_id, NAMES[0]), column(whole_stream, NAMES[0]))
    assert rate_of(rest[-1]) == rate_of(whole_stream[-1])


@pytest.mark.slow
async def test_reanalysis_on_request(serve: Serve) -> None:
    """A finished stream is analysed again on request: the same results, one more final batch, consecutive numbers."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        assert (await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse"))[0] == 409
        first = await analysed(client, data_id, growth(120))
        before = stored(server, data_id, NAMES[0])
        status, analysis = await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse")
        assert (status, analysis["status"]) == (202, "running")
        assert (await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse"))[0] == 409
        messages = await follow(client, data_id, after=first[-1]["seq"])
    (final,) = batches(messages)
    assert final["count"] == 0
    assert final["final"]
    assert rate_of(final) == rate_of(batches(first)[-1])
    np.testing.assert_array_equal(stored(server, data_id, NAMES[0]), before)


@pytest.mark.slow
async def test_chunk_after_the_end(serve: Serve) -> None:
    """A chunk that arrives after the end starts a reanalysis that includes it."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(), indices=[0, 1])
        await send_chunks(client, data_id, growth(), [2])
        messages = await follow(client, data_id, after=first[-1]["seq"])
    assert batches(messages)[-1]["start"] == 3 * CHUNK
    assert np.isfinite(stored(server, data_id, NAMES[0])).all()


async def test_restart_after_the_end(serve: Serve) -> None:
    """After a restart, subscribers of a finished stream receive the same messages again, and nothing is reanalysed."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        before = await analysed(client, data_id, growth(120))
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        after = await follow(client, data_id)
        analysis = await analysis_status(client, data_id)
    assert [m["seq"] for m in after[1:]] == [m["seq"] for m in before[1:]]
    assert column(batches(after), NAMES[0]).tolist() == column(batches(before), NAMES[0]).tolist()
    assert analysis["status"] == "ended"
    assert not workers()
