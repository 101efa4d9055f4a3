"""The streamer with its spool: outages, crashes and restarts lose nothing (P5, P10-P14, P20)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import (
    ChunkConflictError,
    DrainTimeoutError,
    SpoolLockedError,
    StreamFinalizedError,
    UnknownStreamError,
)
from atomstream.records import Frames
from tests.live_server import LiveServer

Serve = Callable[..., Awaitable[LiveServer]]


def frames(seed: int, n: int = 4) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 20), dtype=np.uint8)


def streamer(server: LiveServer, spool: Path, **settings: Any) -> AsyncRHEEDStreamer:
    return AsyncRHEEDStreamer(
        server.api_key, server.url, None, spool, spool_min_free_bytes=0, clock_sync=False, **settings
    )


async def begin(made: AsyncRHEEDStreamer) -> str:
    with pytest.warns(UserWarning, match="chunk_size"):
        return await made.initialize(120.0, 0.0, 4)


async def on_disk(made: AsyncRHEEDStreamer, data_id: str) -> None:
    """Wait until all chunks of the stream are on disk or delivered."""
    while (await made.stats())["streams"][data_id]["chunks_in_memory_only"]:
        await asyncio.sleep(0.01)


async def empty(made: AsyncRHEEDStreamer) -> None:
    """Wait until everything in the spool is delivered."""
    while (await made.spool_status())["chunks_pending"]:
        await asyncio.sleep(0.01)


async def test_a_finalized_stream_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    """Once finalized, nothing of a stream is left in the spool."""
    server = await serve()
    async with streamer(server, tmp_path) as made:
        data_id = await begin(made)
        for k in range(5):
            await made.push(data_id, k, frames(k))
        await made.finalize(data_id)
        assert (await made.spool_status())["streams"] == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "root.lock"]


async def test_the_next_streamer_delivers_what_an_earlier_one_left(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A streamer closed during an outage leaves its chunks on disk; the next one delivers them and logs it."""
    server = await serve()
    async with streamer(server, tmp_path) as made:
        data_id = await begin(made)
        await made.push(data_id, 0, frames(0))
        await made.flush(data_id)
        await server.stop()
        for k in (1, 2):
            await made.push(data_id, k, frames(k))
    await server.start()
    async with streamer(server, tmp_path) as later:
        await empty(later)
    archive = server.archive(data_id)
    np.testing.assert_array_equal(archive.frames(0, 12), np.concatenate([frames(k) for k in range(3)]))
    assert "was left by an earlier process: 2 chunks are being uploaded" in caplog.text


async def test_a_stream_that_was_being_finalized_is_ended(serve: Serve, tmp_path: Path) -> None:
    """If a process ends during finalize, the next streamer delivers the chunks and ends the stream (P20)."""
    server = await serve()
    async with streamer(server, tmp_path) as made:
        data_id = await begin(made)
        await server.stop()
        await made.push(data_id, 0, frames(0))
        with pytest.raises(DrainTimeoutError, match="1 chunk is not yet stored") as caught:
            await made.finalize(data_id, drain_timeout_s=0.05)
        assert caught.value.report["chunks_pending"] == 1
    await server.start()
    async with streamer(server, tmp_path) as later:
        while (await later.spool_status())["streams"]:
            await asyncio.sleep(0.01)
    assert server.archive(data_id).about["status"] in {"stream_finalizing", "success"}
    assert server.archive(data_id).n_frames() == 4


async def test_a_stream_goes_on_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    """resume returns the next index and has the earlier chunks; the stream is complete at the end."""
    server = await serve()
    async with streamer(server, tmp_path) as made:
        data_id = await begin(made)
        await server.stop()
        for k in range(3):
            await made.push(data_id, k, frames(k))
    await server.start()
    async with streamer(server, tmp_path) as later:
        assert await later.resume(data_id) == 3
        await later.push(data_id, 2, frames(2))
        with pytest.raises(ChunkConflictError):
            await later.push(data_id, 1, frames(9))
        await later.run(data_id, [frames(3), frames(4)])
        report = await later.finalize(data_id)
    assert report["chunks_uploaded"] == report["chunks_spooled"] == 5
    archive = server.archive(data_id)
    np.testing.assert_array_equal(archive.frames(0, 20), np.concatenate([frames(k) for k in range(5)]))


