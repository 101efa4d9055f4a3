"""The hosted service's own client streams signals to our server, unchanged, and every point arrives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.live_server import Serve
from tests.wire_client import WireClient

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(300)]


async def test_signals(serve: Serve, run_peer: Any) -> None:
    """Push, push of several channels and run, with sample, tag, unit and a missing value: all are stored."""
    server = await serve()
    output = await asyncio.to_thread(run_peer, server.url, server.api_key, "GaN-1", script="peer_signals.py")
    data_id = json.loads(output.strip().splitlines()[-1])["data_id"]
    async with WireClient(server) as client:
        _, reply = await client.ask("GET", f"/tool-state/{data_id}/timeseries/")
    found = reply["properties"]
    assert found["temperature"]["values"] == [500.0, 501.0, None, 503.0]
    assert found["temperature"]["units"] == "C"
    assert found["temperature"]["relative_time_seconds"] == [0.0, 1.0, 2.0, 3.0]
    assert found["pressure"]["values"] == [1e-9]
    assert found["shutter"]["values"] == [0.0, 1.0, 0.0, 1.0]
    about = server.context.tool_signals.about(data_id)
    assert about.sample is not None
    assert (about.sample.name, about.status, about.tags[0].name) == ("GaN-1", "success", "night")
