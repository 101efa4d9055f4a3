"""Chunks that the results lack: told by the feed and the analysis' standing until another analysis has them."""

from __future__ import annotations

import pytest

from atomstream.server.live.result_store import REANALYSIS
from tests.live_helpers import (
    CHUNK,
    FPS,
    analysed,
    analysis_status,
    batches,
    batches_until,
    feed,
    follow,
    growth,
    next_message,
    send_chunks,
    with_a_damaged_chunk,
)
from tests.live_server import Serve
from tests.wire_client import WireClient

BOX = {"type": "box", "name": "one", "x": 80.0, "y": 150.0, "width": 12.0, "height": 40.0}
LATE_1 = [{"why": "late", "chunks": "1", "count": 1}]


@pytest.mark.slow
async def test_a_late_chunk_is_told(serve: Serve) -> None:
    """A chunk that comes after its gap was passed is told as lacking, until the analysis at the end has it."""
    async with WireClient(await serve(gap_wait_s=0.05)) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 2])
            await batches_until(socket, 3 * CHUNK)
            assert (await analysis_status(client, data_id))["missing"] == []
            await send_chunks(client, data_id, growth(), [1])
            told = await next_message(socket, "missing")
            assert (told["missing"], told["reanalysis"]) == (LATE_1, False)
            assert (await analysis_status(client, data_id))["missing"] == LATE_1
            await client.end(data_id)
            await next_message(socket, "end")
        assert (await analysis_status(client, data_id))["missing"] == []


@pytest.mark.slow
async def test_a_chunk_after_the_end_is_told(serve: Serve) -> None:
    """A chunk after the end is told at once, with the analysis that takes it in; after it nothing lacks."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(), indices=[0, 2, 3])
        await send_chunks(client, data_id, growth(), [1])
        standing = await analysis_status(client, data_id)
        assert (standing["missing"], standing["reanalysis"]) == (LATE_1, True)
        (final,) = batches(await follow(client, data_id, after=first[-1]["seq"]))
        standing = await analysis_status(client, data_id)
    assert final["fed"] == 4 * CHUNK
    assert (standing["missing"], standing["reanalysis"], standing["status"]) == ([], False, "ended")


@pytest.mark.slow
async def test_a_late_chunk_survives_a_stop(serve: Serve) -> None:
    """A server that stops before it has analysed a finished stream again does so after its next start."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(), indices=[0, 2, 3])
        await send_chunks(client, data_id, growth(), [1])
    await server.stop()
    assert (server.folder(data_id) / "analysis" / "running").read_text() == REANALYSIS
    await server.start()
    async with WireClient(server) as client:
        (final,) = batches(await follow(client, data_id, after=first[-1]["seq"]))
        standing = await analysis_status(client, data_id)
    assert final["reanalysis"]
    assert not any(event["kind"] == "gap" for event in final["events"])
    assert (standing["missing"], standing["status"]) == ([], "ended")


@pytest.mark.slow
async def test_regions_do_not_cut_it_short(serve: Serve) -> None:
    """Regions that are set while a stream is analysed again wait for it: both are told complete."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth())
        await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse")
        await client.ask("PUT", f"/rheed/stream/{data_id}/regions", {"regions": [BOX]})
        told = await follow(client, data_id, after=first[-1]["seq"])
    assert [batch["final"] for batch in batches(told)] == [True]
    assert [one["complete"] for one in told if one["type"] == "regions"] == [False, True]


@pytest.mark.slow
async def test_regions_that_were_replaced_are_not_told_again(serve: Serve) -> None:
    """A region that is removed while its trace is computed does not come back with the trace's end."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth())
        path = f"/rheed/stream/{data_id}/regions"
        await client.ask("PUT", path, {"regions": [BOX]})
        await client.ask("PUT", path, {"regions": []})
        told = await follow(client, data_id, after=first[-1]["seq"])
    regions = [one for one in told if one["type"] == "regions"]
    assert [bool(one["regions"]) for one in regions] == [True, False]
    assert not regions[-1]["complete"]


@pytest.mark.slow
async def test_an_unreadable_chunk_is_told(serve: Serve) -> None:
    """A chunk whose file is damaged is told as lacking, also after the end and a restart."""
    server, data_id, _ = await with_a_damaged_chunk(serve)
    async with WireClient(server) as client:
        before = (await analysis_status(client, data_id))["missing"]
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await analysis_status(client, data_id))["missing"] == before
    assert before == [{"why": "unreadable", "chunks": "1", "count": 1}]
