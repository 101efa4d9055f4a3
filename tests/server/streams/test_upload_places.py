"""Places for uploads: a slow or greedy one makes room for another stream or key."""

from __future__ import annotations

import asyncio

import pytest

from atomstream.server.http.responses import HttpError
from atomstream.server.streams.upload_places import YOUNG_S, Upload, UploadPlaces
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames, raw_connection, request_head, shard_bytes


async def begin(places: UploadPlaces, key: str, stream: str, age_s: float, received: int) -> Upload:
    """An upload that has lasted ``age_s``."""
    upload = places.acquire(key, stream)
    await upload.timeout.__aenter__()
    upload.receiving = True
    upload.begun -= age_s
    upload.received = received
    return upload


@pytest.fixture
def places() -> UploadPlaces:
    return UploadPlaces(4, min_rate=1000)


async def test_the_slowest_makes_room(places: UploadPlaces) -> None:
    """When all places are taken, an upload below the least rate loses its place, also to its own stream."""
    uploads = [await begin(places, "key", "a", 2 * YOUNG_S, received) for received in (9000, 10, 500, 9000)]
    places.acquire("key", "a")
    places.acquire("key", "a")
    assert [upload.lost_place for upload in uploads] == [False, True, True, False]
    with pytest.raises(HttpError) as refused:
        places.acquire("key", "a")
    assert refused.value.status == 503


async def test_a_new_upload_is_not_judged_by_its_rate(places: UploadPlaces) -> None:
    """An upload that has just begun keeps its place."""
    for _ in range(4):
        await begin(places, "key", "a", 0.0, 0)
    with pytest.raises(HttpError):
        places.acquire("key", "a")


async def test_places_are_fair_over_streams_and_keys(places: UploadPlaces) -> None:
    """A stream without a place gets one of the stream with most of them, and so does a key."""
    first = [await begin(places, "key", "a", 0.1, received) for received in (900, 100, 900, 900)]
    await begin(places, "key", "b", 0.0, 0)
    assert [upload.lost_place for upload in first] == [False, True, False, False]
    await begin(places, "key", "b", 0.0, 0)
    with pytest.raises(HttpError):  # two each
        places.acquire("key", "b")
    others = [await begin(places, "other key", "a", 0.0, 0) for _ in range(2)]
    with pytest.raises(HttpError):  # two for each key
        places.acquire("other key", "a")
    await begin(places, "other key", "c", 0.0, 0)  # takes a place of the same stream, which has two
    assert sorted(upload.key for upload in places.receiving()) == ["key", "key", "other key", "other key"]
    assert [upload.lost_place for upload in others].count(True) == 1


async def test_slow_uploads_keep_nobody_out(serve: Serve) -> None:
    """With all places held by uploads that send nothing, the chunk of another stream is stored at once."""
    server = await serve(max_uploads=3, linger_s=0.05)
    async with WireClient(server) as client, asyncio.TaskGroup() as group:
        slow, camera = await client.create("slow"), await client.create("camera")
        held, release = asyncio.Semaphore(0), asyncio.Event()
        for index in range(3):
            url = await client.url(slow, index, (4, 8, 12))
            group.create_task(hold(url, held, release))
        for _ in range(3):
            await held.acquire()
        while len(server.context.ingest.places.receiving()) < 3:
            await asyncio.sleep(0.01)
        assert (await client.send(camera, 0, make_frames(4)))[0] == 200
        release.set()


async def hold(url: str, held: asyncio.Semaphore, release: asyncio.Event) -> None:
    """Send a byte of an upload and wait."""
    body = shard_bytes(make_frames(4))
    async with raw_connection(url) as (_, writer):
        writer.write(request_head("PUT", url, {"Content-Length": str(len(body))}) + body[:1])
        await writer.drain()
        held.release()
        await release.wait()
