"""Streams whose analysis can't begin or go on: they are stored, show the reason, and end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from atomstream.records import Frames
from atomstream.server.live import live_analysis, worker_pool
from atomstream.server.live.analyzer_client import AnalyzerClient
from atomstream.server.live.annotation_records import CalibrationRecord
from atomstream.server.live.worker import AnalyzerSession, Worker
from atomstream.server.live.worker_messages import (
    ChunkFrames,
    ChunkJob,
    ErrorReply,
    OpenJob,
    Reply,
    StreamSettings,
)
from atomstream.server.live.worker_pool import JobFailedError
from tests.live_helpers import analysed, analysis_status, feed, follow, next_message
from tests.live_server import Serve
from tests.wire_client import WireClient

FRAMES: Frames = np.random.default_rng(1).integers(0, 255, (12, 16, 16), dtype=np.uint8)
MISSING = [{"why": "no_analysis", "chunks": "0-2", "count": 3}]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat failed work at once."""
    monkeypatch.setattr(live_analysis, "DISK_PAUSE_S", 0.0)


def always(error: Exception) -> Callable[..., Any]:
    """An asynchronous method that always fails."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


async def ended(client: WireClient) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Send a stream and end it; returns the messages of its feed up to the end, and its status then."""
    data_id = await client.create()
    messages = await analysed(client, data_id, FRAMES, chunk=4)
    return messages, await analysis_status(client, data_id)


async def test_without_a_worker_the_stream_ends_and_names_its_chunks(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker can be started: the feed ends, the chunks are missing with their reason, and are analysed later."""
    working = worker_pool.COMMAND
    monkeypatch.setattr(worker_pool, "COMMAND", (sys.executable, "-S", "-c", ""))
    server = await serve()
    async with WireClient(server) as client:
        messages, status = await ended(client)
        assert {message["type"] for message in messages[1:-1]} == {"missing"}
        assert messages[-2]["missing"] == status["missing"] == MISSING
        assert messages[-1]["type"] == "end"
        assert status["status"] == "ended"
        monkeypatch.setattr(worker_pool, "COMMAND", working)
        monkeypatch.setattr(worker_pool, "RETRY_S", 0.0)
        await client.ask("POST", f"/rheed/stream/{status['data_id']}/reanalyse")
        await follow(client, status["data_id"], after=messages[-1]["seq"])
        assert (await analysis_status(client, status["data_id"]))["missing"] == []


async def test_a_running_stream_shows_why_it_is_not_analysed(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the stream is recorded, its status and its feed have the reason, and a later try may succeed."""
    working = worker_pool.COMMAND
    monkeypatch.setattr(worker_pool, "COMMAND", (sys.executable, "-S", "-c", ""))
    monkeypatch.setattr(live_analysis, "RETRY_S", 0.01)
    monkeypatch.setattr(worker_pool, "RETRY_S", 0.0)
    async with WireClient(await serve()) as client:
        data_id = await client.create()
        async with feed(client, data_id) as socket:
            await client.send(data_id, 0, FRAMES[:4])
            assert (await next_message(socket, "missing"))["missing"][0]["why"] == "no_analysis"
            status = await analysis_status(client, data_id)
            assert "no worker process for the analysis can be started" in status["why"]
            monkeypatch.setattr(worker_pool, "COMMAND", working)
            assert (await next_message(socket, "missing"))["missing"] == []
        await client.end(data_id)
        await follow(client, data_id)
        assert (await analysis_status(client, data_id))["missing"] == []


@pytest.mark.parametrize("method", ["open", "annotate"])
async def test_an_analysis_that_never_begins_ends(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """An analysis that fails before each chunk is not repeated for ever."""
    monkeypatch.setattr(AnalyzerClient, method, always(JobFailedError("analysis", "ValueError: a mistake")))
    async with WireClient(await serve()) as client:
        _, status = await ended(client)
    assert status["missing"] == MISSING


async def test_an_end_that_fails_leaves_the_results_before_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last fits fail each time: the stream ends without them, and no chunk is missing."""
    monkeypatch.setattr(AnalyzerClient, "finish", always(JobFailedError("analysis", "ValueError: a mistake")))
    async with WireClient(await serve()) as client:
        messages, status = await ended(client)
    assert messages[-1]["type"] == "end"
    assert status["missing"] == []


@pytest.mark.parametrize("error", [OSError("a driver is missing"), ImportError("no module"), ValueError("x")])
def test_an_error_of_the_analysis_is_not_one_of_the_chunk(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Whatever the analysis raises, it failed; only an error of reading the frames is the chunk's."""

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(AnalyzerSession, "feed", fail)
    replies: list[Reply] = []
    worker = Worker(replies.append)
    open_job = OpenJob("s", StreamSettings(30.0, 0.0, 4, CalibrationRecord()))
    frames = ChunkFrames(0, b"\0" * 8, (1, 16, 16), "uint8", 4, "/nowhere/c/0")
    worker.do(open_job)
    worker.do(ChunkJob("s", frames))
    assert isinstance(replies[-1], ErrorReply)
    assert replies[-1].kind == "shard"
    monkeypatch.setattr("atomstream.server.live.worker._shared", lambda _: memoryview(bytearray(256)))
    worker.do(ChunkJob("s", frames))
    assert isinstance(replies[-1], ErrorReply)
    assert replies[-1].kind == "analysis"
