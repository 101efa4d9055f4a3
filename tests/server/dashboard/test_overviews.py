"""What lists and the page of a sample get beside the catalogue: small pictures, summaries, all streams over time."""

from __future__ import annotations

import numpy as np

from atomstream.server.dashboard.images import PICTURE_HEADER
from atomstream.server.dashboard.overviews import WIDTH, small_picture
from tests.live_server import Serve
from tests.server.live.cluster_parts import until_over
from tests.wire_client import START_MS, WireClient, make_frames

UNKNOWN = "11111111-1111-4111-8111-111111111111"


def test_a_small_picture() -> None:
    """At most ``WIDTH`` wide, of the same shape, and its brightest parts are white."""
    raw = np.zeros((300, 1000), np.uint16)
    raw[100:140, 400:440] = 90
    made = small_picture(7, raw)
    assert (made.frame, made.full_size) == (7, (300, 1000))
    assert made.pixels.shape[1] <= WIDTH
    assert made.pixels.shape[0] == 300 // 11
    assert (made.pixels.max(), made.pixels.min()) == (255, 0)
    assert small_picture(0, np.zeros((2, 2), np.uint8)).pixels.max() == 0


async def test_overviews_of_streams(serve: Serve) -> None:
    """Each stream has a picture once it has frames; the summaries are those of the streams that exist."""
    async with WireClient(server := await serve()) as client:
        first, empty = await client.create("A"), await client.create("B")
        await client.send(first, 0, make_frames(4))
        await client.end(first)
        await until_over(await server.context.results.of(first))

        async def picture(data_id: str) -> tuple[int, bytes]:
            url = f"{client.server.url}/dashboard/streams/{data_id}/thumbnail"
            async with client.session.get(url) as reply:
                return reply.status, await reply.read()

        status, body = await picture(first)
        _, frame, width, height, *_ = PICTURE_HEADER.unpack_from(body)
        assert (status, frame) == (200, 2)
        assert len(body) == PICTURE_HEADER.size + width * height
        assert (await picture(first))[1] == body
        assert (await picture(empty))[0] == 404
        path = "/dashboard/summaries?data_ids="
        status, found = await client.ask("GET", f"{path}{first}&data_ids={empty}&data_ids={UNKNOWN}")
        assert (status, sorted(found)) == (200, sorted([first, empty]))
        assert found[empty] == {"rate": None, "relative_error": None, "layers": None, "thickness_nm": None}
        assert (await client.ask("GET", f"{path}x"))[0] == 400
        assert await client.ask("GET", "/dashboard/summaries") == (200, {})


async def test_all_streams_of_a_sample(serve: Serve) -> None:
    """Each with its begin and one result; an unknown sample is a 404."""
    async with WireClient(await serve()) as client:
        ids = []
        for name in ("A", "B", "other"):
            ids.append(await client.create(name))
            await client.send(ids[-1], 0, make_frames(4))
        for data_id in ids[:2]:
            _, reply = await client.ask("PATCH", f"/rheed/stream/{data_id}", {"sample_name": "Wafer"})
        path = f"/dashboard/samples/{reply['physical_sample_id']}"
        status, found = await client.ask("GET", f"{path}?name=specular_intensity")
        assert (status, found["name"], found["unit"], found["more"]) == (200, "Wafer", "counts", False)
        assert {stream["data_id"] for stream in found["streams"]} == set(ids[:2])
        for stream in found["streams"]:
            assert stream["begin_unix_ms"] == START_MS
            assert len(stream["t"]) == len(stream["values"]) == 4
        assert (await client.ask("GET", f"{path}?name=../x"))[0] == 400
        assert (await client.ask("GET", f"/dashboard/samples/{UNKNOWN}"))[0] == 404
