"""The map of a rotating sample: the profile along a line over the azimuth of the last turn; with a real server."""

from __future__ import annotations

import aiohttp
import numpy as np

from atomstream.server.dashboard.azimuth_map import frames_by_azimuth
from tests.live_server import Serve
from tests.wire_client import START_MS, WireClient


def test_each_bin_has_the_nearest_frame() -> None:
    """The nearest frame is found by measured azimuths, else by the nominal speed, in both directions of rotation."""
    unknown = np.full(8, np.nan)
    assert frames_by_azimuth(15, unknown, 8.0, 4) == {0: 9, 1: 11, 2: 13, 3: 15}
    measured = np.mod(-45.0 * np.arange(8) - 1.0, 360.0)
    found = frames_by_azimuth(15, measured, 8.0, 4)
    assert sorted(found) == [0, 1, 2, 3]
    assert all(abs(measured[frame - 8] - (45.0 + 90.0 * place)) < 46.0 for place, frame in found.items())
    assert frames_by_azimuth(2, np.full(3, np.nan), 100.0, 10) == {0: 2}


async def test_a_map(serve: Serve) -> None:
    """Each azimuth has the profile of its frame; a sample that does not turn has none."""
    server = await serve()
    async with WireClient(server) as client:
        turn = 24
        data_id = await client.create(fps_capture_rate=24.0, rotations_per_min=60.0)
        frames = np.zeros((turn, 8, 16), dtype=np.uint8)
        frames[:] = 100 + np.arange(turn)[:, None, None]
        stamps = {"start_unix_ms_utc": str(START_MS), "end_unix_ms_utc": str(START_MS + 1000)}
        assert (await client.send(data_id, 0, frames, chunk_size=turn, **stamps))[0] == 200
        box = {"type": "box", "name": "b", "x": 8, "y": 4, "width": 6, "height": 3}
        assert (await client.ask("PUT", f"/rheed/stream/{data_id}/regions", {"regions": [box]}))[0] == 200
        address = f"{server.url}/dashboard/streams/{data_id}/azimuth-map?line=b"
        async with aiohttp.ClientSession(headers=server.headers) as session, session.get(address) as reply:
            assert reply.status == 200
            rows = np.frombuffer(await reply.read(), "<f4").reshape(
                int(reply.headers["Atomstream-Rows"]), int(reply.headers["Atomstream-Columns"])
            )
        assert rows.shape == (24, 6)
        np.testing.assert_array_equal(rows, np.tile(rows[:, :1], 6))
        shown = rows[np.isfinite(rows[:, 0]), 0]
        assert len(np.unique(shown)) > 20
        assert set(shown.tolist()) <= set(range(100, 100 + turn))
        still = await client.create("Growth 002")
        status, reply = await client.ask("GET", f"/dashboard/streams/{still}/azimuth-map?line=b")
        assert status == 404
