"""A stream is resumed when the last chunk of an earlier process has just been delivered."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.service.clock import ReferenceClock
from tests.faults.fault_helpers import FPS, Film
from tests.live_server import LiveServer, Serve

FILM = Film(3, height=4, width=5)


def streamer(server: LiveServer, spool: Path, *, clock_sync: bool) -> AsyncRHEEDStreamer:
    return AsyncRHEEDStreamer(
        server.api_key, server.url, None, spool, spool_min_free_bytes=0, clock_sync=clock_sync
    )


@pytest.mark.slow
async def test_a_resumed_stream_is_not_released(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume() that is slow because of the clock measurement returns a stream that accepts frames (P10)."""
    server = await serve()
    async with streamer(server, tmp_path, clock_sync=False) as first:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data_id = await first.initialize(FPS, 0.0, FILM.n)
        await server.stop()
        await first.push(data_id, 0, FILM.chunk(0))
    await server.start()
    async with streamer(server, tmp_path, clock_sync=True) as later:

        async def slow_start(_: ReferenceClock) -> None:
            while (await later.spool_status())["chunks_pending"]:
                await asyncio.sleep(0.01)
            for _ in range(100):  # all tasks that wait for that moment have run
                await asyncio.sleep(0)

        monkeypatch.setattr(ReferenceClock, "start", slow_start)
        assert await later.resume(data_id) == 1
        await later.push(data_id, 1, FILM.chunk(1))
        report = await later.finalize(data_id, 30.0)
    assert report["chunks_uploaded"] == 2
