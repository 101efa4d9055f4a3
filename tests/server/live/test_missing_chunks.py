"""Chunks missing in the results: reported by the feed and the analysis status until a reanalysis includes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomstream.index_ranges import IndexSet
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.server import dashboard
from atomstream.server.live.analyzer_client import AnalyzerClient
from atomstream.server.live.missing_chunks import CRASHED, REASONS, MissingIndices
from atomstream.server.live.result_store import REANALYSIS
from atomstream.server.live.worker_messages import AnalyzerState
from atomstream.server.live.worker_pool import JobFailedError, WorkerDiedError
from atomstream.streaming import subscription
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
from tests.paths import REPO
from tests.wire_client import WireClient

BOX = {"type": "box", "name": "one", "x": 80.0, "y": 150.0, "width": 12.0, "height": 40.0}
LATE_1 = [{"why": "late", "chunks": "1", "count": 1}]


@pytest.mark.slow
async def test_a_late_chunk_is_reported(serve: Serve) -> None:
    """A chunk that arrives after it was skipped is reported as missing, until the analysis at the end includes it."""
    async with WireClient(await serve(gap_wait_s=0.05)) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 2])
            await batches_until(socket, 3 * CHUNK)
            assert (await analysis_status(client, data_id))["missing"] == []
            await send_chunks(client, data_id, growth(), [1])
            messages = await next_message(socket, "missing")
            assert (messages["missing"], messages["reanalysis"]) == (LATE_1, False)
            assert (await analysis_status(client, data_id))["missing"] == LATE_1
            await client.end(data_id)
            await next_message(socket, "end")
        assert (await analysis_status(client, data_id))["missing"] == []


@pytest.mark.slow
async def test_a_chunk_after_the_end_is_reported(serve: Serve) -> None:
    """A chunk after the end is reported at once, with the reanalysis that includes it; after that none is missing."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(), indices=[0, 2])
        await send_chunks(client, data_id, growth(), [1])
        analysis = await analysis_status(client, data_id)
        assert (analysis["missing"], analysis["reanalysis"]) == (LATE_1, True)
        (final,) = batches(await follow(client, data_id, after=first[-1]["seq"]))
        analysis = await analysis_status(client, data_id)
    assert final["frames_received"] == 3 * CHUNK
    assert (analysis["missing"], analysis["reanalysis"], analysis["status"]) == ([], False, "ended")


@pytest.mark.slow
async def test_a_late_chunk_survives_a_stop(serve: Serve) -> None:
    """A server that stops before a reanalysis does it after its next start."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(), indices=[0, 2])
        await send_chunks(client, data_id, growth(), [1])
    await server.stop()
    assert (server.folder(data_id) / "analysis" / "running").read_text() == REANALYSIS
    await server.start()
    async with WireClient(server) as client:
        (final,) = batches(await follow(client, data_id, after=first[-1]["seq"]))
        analysis = await analysis_status(client, data_id)
    assert final["reanalysis"]
    assert not any(event["kind"] == "gap" for event in final["events"])
    assert (analysis["missing"], analysis["status"]) == ([], "ended")


@pytest.mark.slow
async def test_regions_do_not_interrupt_a_reanalysis(serve: Serve) -> None:
    """Regions set during a reanalysis wait for it: both complete."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(120))
        await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse")
        await client.ask("PUT", f"/rheed/stream/{data_id}/regions", {"regions": [BOX]})
        messages = await follow(client, data_id, after=first[-1]["seq"])
    assert [batch["final"] for batch in batches(messages)] == [True]
    assert [one["complete"] for one in messages if one["type"] == "regions"] == [False, True]


@pytest.mark.slow
async def test_replaced_regions_do_not_return(serve: Serve) -> None:
    """A region that is removed while its trace is computed does not return when the trace is complete."""
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(120))
        path = f"/rheed/stream/{data_id}/regions"
        await client.ask("PUT", path, {"regions": [BOX]})
        await client.ask("PUT", path, {"regions": []})
        messages = await follow(client, data_id, after=first[-1]["seq"])
    regions = [one for one in messages if one["type"] == "regions"]
    assert [bool(one["regions"]) for one in regions] == [True, False]
    assert not regions[-1]["complete"]


@pytest.mark.slow
async def test_an_unreadable_chunk_is_reported(serve: Serve) -> None:
    """A chunk whose file is damaged is reported as missing, also after the end and a restart."""
    server, data_id, _ = await with_a_damaged_chunk(serve)
    async with WireClient(server) as client:
        before = (await analysis_status(client, data_id))["missing"]
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        assert (await analysis_status(client, data_id))["missing"] == before
    assert before == [{"why": "unreadable", "chunks": "1", "count": 1}]


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [WorkerDiedError("the worker ended"), JobFailedError("analysis", "ValueError: a mistake")],
    ids=str,
)
async def test_a_chunk_whose_analysis_fails_is_reported(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Such a chunk has the reason ``crashed`` in the live analysis and in a repeated one, because its file can be
    read."""
    analyse = AnalyzerClient.chunk

    async def fail(client: AnalyzerClient, index: int, *args: Any, **options: Any) -> AnalyzerState | None:
        if index == 1:
            raise error
        return await analyse(client, index, *args, **options)

    monkeypatch.setattr(AnalyzerClient, "chunk", fail)
    async with WireClient(await serve()) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        first = await analysed(client, data_id, growth(3 * CHUNK))
        live = (await analysis_status(client, data_id))["missing"]
        await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse")
        await follow(client, data_id, after=first[-1]["seq"])
        repeated = (await analysis_status(client, data_id))["missing"]
    assert live == repeated == [{"why": CRASHED, "chunks": "1", "count": 1}]


def test_each_reason_is_explained() -> None:
    """The log of ``results()``, the page and docs/live_api.md explain the same reasons."""
    script = (Path(dashboard.__file__).parent / "static" / "js" / "reanalysis.js").read_text(encoding="utf-8")
    manual = (REPO / "docs" / "live_api.md").read_text(encoding="utf-8")
    assert set(re.findall(r'chunks\(missing, "(\w+)"\)', script)) == set(REASONS)
    assert subscription.MISSING_REASONS.keys() == set(REASONS)
    assert "|".join(f'"{reason}"' for reason in REASONS) in manual
    assert set(REASONS) <= set(re.findall(r"^- `(\w+)`", manual, re.MULTILINE))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), st.sampled_from(REASONS))))
def test_each_missing_chunk_has_its_last_reason(added: list[tuple[int, int, str]]) -> None:
    """After any additions each chunk has the reason that was added last, as in a dictionary from index to reason."""
    missing, expected = MissingIndices(), dict[int, str]()
    for first, more, reason in added:
        if more:
            missing.add_all(IndexSet(range(first, first + more)), reason)
        else:
            missing.add(first, reason)
        expected.update(dict.fromkeys(range(first, first + max(1, more)), reason))
    parts = missing.parts()
    read = {
        index: part.why for part in parts for index in IndexSet.parse(part.chunks, max_index=MAX_CHUNK_INDEX)
    }
    assert read == expected
    assert sum(part.count for part in parts) == len(expected)
    assert [missing.has(reason) for reason in REASONS] == [reason in expected.values() for reason in REASONS]
    assert MissingIndices(parts).parts() == missing.copy().parts() == parts
