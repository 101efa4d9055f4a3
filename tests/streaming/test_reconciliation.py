"""A process is killed between the server's 200 and its journal entry: the next process asks the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import DrainTimeoutError
from atomstream.pipeline.spool_writer import SpoolWriter
from atomstream.pipeline.stream import StreamState
from atomstream.pipeline.upload import Upload
from atomstream.records import Frames, Shard
from atomstream.spool import JournalEntry, Spool, StreamSpool
from atomstream.testing import MemoryService
from tests.live_server import LiveServer
from tests.streaming.scripted_faults import KEY

Serve = Callable[..., Awaitable[LiveServer]]
InterruptedStream = tuple[LiveServer, Callable[[], AsyncRHEEDStreamer], str]
DELIVERED = 3


def frames(seed: int) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (4, 16, 20), dtype=np.uint8)


def streamer(key: str, url: str, spool: Path) -> AsyncRHEEDStreamer:
    return AsyncRHEEDStreamer(key, url, None, spool, spool_min_free_bytes=0, clock_sync=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short timeouts for a server that is unreachable."""
    monkeypatch.setattr("atomstream.streaming.recovery.RESUME_WAIT_S", 0.05)


async def killed_before_the_journal_entry(
    key: str, url: str, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Chunks 0-2 have arrived and 3 has not; the journal has accepted all four, and no record is left."""
    with monkeypatch.context() as dying:
        dying.setattr(StreamSpool, "mark_stored", lambda self, index: None)
        async with streamer(key, url, spool) as made:
            with pytest.warns(UserWarning, match="chunk_size"):
                data_id = await made.initialize(120.0, 0.0, 4)
            for k in range(DELIVERED):
                await made.push(data_id, k, frames(k))
            await made.flush(data_id)
    interrupted = Spool(spool, min_free_bytes=0).open_stream(url, data_id)
    interrupted.journal.append(JournalEntry("accepted", DELIVERED))
    interrupted.close()
    for record in interrupted.folder.glob("chunk-*"):
        record.unlink()
    return data_id


async def test_arrived_chunks_count_as_stored(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that the server has count as stored, not as dropped; the missing one is reported as lost."""
    server = await serve()
    data_id = await killed_before_the_journal_entry(server.api_key, server.url, tmp_path, monkeypatch)
    async with streamer(server.api_key, server.url, tmp_path) as later:
        assert await later.resume(data_id) == DELIVERED + 1
        with pytest.warns(RuntimeWarning, match="1 missing"):
            report = await later.finalize(data_id)
    assert (report["chunks_spooled"], report["chunks_uploaded"], report["chunks_dropped"]) == (4, 3, 1)
    assert [index for index, _ in report["lost"]] == [DELIVERED]


@pytest.mark.usefixtures("impatient")
async def test_nothing_is_resolved_during_an_outage(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """During an outage the chunks are reported as pending; close does not wait, and a later process asks again."""
    server = await serve()
    data_id = await killed_before_the_journal_entry(server.api_key, server.url, tmp_path, monkeypatch)
    await server.stop()
    async with streamer(server.api_key, server.url, tmp_path) as blind:
        await blind.resume(data_id)
        while "stay pending" not in caplog.text:
            await asyncio.sleep(0.01)
        assert (await blind.stats())["streams"][data_id]["chunks_pending"] == DELIVERED + 1
    await server.start()
    async with streamer(server.api_key, server.url, tmp_path) as later:
        await later.resume(data_id)
        while (counts := (await later.stats())["streams"][data_id])["chunks_pending"]:
            await asyncio.sleep(0.01)
    assert (counts["chunks_stored"], counts["chunks_dropped"]) == (3, 1)


async def test_nothing_had_arrived(serve: Serve, tmp_path: Path) -> None:
    """If the server has no chunk of the stream, those that were in memory are reported as lost; the stream ends."""
    server = await serve()
    async with streamer(server.api_key, server.url, tmp_path) as made:
        with pytest.warns(UserWarning, match="chunk_size"):
            data_id = await made.initialize(120.0, 0.0, 4)
    interrupted = Spool(tmp_path, min_free_bytes=0).open_stream(server.url, data_id)
    interrupted.journal.append(JournalEntry("accepted", 0))
    interrupted.close()
    async with streamer(server.api_key, server.url, tmp_path) as later:
        await later.resume(data_id)
        with pytest.warns(RuntimeWarning, match="1 missing"):
            report = await later.finalize(data_id, 30.0)
    assert (report["chunks_uploaded"], report["chunks_dropped"]) == (0, 1)


async def test_a_hosted_service_cannot_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server does not announce itself as ours, the chunks count as dropped at once."""
    async with MemoryService() as service:
        data_id = await killed_before_the_journal_entry(KEY, service.url, tmp_path, monkeypatch)
        async with streamer(KEY, service.url, tmp_path) as later:
            await later.resume(data_id)
            with pytest.warns(RuntimeWarning, match="4 missing"):
                report = await later.finalize(data_id)
    assert (report["chunks_spooled"], report["chunks_uploaded"], report["chunks_dropped"]) == (4, 0, 4)


@pytest.fixture
async def interrupted(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InterruptedStream:
    """A stream, its server, and a function that makes the next streamer.

    The disk hung from chunk 2 on: 3 and 5 were sent from memory, and 2 to 5 have no journal entry.
    """
    server = await serve()

    def next_streamer() -> AsyncRHEEDStreamer:
        return streamer(server.api_key, server.url, tmp_path)

    with monkeypatch.context() as dying:
        dying.setattr(SpoolWriter, "journal_accepted", only_below(2, SpoolWriter.journal_accepted))
        dying.setattr(SpoolWriter, "write", only_below(2, SpoolWriter.write))
        dying.setattr(SpoolWriter, "remove_stored", only_below(2, SpoolWriter.remove_stored))
        async with next_streamer() as made:
            with pytest.warns(UserWarning, match="chunk_size"):
                data_id = await made.initialize(120.0, 0.0, 4)
            for k in (0, 1, 3, 5):
                await made.push(data_id, k, frames(k))
            await made.flush(data_id)
    return server, next_streamer, data_id


def only_below(last: int, verb: Callable[..., None]) -> Callable[..., None]:
    def limited(self: SpoolWriter, stream: StreamState, what: Upload | int, *more: Shard) -> None:
        if (what if isinstance(what, int) else what.index) < last:
            verb(self, stream, what, *more)

    return limited


async def test_chunks_unknown_to_the_journal(interrupted: InterruptedStream) -> None:
    """Chunks sent before their journal entry count as stored, their indices are not reused, and gaps are reported."""
    _, next_streamer, data_id = interrupted
    async with next_streamer() as later:
        assert await later.resume(data_id) == 6
        await later.push(data_id, 6, frames(6))
        with pytest.warns(RuntimeWarning, match="2 missing.*lost with the memory of an earlier process"):
            report = await later.finalize(data_id)
    assert (report["chunks_spooled"], report["chunks_uploaded"], report["chunks_failed"]) == (5, 5, 0)
    assert [index for index, _ in report["lost"]] == [2, 4]


@pytest.mark.usefixtures("impatient")
async def test_a_second_crash_changes_nothing(interrupted: InterruptedStream) -> None:
    """The server's answer is stored in the journal, so that the next process does not ask again."""
    server, next_streamer, data_id = interrupted
    async with next_streamer() as later:
        await later.resume(data_id)
    await server.stop()
    async with next_streamer() as blind:
        assert await blind.resume(data_id) == 6


@pytest.mark.usefixtures("impatient")
async def test_an_end_waits_for_the_answer(interrupted: InterruptedStream) -> None:
    """A stream finalized during an outage ends once the server has reported which chunks it has."""
    server, next_streamer, data_id = interrupted
    await server.stop()
    async with next_streamer() as later:
        assert await later.resume(data_id) == 2
        with pytest.raises(DrainTimeoutError, match="not yet reported its chunks"):
            await later.finalize(data_id, 0.05)
        await server.start()
        with pytest.warns(RuntimeWarning, match="2 missing"):
            report = await later.finalize(data_id)
    assert (report["chunks_spooled"], [index for index, _ in report["lost"]]) == (4, [2, 4])


@pytest.mark.usefixtures("impatient")
async def test_an_index_used_twice_is_reported(interrupted: InterruptedStream) -> None:
    """Other frames pushed in an outage under an index that the server has are quarantined and reported."""
    server, next_streamer, data_id = interrupted
    await server.stop()
    async with next_streamer() as later:
        assert await later.resume(data_id) == 2
        await later.push(data_id, 2, frames(2))
        await server.start()
        await later.flush(data_id)
        await later.push(data_id, 3, frames(30))
        with pytest.warns(RuntimeWarning, match="2 missing"):
            report = await later.finalize(data_id)
    assert report["chunks_failed"] == 1
    assert (report["chunks_spooled"], [index for index, _ in report["lost"]]) == (5, [3, 4])
