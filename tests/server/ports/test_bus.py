"""The connection to NATS: a server that does not answer is left for another one (atomstream.server.ports.bus)."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from atomstream.cluster.engines import Nats
from tests.engines import running


async def test_a_frozen_server_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open, but it answers no ping: the next server of the address is used."""
    from atomstream.server.ports import bus as module

    assert module.PING_S * (module.UNANSWERED + 1) < 10
    monkeypatch.setattr(module, "PING_S", 0.05)
    with running(Nats) as first, running(Nats) as second:
        bus = await module.Bus.connect(
            f"{first.url},{second.url}", f"t{uuid.uuid4().hex[:8]}", dont_randomize=True
        )
        try:
            elsewhere = asyncio.Event()
            bus.when_reconnected(elsewhere.set)
            assert bus.client.connected_url is not None
            assert bus.client.connected_url.geturl() == first.url
            first.pause()
            async with asyncio.timeout(60):
                await elsewhere.wait()
            assert bus.client.connected_url.geturl() == second.url
        finally:
            first.resume()
            await bus.close()
