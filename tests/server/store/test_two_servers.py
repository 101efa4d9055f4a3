"""Two real servers on one store: whichever receives a request, the stream is one, and each chunk is stored once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import ConfigError
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.mirror import GROUP
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.ports.store import StoreUnavailableError
from atomstream.server.streams import lifecycle, store_sync
from atomstream.server.streams.signals import StatusChanged
from tests.live_helpers import (
    CHUNK,
    FPS,
    batches_until,
    feed,
    frame_numbers,
    growth,
    next_message,
    send_chunks,
    stamps,
)
from tests.live_server import LiveServer, Serve
from tests.stores import s3_store, s3_url
from tests.wire_client import WireClient, make_frames, shard_bytes

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS

KEY = "one key of both servers " * 2
Pair = tuple[LiveServer, LiveServer]
MakePair = Callable[[str], Awaitable[Pair]]


@pytest.fixture
def pair(serve: Serve) -> MakePair:
    """Starts two servers with one key on a store."""

    async def start(store: str) -> Pair:
        return await serve(store=store, api_key=KEY), await serve(store=store, api_key=KEY)

    return start


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "store")
    engine: SeaweedFS = request.getfixturevalue("s3_server")
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    return s3_url(engine, f"pair/{uuid.uuid4()}")


async def _frames(server: LiveServer, data_id: str) -> Any:
    archive = await server.context.streams.archive(data_id)
    return archive.frames(0, archive.n_frames())


async def test_a_stream_by_way_of_two_servers(store: str, pair: MakePair) -> None:
    """Chunks go to either; an equal repeat is 200 and another body 409, on either; both list and end one stream."""
    a, b = await pair(store)
    chunks = [make_frames(4, seed=seed) for seed in range(4)]
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create("Growth 7")
        for index, client in enumerate((to_a, to_b, to_b, to_a)):
            assert (await client.send(data_id, index, chunks[index]))[0] == 200
        for index, client in enumerate((to_b, to_a, to_a, to_b)):
            assert (await client.send(data_id, index, chunks[index]))[0] == 200
            status, reply = await client.send(data_id, index, make_frames(4, seed=9))
            assert (status, "with other frames" in reply["detail"]) == (409, True)
        for client in (to_a, to_b):
            assert (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[1] == {"stored": "0-3"}
        status, reply = await to_b.end(data_id)
        assert (status, reply["pipeline_status"]) == (200, "success")
        for server, client in ((a, to_a), (b, to_b)):
            assert np.array_equal(await _frames(server, data_id), np.concatenate(chunks))
            await server.sync.exchange()
            entry = await client.entry(data_id)
            assert entry["pipeline_status"] == "success"
            assert entry["file_metadata"]["n_frames"] == 16


async def test_the_cache_of_a_server_may_be_deleted(store: str, serve: Serve, pair: MakePair) -> None:
    """A server that starts with an empty folder has all streams, and goes on with them."""
    a, b = await pair(store)
    await b.stop()
    async with WireClient(a) as client:
        data_id = await client.create("Growth 8")
        assert (await client.send(data_id, 0, make_frames(4, seed=0)))[0] == 200
    await a.stop()
    shutil.rmtree(a.data_dir)
    await a.start()
    await a.sync.exchange()
    async with WireClient(a) as client:
        assert (await client.entry(data_id))["raw_name"] == "Growth 8"
        assert (await client.send(data_id, 1, make_frames(4, seed=1)))[0] == 200
        assert (await client.send(data_id, 0, make_frames(4, seed=0)))[0] == 200
    expected = np.concatenate([make_frames(4, seed=0), make_frames(4, seed=1)])
    assert np.array_equal(await _frames(a, data_id), expected)


async def test_a_stream_is_deleted_on_all_servers(store: str, pair: MakePair) -> None:
    """Deleted by way of one, it is gone in the store and on the other."""
    a, b = await pair(store)
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create()
        for index, client in enumerate((to_a, to_b)):
            assert (await client.send(data_id, index, make_frames(4, seed=index)))[0] == 200
        await b.sync.exchange()
        assert (await to_a.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
        await b.sync.exchange()
        await b.sync.search()
        assert (await to_b.ask_url(data_id, 2, (4, 8, 12)))[0] == 410
        assert (await to_b.ask("GET", "/data_entries/"))[1] == []


async def test_a_list_that_is_too_short_deletes_nothing(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store in trouble may list nothing, with status 200: the streams whose descriptions it has are there."""
    server = await serve(store=str(tmp_path / "store"))
    async with WireClient(server) as client:
        data_id = await client.create()
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "children", lambda *_: [])
            await server.sync.search()
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
        assert [one["data_id"] for one in (await client.ask("GET", "/data_entries/"))[1]] == [data_id]


