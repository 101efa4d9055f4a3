"""Few requests without a key in each iteration of the event loop: a flood of cheap ones does not starve uploads."""

from __future__ import annotations

import asyncio
import socket
from itertools import pairwise
from urllib.parse import urlsplit

import aiohttp
import pytest

from atomstream.server.http.loop_rate_limiter import PER_ITERATION, LoopRateLimiter
from tests.live_server import LiveServer, Serve
from tests.wire_client import WireClient, make_frames


async def test_each_turn_passes_a_fixed_number() -> None:
    """In the order of the calls; a cancelled call leaves its place to the next one."""
    limiter, passed = LoopRateLimiter(3), list[int]()

    async def one(number: int) -> None:
        await limiter.wait()
        passed.append(number)

    tasks = [asyncio.create_task(one(number)) for number in range(12)]
    await asyncio.sleep(0)
    assert passed == [0, 1, 2]
    tasks[4].cancel()
    seen = [len(passed)]
    while len(passed) < 11:
        await asyncio.sleep(0)
        seen.append(len(passed))
    assert passed == [number for number in range(12) if number != 4]
    assert max(later - now for now, later in pairwise(seen)) <= 3
    for _ in range(3):
        await asyncio.sleep(0)
    await asyncio.wait_for(limiter.wait(), 60)  # at once again
    assert len(limiter) == 0
    await asyncio.gather(*tasks, return_exceptions=True)


def limiter_of(server: LiveServer) -> LoopRateLimiter:
    """The one of a running server."""
    assert server.running is not None
    return server.running.connections._limiter


async def test_an_authenticated_client_does_not_wait(serve: Serve) -> None:
    """A request without a key waits behind the others; an upload on the connection of a key's holder does not."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        limiter = limiter_of(server)
        limiter._per_iteration = limiter._left = 0  # nobody passes
        async with WireClient(server) as stranger:
            asked = asyncio.create_task(stranger.ask("GET", "/health"))
            while not len(limiter):
                await asyncio.sleep(0)
            assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
            assert len(limiter) == 1
            limiter._per_iteration = 4
            limiter._next_turn()
            assert (await asked)[0] == 200


@pytest.mark.parametrize("path", ["/anything", "/rheed/stream/no/calibration"])
async def test_only_an_upload_is_let_past(serve: Serve, path: str) -> None:
    """A PUT to another path waits like any request without a key: its refusals are not a way past the rate limit."""
    server = await serve()
    limiter = limiter_of(server)
    limiter._per_iteration = limiter._left = 0  # nobody passes
    async with aiohttp.ClientSession() as session:
        asked = asyncio.create_task(session.put(f"{server.url}{path}", headers={"X-API-Key": "wrong"}))
        done: set[asyncio.Task[aiohttp.ClientResponse]] = set()
        while not len(limiter) and not done:
            done, _ = await asyncio.wait([asked], timeout=0.01)
        assert len(limiter) == 1
        limiter._per_iteration = 4
        limiter._next_turn()
        assert (await asked).status in (401, 404)


async def test_each_turn_accepts_a_fixed_number(serve: Serve) -> None:
    """A burst of connections is spread over iterations of the loop; none is refused meanwhile."""
    server = await serve()
    assert server.running is not None
    guard, parts, sockets = server.running.connections, urlsplit(server.url), list[socket.socket]()
    try:
        for _ in range(100):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((parts.hostname or "", parts.port or 0))
            sockets.append(one)
        before, steps = len(guard), list[int]()
        while len(guard) < before + 100:
            now = len(guard)
            await asyncio.sleep(0)
            steps.append(len(guard) - now)
        assert max(steps) <= 2 * PER_ITERATION  # a connection is made one iteration after it is accepted
    finally:
        for one in sockets:
            one.close()
