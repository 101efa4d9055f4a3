"""The hosted service's own client reads our results while the stream runs: search, get, series, polling, azimuths."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.live_helpers import CHUNK, FPS, batches_until, feed, growth, send_chunks
from tests.live_server import Serve
from tests.server.live.test_hosted_reading import in_project
from tests.wire_client import WireClient

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.timeout(900)]


async def test_reads_a_running_stream(serve: Serve, run_peer: Any, tmp_path: Path) -> None:
    """Each reading call of the client works with a running stream and returns our numbers."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth of GaN", fps_capture_rate=FPS)
        project_id, _ = await in_project(client, "GaN 7", data_id)
        async with feed(client, data_id) as socket:
            await send_chunks(client, data_id, growth(), [0, 1, 2])
            await batches_until(socket, 3 * CHUNK)
        folder = tmp_path / "files"
        arguments = (server.url, server.api_key, data_id, "GaN", project_id, str(folder))
        output = await asyncio.to_thread(run_peer, *arguments, script="peer_reader.py")
        _, series = await client.ask("GET", f"/rheed/timeseries/{data_id}/", params={"last_n": "1"})
    answers = [json.loads(line) for line in output.splitlines() if line.startswith('{"ask"')]
    by_name = {line["ask"]: line for line in answers}
    (newest,) = series["series_by_angle"][0]["series"]
    assert by_name["search"]["rows"] == 1
    assert by_name["get"]["data_id"] == data_id
    assert by_name["get"]["rows"] == 3 * CHUNK
    assert by_name["series"]["rows"] == 10
    assert [line["rows"] for line in answers if line["ask"] == "poll"] in ([5], [5, 5])
    assert by_name["azimuths"]["rows"] == 1
    assert "[110]" in by_name["azimuths set"]["last"].values()
    assert by_name["project"]["name"] == "GaN 7"
    assert by_name["project"]["results"] == 1
    assert by_name["project"]["rows"] >= 3 * CHUNK
    (instrument,) = by_name["instruments"]["found"]
    assert instrument["source_name"] == "Main MBE"
    assert by_name["instruments"]["left"] == []
    assert by_name["files"]["frame"] == "RHEEDImageResult"
    assert {file.suffix for file in folder.iterdir()} == {".h5", ".mp4"}
    with h5py.File(next(folder.glob("*.h5"))) as file:
        assert len(file["entry/data/frames"]) == 3 * CHUNK
    for name in ("get", "series", "poll"):
        values = [v for v in by_name[name]["last"].values() if isinstance(v, float)]
        assert any(abs(value - newest["specular_intensity"]) < 0.01 for value in values), by_name[name]