async def test_the_client_streams_and_xarray_reads_from_s3(
    s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    """zarr-python and xarray open the growing stream by the bucket alone; at the end it is whole there."""
    import xarray as xr
    from zarr.storage import ObjectStore

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    prefix = f"read/{uuid.uuid4()}"
    server = await serve(store=s3_url(s3_server, prefix))
    frames = make_frames(12, seed=3)
    async with AsyncRHEEDStreamer(server.api_key, server.url) as streamer:
        data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
        bucket = s3_store(s3_server, f"{prefix}/streams/{data_id}/frames.zarr")

        def read() -> Any:
            with xr.open_zarr(ObjectStore(bucket._open_bucket, read_only=True)) as group:
                return group["frames"].values, group["time"].values

        for index in range(3):
            await streamer.push(data_id, index, frames[4 * index : 4 * index + 4])
            await streamer.flush(data_id)
            await server.sync.copy()
            seen, times = read()
            assert np.array_equal(seen, frames[: 4 * index + 4])
            assert np.isfinite(times).all()
        report = await streamer.finalize(data_id)
    assert report["chunks_uploaded"] == 3
    assert np.array_equal(read()[0], frames)
    bucket.close()


async def test_a_cache_is_not_taken_for_a_data_folder(tmp_path: Path, serve: Serve) -> None:
    """Neither a server nor a command works on a cache by mistake, nor a cache on a folder with streams."""
    shared = await serve(store=str(tmp_path / "store"))
    await shared.stop()
    with pytest.raises(ConfigError, match="is only a cache of"):
        await serve(data_dir=shared.data_dir)
    with pytest.raises(ConfigError, match=r"is a cache of .*store, not of .*other"):
        await serve(data_dir=shared.data_dir, store=str(tmp_path / "other"))
    own = await serve()
    async with WireClient(own) as client:
        await client.create()
    await own.stop()
    with pytest.raises(ConfigError, match="contains streams, which"):
        await serve(data_dir=own.data_dir, store=str(tmp_path / "store"))


async def test_a_full_cache_loses_what_is_unused(tmp_path: Path, serve: Serve) -> None:
    """Streams that are not open lose their folders first, then open ones their old shards; all can be read again."""
    server = await serve(store=str(tmp_path / "store"), cache_bytes=1)
    ids = []
    async with WireClient(server) as client:
        for seed in range(2):
            ids.append(await client.create())
            assert (await client.send(ids[-1], 0, make_frames(4, seed=seed)))[0] == 200
            assert (await client.end(ids[-1]))[0] == 200
    folders = [server.folder(data_id) for data_id in ids]
    for shard in server.data_dir.glob("streams/*/frames.zarr/frames/c/0/0/0"):
        os.utime(shard, (0, 0))
    await server.stop()
    await server.start()
    await server.context.streams.archive(ids[1])
    await server.sync.shrink()
    shards = [(folder / "frames.zarr/frames/c/0/0/0").exists() for folder in folders]
    assert [folder.exists() for folder in folders] == [False, True]
    assert shards == [False, False]
    for seed, data_id in enumerate(ids):
        assert np.array_equal(await _frames(server, data_id), make_frames(4, seed=seed))


async def test_a_copy_that_is_interrupted_is_made_later(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a server interrupts a copy: the stream still counts as changed, and is copied once more."""
    monkeypatch.setattr(store_sync, "PERIOD_S", 1000.0)
    began, go_on, mirror = threading.Event(), threading.Event(), CachedArchive.mirror

    def hold_first(archive: CachedArchive, **options: bool) -> None:
        if not began.is_set():
            began.set()
            assert go_on.wait(30.0)
        else:
            mirror(archive, **options)

    monkeypatch.setattr(CachedArchive, "mirror", hold_first)
    server = await serve(store=str(tmp_path / "store"), api_key=KEY)
    async with WireClient(server) as client:
        data_id = await client.create("Growth 9")
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
        copying = asyncio.create_task(server.sync.copy())
        assert await asyncio.to_thread(began.wait, 30.0)
        copying.cancel()
        go_on.set()
        await asyncio.wait([copying])
        await server.sync.copy()
    group = json.loads(LocalStore(tmp_path / "store").fetch(f"streams/{data_id}/{GROUP}"))
    assert "frames" in group["consolidated_metadata"]["metadata"]


async def test_slow_replies_of_the_store_do_not_hold_up_other_streams(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight chunks that wait for the store at the same time wait together, not one after the other."""
    together = threading.Barrier(8)
    create_chunk = SharedStream.create_chunk

    def waits(stream: SharedStream, index: int, shard: bytes) -> bool:
        together.wait(timeout=60.0)
        return create_chunk(stream, index, shard)

    monkeypatch.setattr(SharedStream, "create_chunk", waits)
    server = await serve(store=str(tmp_path / "store"), decode_threads=1)
    async with WireClient(server) as client:
        ids = [await client.create() for _ in range(8)]
        replies = await asyncio.gather(*(client.send(data_id, 0, make_frames(4)) for data_id in ids))
    assert [status for status, _ in replies] == [200] * 8


async def test_a_chunk_whose_first_reply_was_lost_is_analysed(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the chunk and its reply does not come: the upload is sent again, and the analysis gets it."""
    create_chunk = SharedStream.create_chunk

    def unanswered(stream: SharedStream, index: int, shard: bytes) -> bool:
        create_chunk(stream, index, shard)
        monkeypatch.setattr(SharedStream, "create_chunk", create_chunk)
        raise StoreUnavailableError("no reply")

    server = await serve(store=str(tmp_path / "store"))
    frames = growth(3 * CHUNK)
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        await send_chunks(client, data_id, frames[:CHUNK])
        url = await client.url(data_id, 1, (CHUNK, *frames.shape[1:]), CHUNK, **stamps(1, CHUNK))
        body = shard_bytes(frames[CHUNK : 2 * CHUNK])
        monkeypatch.setattr(SharedStream, "create_chunk", unanswered)
        assert (await client.put(url, body))[0] == 503
        assert (await client.put(url, body))[0] == 200
        async with feed(client, data_id) as socket:
            found = await batches_until(socket, 2 * CHUNK)
    assert frame_numbers(found) == list(range(2 * CHUNK))


async def test_chunks_that_a_request_has_found_are_analysed(tmp_path: Path, pair: MakePair) -> None:
    """A client asks which chunks are stored, which takes over those of the other server: they are analysed here."""
    a, b = await pair(str(tmp_path / "store"))
    frames = growth(2 * CHUNK)
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create(fps_capture_rate=FPS)
        await send_chunks(to_a, data_id, frames[:CHUNK])
        async with feed(to_a, data_id) as socket:
            await batches_until(socket, CHUNK)
            await send_chunks(to_b, data_id, frames, indices=[1])
            assert (await to_a.ask("GET", f"/rheed/stream/{data_id}/chunks"))[1] == {"stored": "0-1"}
            await a.sync.exchange()
            found = await batches_until(socket, 2 * CHUNK)
    assert frame_numbers(found) == list(range(CHUNK, 2 * CHUNK))


async def test_chunks_that_follow_one_another_read_no_description(
    tmp_path: Path, pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description is read with the first chunk, not with each: chunks of 0.1 s are ten a second. A late chunk reads
    it at once."""
    monkeypatch.setattr(lifecycle, "READ_S", 3600.0)
    monkeypatch.setattr(store_sync, "PERIOD_S", 3600.0)
    a, _ = await pair(str(tmp_path / "store"))
    reads: list[str] = []
    read_about = SharedStream.read_about

    def counted(shared: SharedStream) -> dict[str, Any]:
        reads.append(shared.data_id)
        return read_about(shared)

    async with WireClient(a) as client:
        data_id = await client.create("Growth 8")
        await client.send(data_id, 0, make_frames(4))
        monkeypatch.setattr(SharedStream, "read_about", counted)
        for index in (1, 2, 3, 5):
            assert (await client.send(data_id, index, make_frames(4, seed=index)))[0] == 200
        assert reads == []
        assert (await client.send(data_id, 4, make_frames(4, seed=4)))[0] == 200
        assert reads == [data_id]


@pytest.mark.parametrize("stops", [False, True])
async def test_a_chunk_after_the_end_at_another_server_finishes_the_stream(
    tmp_path: Path, pair: MakePair, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """It follows the chunk before so soon that the description is read later: after a time, or at the stop."""
    if stops:
        monkeypatch.setattr(lifecycle, "READ_S", 3600.0)
        monkeypatch.setattr(store_sync, "PERIOD_S", 3600.0)
    a, b = await pair(str(tmp_path / "store"))
    statuses: asyncio.Queue[str] = asyncio.Queue()

    async def note(change: StatusChanged) -> None:
        statuses.put_nowait(change.status)

    a.context.signals.status_changed.subscribe(note)
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create("Growth 9")
        await to_a.send(data_id, 0, make_frames(4))
        await to_a.send(data_id, 1, make_frames(4, seed=1))
        assert (await to_b.end(data_id))[1]["pipeline_status"] == "success"
        assert (await to_a.send(data_id, 2, make_frames(4, seed=2)))[0] == 200
        if stops:
            assert statuses.empty()
            await a.stop()
        assert [await statuses.get() for _ in range(2)] == ["stream_finalizing", "success"]
        assert (await to_b.entry(data_id))["pipeline_status"] == "success"


async def test_a_chunk_during_the_reading_is_followed_by_another(
    tmp_path: Path, pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream was ended just after the description was read, and then a chunk came: it is read once more."""
    monkeypatch.setattr(lifecycle, "READ_S", 3600.0)
    monkeypatch.setattr(store_sync, "PERIOD_S", 3600.0)
    a, b = await pair(str(tmp_path / "store"))
    has_read, go_on, read_about = threading.Event(), threading.Event(), SharedStream.read_about

    def hold_first(shared: SharedStream) -> dict[str, Any]:
        found = read_about(shared)
        if not has_read.is_set():
            has_read.set()
            assert go_on.wait(30.0)
        return found

    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create("Growth 10")
        for index in range(2):
            await to_a.send(data_id, index, make_frames(4, seed=index))
        monkeypatch.setattr(SharedStream, "read_about", hold_first)
        reading = asyncio.create_task(a.context.lifecycle.read_unread())
        assert await asyncio.to_thread(has_read.wait, 30.0)
        assert (await to_b.end(data_id))[1]["pipeline_status"] == "success"
        assert (await to_a.send(data_id, 2, make_frames(4, seed=2)))[0] == 200
        go_on.set()
        await reading
        await a.context.lifecycle.read_unread()
        assert (await to_a.entry(data_id))["pipeline_status"] == "success"
        assert (await a.context.streams.about(data_id)).status == "success"


async def test_a_feed_at_the_other_server_has_all_results_and_the_end(tmp_path: Path, pair: MakePair) -> None:
    """A feed is opened while the stream runs, at the server that has received no chunk; they share only the store."""
    a, b = await pair(str(tmp_path / "store"))
    frames = growth(4 * CHUNK)
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create(fps_capture_rate=FPS)
        await send_chunks(to_a, data_id, frames[: 2 * CHUNK])
        async with feed(to_b, data_id) as socket:
            await send_chunks(to_a, data_id, frames, indices=[2, 3])
            await to_a.end(data_id)
            found = await batches_until(socket, 4 * CHUNK)
            await next_message(socket, "end")
    assert frame_numbers(found) == list(range(4 * CHUNK))


async def test_a_feed_at_the_other_server_after_the_end(tmp_path: Path, pair: MakePair) -> None:
    """It is opened before the first server has analysed the stream: it has all results and the end, too."""
    a, b = await pair(str(tmp_path / "store"))
    frames = growth(4 * CHUNK)
    async with WireClient(a) as to_a, WireClient(b) as to_b:
        data_id = await to_a.create(fps_capture_rate=FPS)
        await send_chunks(to_a, data_id, frames)
        await to_a.end(data_id)
        async with feed(to_b, data_id) as socket:
            found = await batches_until(socket, 4 * CHUNK)
            await next_message(socket, "end")
        async with feed(to_a, data_id) as socket:
            first = await batches_until(socket, 4 * CHUNK)
    assert frame_numbers(found) == frame_numbers(first) == list(range(4 * CHUNK))
