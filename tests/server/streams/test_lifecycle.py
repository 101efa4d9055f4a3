"""The statuses of a stream: what changes them, and what survives a restart."""

from __future__ import annotations

import asyncio

from atomstream.server.streams.signals import ChunkStored, StatusChanged
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames


class Watch:
    """Collects the signals of a server and waits for them."""

    def __init__(self, server: LiveServer) -> None:
        self.statuses: asyncio.Queue[str] = asyncio.Queue()
        self.chunks: list[ChunkStored] = []
        self.created: list[str] = []
        events = server.context.signals
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
    """A silent stream is ``stream_interrupted``, and ``stream_active`` again once a chunk arrives."""
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
    """After ``abandon_s`` a stream is ``stream_error``; data makes it active again."""
    server = await serve(silence_s=0.05, abandon_s=0.1)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        assert [await watch.statuses.get() for _ in range(2)] == ["stream_interrupted", "stream_error"]
        await client.send(data_id, 0, make_frames(4))
        assert await watch.statuses.get() == "stream_active"


async def test_end_passes_through_finalizing(serve: Serve) -> None:
    """The end makes a stream ``stream_finalizing``, then ``success``, and silence does not change it any more."""
    server = await serve(silence_s=0.05)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.end(data_id)
        seen = [watch.statuses.get_nowait() for _ in range(watch.statuses.qsize())]
        assert seen[-2:] == ["stream_finalizing", "success"]
        # Wait for the report about another, silent stream: a report about this one would have come before it.
        await client.create("another")
        assert await watch.statuses.get() == "stream_interrupted"
        assert (await client.entry(data_id))["pipeline_status"] == "success"


async def test_statuses_survive_a_restart(serve: Serve) -> None:
    """Ended stays ended, interrupted stays interrupted, and the time-out of an active stream continues."""
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


async def test_interrupted_finish_is_completed(serve: Serve) -> None:
    """A stream that was finalizing when the server died is finished at the next start."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))
    await server.context.streams.change(data_id, status="stream_finalizing")
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await client.entry(data_id))["pipeline_status"] == "success"


async def test_signals_report_chunks(serve: Serve) -> None:
    """Listeners receive a creation and each stored chunk, with a flag for repeats; a failing one affects no other."""
    server = await serve()

    async def failing(_stored: ChunkStored) -> None:
        raise RuntimeError("a listener's own trouble")

    server.context.signals.chunk_stored.subscribe(failing)
    watch = Watch(server)
    async with WireClient(server) as client:
        data_id = await client.create()
        for _ in range(2):
            assert (await client.send(data_id, 3, make_frames(4)))[0] == 200
    assert watch.created == [data_id]
    assert [(one.ticket.index, one.committed.repeated) for one in watch.chunks] == [(3, False), (3, True)]


async def test_bad_lost_headers_are_400(serve: Serve) -> None:
    """An invalid list of losses, or one that would fill the memory, is 400; the stream is not ended by it."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        for header in ("x", "5-3", "1-2-3", "-1", "1;2", "0-9999999", "10000001", "٣"):
            assert (await client.end(data_id, **{"Atomstream-Lost": header}))[0] == 400, header
            assert (await client.entry(data_id))["pipeline_status"] == "stream_active", header


async def test_concurrent_ends_and_chunks_agree(serve: Serve) -> None:
    """Concurrent ends and late chunks all get 200, and the final status is success."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        tasks = [client.send(data_id, k, make_frames(4, seed=k)) for k in range(6)]
        replies = await asyncio.gather(*tasks, *[client.end(data_id) for _ in range(4)])
        assert {status for status, _ in replies} == {200}
        assert (await client.entry(data_id))["pipeline_status"] == "success"
    assert server.archive(data_id).n_frames() == 24
