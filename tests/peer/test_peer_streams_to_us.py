"""The hosted service's own client streams to our server, unchanged, and every pixel arrives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from tests.live_server import Serve
from tests.peer.peer_program import CHUNK, frames_of
from tests.wire_client import WireClient

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(900)]
N_FRAMES = 5 * CHUNK + 7  # the last chunk is short


def last_json(output: str) -> dict[str, Any]:
    """The JSON line of the program; the client may print progress before it."""
    return dict(json.loads(output.strip().splitlines()[-1]))


async def test_push_mode(serve: Serve, run_peer: Any) -> None:
    """Push mode with sample, project and tags: linked, finalized, equal in each pixel."""
    server = await serve()
    async with WireClient(server) as client:
        _, project = await client.ask("POST", "/projects/", {"name": "Nitrides"})
        arguments = (server.url, server.api_key, "push", str(N_FRAMES), "GaN-2025-001", project["id"])
        output = last_json(await asyncio.to_thread(run_peer, *arguments))
        entry = await client.entry(output["data_id"])
        _, (listed,) = await client.ask("GET", "/projects/")
    assert output["report"]["closed"]
    assert output["report"]["chunks_uploaded"] == 6
    assert np.array_equal(server.archive(output["data_id"]).frames(0, N_FRAMES), frames_of(N_FRAMES))
    assert entry["pipeline_status"] == "success"
    assert entry["physical_sample_name"] == "GaN-2025-001"
    assert [tag["name"] for tag in entry["tags"]] == ["GaN", "night shift"]
    assert listed["tracking_physical_sample_id"] == entry["physical_sample_id"]


async def test_run_mode(serve: Serve, run_peer: Any) -> None:
    """Run mode with an iterator of chunks: finalized, equal in each pixel, none missing."""
    server = await serve()
    output = last_json(await asyncio.to_thread(run_peer, server.url, server.api_key, "run", str(N_FRAMES)))
    archive = server.archive(output["data_id"])
    assert output["report"]["chunks_not_uploaded"] == 0
    assert archive.missing_ranges() == []
    assert np.array_equal(archive.frames(0, N_FRAMES), frames_of(N_FRAMES))


async def test_names_are_found_again(serve: Serve, run_peer: Any) -> None:
    """A second stream with the same names in another case uses the existing sample and tags."""
    server = await serve()
    async with WireClient(server) as client:
        _, project = await client.ask("POST", "/projects/", {"name": "Nitrides"})
        for name in ("night SHIFT", "gan"):
            await client.ask("POST", "/tags/", {"name": name})
        _, sample = await client.ask("POST", "/physical_samples/", {"name": "gan-2025-001"})
        arguments = (server.url, server.api_key, "push", "12", " GaN-2025-001", project["id"])
        output = last_json(await asyncio.to_thread(run_peer, *arguments))
        entry = await client.entry(output["data_id"])
        assert len((await client.ask("GET", "/physical_samples/"))[1]) == 1
        assert len((await client.ask("GET", "/tags/"))[1]) == 2
    assert entry["physical_sample_id"] == sample["id"]
