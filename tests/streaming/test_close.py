"""close() keeps or delivers what was pushed, does not end streams, and ends all waiting calls (P20, P21)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import ClosedError
from atomstream.testing import MemoryService
from tests.live_server import Serve
from tests.streaming.scripted_faults import KEY, answers
from tests.streaming.stream_helpers import all_calls, assert_arrived, begin, make_async, noise
from tests.wire_client import WireClient

pytestmark = pytest.mark.usefixtures("hurried")


async def test_close_without_finalize_ends_nothing(serve: Serve, tmp_path: Path) -> None:
    """close() keeps what was pushed, on disk or delivered, and does not end the stream."""
    server = await serve()
    async with make_async(server.url, server.api_key, spool_dir=tmp_path) as streamer:
        data_id = await begin(streamer, 0, 1)
    async with WireClient(server) as client:
        assert (await client.entry(data_id))["pipeline_status"] == "stream_active"
    async with make_async(server.url, server.api_key, spool_dir=tmp_path) as later:
        while (await later.spool_status())["chunks_pending"]:
            await asyncio.sleep(0.01)
    assert_arrived(server, data_id, [0, 1])


async def test_close_without_disk_or_network_counts_what_is_lost(
    service: MemoryService, no_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With neither spool nor server, close warns how many chunks are lost with it."""
    service.fault_for = lambda attempt: answers(503)
    streamer = make_async(service.url, KEY, spool_dir=no_disk)
    data_id = await begin(streamer, 0, 1, 2)
    assert "kept in memory only" in caplog.text
    with pytest.warns(RuntimeWarning, match=rf"{data_id} was closed with 3 chunks neither.*lost"):
        await streamer.close(drain_timeout_s=0.05)


async def test_close_without_disk_drains(service: MemoryService, no_disk: Path) -> None:
    """With no spool, close waits until the server has everything."""
    streamer = make_async(service.url, KEY, spool_dir=no_disk)
    data_id = await begin(streamer, 0, 1, 2)
    await streamer.close()
    assert [service.chunk(data_id, k).tolist() for k in range(3)] == [noise(k).tolist() for k in range(3)]


async def test_closing_again_is_harmless(streamer: AsyncRHEEDStreamer) -> None:
    """A second close() does nothing; all other methods then raise ClosedError."""
    data_id = await begin(streamer, 0)
    await streamer.close()
    await streamer.close()
    for verb in (*all_calls(streamer, data_id), streamer.stats, streamer.clock_status):
        with pytest.raises(ClosedError, match="closed"):
            await verb()


async def test_close_ends_waiting_calls(service: MemoryService, no_disk: Path) -> None:
    """A push that waits for room and a finalize that waits for the drain get ClosedError when it closes."""
    service.fault_for = lambda attempt: answers(503)
    streamer = make_async(service.url, KEY, buffer_bytes=1, spool_dir=no_disk)
    ending, waiting = await begin(streamer, 0), await begin(streamer)
    finalizing = asyncio.create_task(streamer.finalize(ending))
    pushing = asyncio.create_task(streamer.push(waiting, 0, noise(0)))
    while not (await streamer.stats())["pushes_waiting"]:
        await asyncio.sleep(0.005)
    with pytest.warns(RuntimeWarning, match="lost"):
        await streamer.close(drain_timeout_s=0.05)
    for task in (finalizing, pushing):
        with pytest.raises(ClosedError, match="closed"):
            await asyncio.wait_for(task, 60)
