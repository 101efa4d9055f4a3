"""The statuses of a stream: what moves it, what brings it back, what survives a restart."""

from __future__ import annotations

import asyncio

import pytest

from atomstream.server.streams.signals import ChunkStored, StatusChanged
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames


class Watch:
    """Gathers what a server's signals tell, and waits for it."""

    def __init__(self, server: LiveServer) -> None:
        self.statuses: asyncio.Queue[str] = asyncio.Queue()
        self.chunks: list[ChunkStored] = []
        self.created: list[str] = []
        events = server.running.context.signals  # type: ignore[union-attr]
        events.status_changed.subscribe(self._status)
        events.chunk_stored.subscribe(self._chunk)
        events.created.subscribe(self._creation)

    async def _status(self, change: StatusChanged) -> None:
        self.statuses.put_nowait(change.status)

    async def _chunk(self, stored: ChunkStored) -> None:
        self.chunks.append(stored)

    async def _creation(self, data_id: str) -> None:
        self.created.append(data_id)


async def test_silence_interrupts_and_data_revives(serve: Serve) -> None:
    """A silent stream is ``stream_interrupted``, and ``stream_active`` again once a chunk comes."""
    server = await serve(silence_s=0.05)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        assert (await client.entry(data_id))["pipeline_status"] in ("stream_active", "stream_interrupted")
        assert await watch.statuses.get() == "stream_interrupted"
        assert (await client.entry(data_id))["pipeline_status"] == "stream_interrupted"
        await client.send(data_id, 0, make_frames(4))
        assert await watch.statuses.get() == "stream_active"
        assert await watch.statuses.get() == "stream_interrupted"


async def test_long_silence_is_an_error_until_data_comes(serve: Serve) -> None:
    """After ``abandon_s`` a stream counts as ``stream_error``; data brings it back."""
    server = await serve(silence_s=0.05, abandon_s=0.1)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        assert [await watch.statuses.get() for _ in range(2)] == ["stream_interrupted", "stream_error"]
        await client.send(data_id, 0, make_frames(4))
        assert await watch.statuses.get() == "stream_active"


async def test_end_passes_through_finalizing(serve: Serve) -> None:
    """The end makes a stream ``stream_finalizing``, then ``success``, and silence does not touch it any more."""
    server = await serve(silence_s=0.05)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.end(data_id)
        seen = [watch.statuses.get_nowait() for _ in range(watch.statuses.qsize())]
        assert seen[-2:] == ["stream_finalizing", "success"]
        # Another stream's silence is told: by then this one's would have been.
        await client.create("another")
        assert await watch.statuses.get() == "stream_interrupted"
        assert (await client.entry(data_id))["pipeline_status"] == "success"


async def test_statuses_survive_a_restart(serve: Serve) -> None:
    """Ended stays ended, interrupted stays interrupted, active goes on being timed."""
    server = await serve()
    async with WireClient(server) as client:
        ended, active = await client.create("ended"), await client.create("active")
        await client.end(ended)
    await server.stop()
    server.change(silence_s=0.05)
    await server.start()
    watch = Watch(server)
    async with WireClient(server) as client:
        assert await watch.statuses.get() == "stream_interrupted"
        assert (await client.entry(ended))["pipeline_status"] == "success"
    await server.stop()
    server.change(silence_s=1000.0)
    await server.start()
    async with WireClient(server) as client:
        assert (await client.entry(active))["pipeline_status"] == "stream_interrupted"


async def test_interrupted_finish_is_made_good(serve: Serve) -> None:
    """A stream that was being finished when the server died is finished at the next start."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
    await server.running.context.streams.change(data_id, status="stream_finalizing")  # type: ignore[union-attr]
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await client.entry(data_id))["pipeline_status"] == "success"


async def test_signals_tell_of_chunks(serve: Serve) -> None:
    """Listeners hear of a creation and of each stored chunk, told apart from repeats; a failing one harms none."""
    server = await serve()

    async def failing(_stored: ChunkStored) -> None:
        raise RuntimeError("a listener's own trouble")

    server.running.context.signals.chunk_stored.subscribe(failing)  # type: ignore[union-attr]
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        for _ in range(2):
            assert (await client.send(data_id, 3, make_frames(4)))[0] == 200
    assert watch.created == [data_id]
    assert [(one.ticket.index, one.committed.repeated) for one in watch.chunks] == [(3, False), (3, True)]


@pytest.mark.parametrize("header", ["x", "5-3", "1-2-3", "-1", "1;2", "0-9999999", "10000001", "٣"])
async def test_bad_lost_headers_are_400(serve: Serve, header: str) -> None:
    """A list of losses that is none, or would fill the memory, is 400; the stream is not ended by it."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        assert (await client.end(data_id, **{"Atomstream-Lost": header}))[0] == 400
        assert (await client.entry(data_id))["pipeline_status"] == "stream_active"


async def test_concurrent_ends_and_chunks_agree(serve: Serve) -> None:
    """Ends and late chunks at the same time all answer 200, and the last word is success."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        tasks = [client.send(data_id, k, make_frames(4, seed=k)) for k in range(6)]
        replies = await asyncio.gather(*tasks, *[client.end(data_id) for _ in range(4)])
        assert {status for status, _ in replies} == {200}
        assert (await client.entry(data_id))["pipeline_status"] == "success"
    assert server.archive(data_id).n_frames() == 24
