"""The servers that tests get are real, and can be restarted."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable

from tests.live_server import Serve, ThreadedServer
from tests.wire_client import WireClient


def test_server_for_blocking_clients(serve_in_thread: Callable[..., ThreadedServer]) -> None:
    """A test without a loop gets a server that answers, with its settings."""
    server = serve_in_thread(api_key="lab-key-0123456789-abcdefghij")
    request = urllib.request.Request(
        f"{server.url}/tags/", headers={"X-API-KEY": "lab-key-0123456789-abcdefghij"}
    )
    with urllib.request.urlopen(request) as reply:
        assert json.load(reply) == []


async def test_restart_keeps_address_and_key(serve: Serve) -> None:
    """A server stopped and started again has the same URL, key and folder; stopping twice is harmless."""
    server = await serve()
    before = server.url, server.api_key
    await server.stop()
    await server.stop()
    await server.start()
    assert (server.url, server.api_key) == before
    async with WireClient(server) as client:
        assert (await client.ask("GET", "/tags/"))[0] == 200
