"""The same chunk uploaded several times at once, as after a time-out: its results come from its own frames."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from atomstream.server.catalogue.streams_table import StreamsTable
from atomstream.server.live.analyzer_client import AnalysisResources, DecodedChunk
from atomstream.server.live.feed import Feed
from atomstream.server.live.live_analysis import LiveAnalysis
from atomstream.server.live.shared_frames import SharedBlock, SharedFrames
from atomstream.server.live.stream_parts import StreamParts
from atomstream.server.live.worker_pool import WorkerPool
from atomstream.sources import GrowthSpec
from tests.live_helpers import batches, batches_until, column, feed, follow, frame_numbers, growth, stamps
from tests.live_server import Serve
from tests.wire_client import WireClient, shard_bytes

FPS = 120.0
CHUNK = 4
N_CHUNKS = 32
REPEATS = 16
"""Repeats uploaded at the same time as each chunk: 500 in total."""
TOGETHER = 5
"""Chunks between two checks of the results: chunks further ahead of the analysis have no shared memory."""
SMALL = GrowthSpec(96, 128, FPS, seed=5, rate_ml_s=2.0)


class Uses:
    """Counts the shared blocks that are acquired and not yet released."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.acquired = 0
        self.held: list[SharedBlock] = []
        acquire, release = SharedFrames.acquire, SharedFrames.release

        def counted_acquire(frames: SharedFrames, nbytes: int) -> SharedBlock | None:
            block = acquire(frames, nbytes)
            if block is not None:
                self.acquired += 1
                self.held.append(block)
            return block

        def counted_release(frames: SharedFrames, block: SharedBlock) -> None:
            self.held.remove(block)
            release(frames, block)

        patch.setattr(SharedFrames, "acquire", counted_acquire)
        patch.setattr(SharedFrames, "release", counted_release)


class BusyCatalogue:
    """A catalogue that records a chunk only after ``uploads`` of it were received: all are in the archive by then."""

    def __init__(self, patch: pytest.MonkeyPatch, uploads: int) -> None:
        waiting: dict[int, list[asyncio.Event]] = {}
        note_chunk = StreamsTable.note_chunk

        async def noted(table: StreamsTable, data_id: str, n_frames: int) -> None:
            events = waiting.setdefault(n_frames, [])
            events.append(asyncio.Event())
            if len(events) == uploads:
                for event in events:
                    event.set()
            await events[-1].wait()
            await note_chunk(table, data_id, n_frames)

        patch.setattr(StreamsTable, "note_chunk", noted)


async def results(serve: Serve, repeats: int) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Per-frame results of a stream whose chunks are each uploaded ``1 + repeats`` times at once."""
    frames = growth(N_CHUNKS * CHUNK, SMALL)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            for index in range(N_CHUNKS):
                part = frames[index * CHUNK : (index + 1) * CHUNK]
                times = stamps(index, len(part), CHUNK, FPS)
                url = await client.url(data_id, index, part.shape, CHUNK, **times)
                body = shard_bytes(part)
                replies = await asyncio.gather(*(client.put(url, body) for _ in range(1 + repeats)))
                assert [status for status, *_ in replies] == [200] * (1 + repeats)
                if index % TOGETHER == TOGETHER - 1:
                    await batches_until(socket, (index - TOGETHER) * CHUNK)
        await client.end(data_id)
        found = batches(await follow(client, data_id))
    assert frame_numbers(found) == list(range(len(frames)))
    return {name: column(found, name) for name in ("specular_intensity", "specular_background")}


@pytest.mark.timeout(300)
async def test_hundreds_of_repeats_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of repeats change no result, and each shared block is released."""
    expected = await results(serve, 0)
    uses = Uses(monkeypatch)
    BusyCatalogue(monkeypatch, 1 + REPEATS)
    found = await results(serve, REPEATS)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert uses.acquired > N_CHUNKS
    assert not uses.held


async def test_a_chunk_stored_again_during_its_analysis() -> None:
    """Its block stays with the worker that reads it; the new one is released, because nothing will read it."""
    shared = SharedFrames(10_000)
    unused: Any = None
    for _ in range(2):
        while shared.acquire(100) is None:
            await asyncio.sleep(0)
    read, new = tuple(shared._in_use)
    resources = AnalysisResources(WorkerPool(1), shared, unused, 5.0, unused)
    metadata: Any = type("Metadata", (), {"data_id": "a"})
    live = LiveAnalysis(StreamParts(unused, metadata, resources, unused, unused), Feed(0))
    live.stored(0, DecodedChunk(read, unused))
    assert live.order.next_step(0.0) is not None  # a worker reads the block from now on
    live.stored(0, DecodedChunk(new, unused))
    assert shared._in_use == {read}
    await shared.close()
