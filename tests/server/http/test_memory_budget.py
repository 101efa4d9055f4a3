"""The memory of all requests together is bounded: larger bodies and replies are refused before they are in memory."""

from __future__ import annotations

import asyncio

import pytest

from atomstream.server.http.memory_budget import SMALL, Holding, MemoryBudget
from atomstream.server.http.responses import HttpError
from tests.live_server import Serve
from tests.wire_client import WireClient

T = 1_764_500_000.0


def test_a_request_takes_what_is_left() -> None:
    """A request beyond the free memory gets 503, one beyond the whole budget 413; small ones are not counted."""
    budget = MemoryBudget(10 * SMALL)
    first, second = Holding(budget), Holding(budget)
    first.grow(SMALL)
    assert budget.used == 0
    first.grow(6 * SMALL)
    first.grow(8 * SMALL)
    assert budget.used == 8 * SMALL
    with pytest.raises(HttpError, match="503"):
        second.grow(3 * SMALL)
    with pytest.raises(HttpError, match="413"):
        second.grow(11 * SMALL)
    assert budget.used == 8 * SMALL
    first.release()
    second.grow(10 * SMALL)
    second.release()
    assert budget.used == 0


async def test_feeds_wait_for_room_in_order() -> None:
    """Each waits until there is room; one that was cancelled while it waited leaves nothing behind."""
    budget, order = MemoryBudget(4 * SMALL), list[str]()

    async def reader(name: str, nbytes: int) -> None:
        async with budget.room(nbytes):
            order.append(name)
            await asyncio.sleep(0)

    async with budget.room(4 * SMALL):
        tasks = [asyncio.create_task(reader(name, 3 * SMALL)) for name in ("a", "b", "c")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.create_task(reader("small", SMALL))
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["small", "a", "c"]
    assert budget.used == 0
    async with budget.room(100 * SMALL):  # more than there is: as much as there is
        assert budget.used == 4 * SMALL


async def test_bodies_and_replies_are_counted(serve: Serve) -> None:
    """A large body needs room for its decoded form, a large reply for itself; all is given back."""
    server = await serve()
    async with WireClient(server) as client:
        created = await client.ask("POST", "/tool-state/stream/initialize", {})
        data_id, points = created[1]["data_id"], 3000
        times = [T + k for k in range(points)]
        chunk = {
            "data_id": data_id,
            "chunk_index": 0,
            "channel_name": "a",
            "timestamps": times,
            "values": times,
        }
        assert server.running is not None
        budget = server.running.memory
        assert budget.try_acquire(budget.limit - 2 * SMALL)
        status, reply = await client.ask("POST", "/tool-state/stream/chunk", chunk)
        assert (status, reply["detail"][:20]) == (503, "Other large requests")
        budget.release(budget.limit - 2 * SMALL)
        assert (await client.ask("POST", "/tool-state/stream/chunk", chunk))[0] == 200
        made = await client.ask("GET", f"/tool-state/{data_id}/timeseries/")
        assert made[1]["properties"]["a"]["values"] == times
        file = "/dashboard/static/vendor/uplot/uPlot.iife.min.js"
        async with (
            client.session.head(server.url + file) as head,
            client.session.get(server.url + file) as got,
        ):
            assert int(head.headers["Content-Length"]) == len(await got.read())
        assert budget.used == 0
