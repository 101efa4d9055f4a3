"""finalize() that times out when the server has just confirmed the end (P20)."""

from __future__ import annotations

import asyncio
import threading
import warnings
from pathlib import Path

import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.spool import StreamSpool
from atomstream.streaming import finalizer
from tests.faults.fault_helpers import FPS, Film
from tests.live_server import Serve

FILM = Film(3, height=4, width=5)


async def test_a_confirmed_end_is_reported(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the server has confirmed the end, finalize returns its report, however short its time limit is."""
    server, reached, go_on, ended = await serve(), threading.Event(), threading.Event(), finalizer._record_end

    def slow(spool: StreamSpool) -> object:
        reached.set()
        go_on.wait()
        return ended(spool)

    monkeypatch.setattr(finalizer, "_record_end", slow)
    async with AsyncRHEEDStreamer(
        server.api_key, server.url, None, tmp_path, spool_min_free_bytes=0, clock_sync=False
    ) as made:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data_id = await made.initialize(FPS, 0.0, FILM.n)
        await made.push(data_id, 0, FILM.chunk(0))
        patient = asyncio.create_task(made.finalize(data_id, 60.0))
        await asyncio.to_thread(reached.wait)
        hasty = asyncio.create_task(made.finalize(data_id, 0.0))
        for _ in range(20):  # its time limit passes in the next iteration of the loop
            await asyncio.sleep(0)
        go_on.set()
        assert (await hasty)["closed"]
        assert await patient == await hasty