async def test_only_what_is_there_can_be_resumed(serve: Serve, tmp_path: Path) -> None:
    """To resume an unknown or a finalized stream raises its own type of error."""
    server = await serve()
    async with streamer(server, tmp_path) as made:
        data_id = await begin(made)
        await server.stop()
        await made.push(data_id, 0, frames(0))
        with pytest.raises(DrainTimeoutError):
            await made.finalize(data_id, drain_timeout_s=0.0)
    async with streamer(server, tmp_path) as later:
        with pytest.raises(UnknownStreamError, match="can't be resumed"):
            await later.resume("no-such-stream")
        with pytest.raises(StreamFinalizedError, match="finalized before"):
            await later.resume(data_id)
    await server.start()


async def test_one_streamer_owns_a_stream(serve: Serve, tmp_path: Path) -> None:
    """A second streamer on the same spool does not touch an open stream and can't resume it (P14)."""
    server = await serve()
    async with streamer(server, tmp_path) as first, streamer(server, tmp_path) as second:
        data_id = await begin(first)
        await first.push(data_id, 0, frames(0))
        with pytest.raises(SpoolLockedError, match="holds the spool"):
            await second.resume(data_id)
        report = await first.finalize(data_id)
    assert report["chunks_uploaded"] == 1


async def test_disk_durability_returns_when_it_is_on_disk(serve: Serve, tmp_path: Path) -> None:
    """With durability="disk" and no server, push returns when the record is synced to disk (P10)."""
    server = await serve()
    async with streamer(server, tmp_path, durability="disk") as made:
        data_id = await begin(made)
        await server.stop()
        await made.push(data_id, 0, frames(0))
        assert (await made.stats())["streams"][data_id]["chunks_in_memory_only"] == 0
        assert len(list(tmp_path.rglob("*.rec"))) == 1
    await server.start()


async def test_an_outage_fills_the_disk_not_the_memory(serve: Serve, tmp_path: Path) -> None:
    """Without the server, push accepts far more than buffer_bytes, and all of it arrives later (P7)."""
    server = await serve()
    async with streamer(server, tmp_path, buffer_bytes=20_000) as made:
        data_id = await begin(made)
        await server.stop()
        for k in range(60):
            await made.push(data_id, k, frames(k))
        assert (await made.stats())["buffer_bytes_used"] <= 20_000
        await server.start()
        report = await made.finalize(data_id)
    assert report["chunks_uploaded"] == 60
    archive = server.archive(data_id)
    np.testing.assert_array_equal(archive.frames(0, 240), np.concatenate([frames(k) for k in range(60)]))


async def test_a_spool_that_can_not_be_made_ends_nothing(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If the spool folder can't be made, the stream continues in memory, with a warning (P13)."""
    server = await serve()
    (tmp_path / "file").write_text("not a folder")
    async with streamer(server, tmp_path / "file" / "spool") as made:
        data_id = await begin(made)
        await made.push(data_id, 0, frames(0))
        report = await made.finalize(data_id)
        assert (await made.spool_status())["chunks_pending"] == 0
    assert report["chunks_uploaded"] == 1
    assert "Frames are kept in memory only" in caplog.text


async def test_a_full_spool_makes_push_wait(serve: Serve, tmp_path: Path) -> None:
    """With disk and memory full, push waits; nothing is dropped, and all arrives when the server is back."""
    server = await serve()
    async with streamer(server, tmp_path, buffer_bytes=30_000, spool_max_bytes=5_000) as made:
        data_id = await begin(made)
        await server.stop()
        pushing = asyncio.create_task(_push_all(made, data_id, 40))
        while not (await made.stats())["pushes_waiting"]:
            await asyncio.sleep(0.01)
        assert not pushing.done()
        await server.start()
        await pushing
        report = await made.finalize(data_id)
    assert report["chunks_uploaded"] == 40
    assert report["lost"] == []


async def _push_all(made: AsyncRHEEDStreamer, data_id: str, count: int) -> None:
    for k in range(count):
        await made.push(data_id, k, frames(k))
