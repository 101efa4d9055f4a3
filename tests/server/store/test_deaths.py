"""A server dies in the middle of an upload, and S3 is unreachable: the real client loses nothing, and nothing is
doubled.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.ports.store import Store
from tests.engines import running
from tests.live_server import Serve
from tests.server.store.server_process import ServerProcess, passed_on
from tests.stores import s3_store, s3_url
from tests.wire_client import WireClient, make_frames, shard_bytes

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS

KEY = "one key of both servers " * 2


def _stored(store: Store, data_id: str) -> Any:
    """The frames of a stream as zarr-python reads them from the bucket."""
    import zarr
    from zarr.storage import ObjectStore

    path = f"streams/{data_id}/frames.zarr"
    group: Any = zarr.open_group(ObjectStore(store._open_bucket), path=path, mode="r")  # type: ignore[attr-defined]
    return np.asarray(group["frames"][:])


@pytest.mark.slow
async def test_a_server_is_killed_while_it_stores_a_chunk(s3_server: SeaweedFS, tmp_path: Path) -> None:
    """SIGKILL after S3 has stored a chunk and before the server has the reply: a new server with an empty folder
    continues.

    The client sends the chunk again, which is answered as a repeat.
    """
    killed = asyncio.Event()
    puts: set[str] = set()

    def heard(what: str, data: bytes) -> bool:
        if what == "request" and data.startswith(b"PUT ") and b"/frames/c/1/0/0" in data:
            puts.add("chunk 1")
        if what == "reply" and puts and not killed.is_set():
            killed.set()
            server.kill()
            return False
        return True

    prefix = f"deaths/{uuid.uuid4()}"
    frames = make_frames(12, seed=5)
    async with passed_on(s3_server.url, heard) as endpoint:
        url = s3_url(s3_server, prefix).replace(s3_server.url, endpoint)
        server = ServerProcess(url, tmp_path / "cache", KEY, s3_server.environment)
        store = s3_store(s3_server, prefix)
        try:
            await server.start()
            async with AsyncRHEEDStreamer(KEY, server.url, spool_dir=tmp_path / "spool") as streamer:
                data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
                await streamer.push(data_id, 0, frames[:4])
                await streamer.flush(data_id)
                await streamer.push(data_id, 1, frames[4:8])
                await killed.wait()
                await server.ended()
                assert SharedStream(store, data_id).listing().chunks.ranges() == [(0, 1)]
                shutil.rmtree(server.data_dir)
                await server.start()
                await streamer.push(data_id, 2, frames[8:])
                report = await streamer.finalize(data_id)
            assert (report["chunks_uploaded"], report["lost"]) == (3, [])
            assert np.array_equal(_stored(store, data_id), frames)
        finally:
            await server.ended()
            store.close()


@pytest.mark.slow
async def test_s3_is_unreachable_for_some_time(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uploads are answered with 503 with Retry-After; the client keeps all, and sends it when S3 is back."""
    from atomstream.cluster.engines import SeaweedFS

    with running(SeaweedFS) as engine:
        for name, value in engine.environment.items():
            monkeypatch.setenv(name, value)
        server = await serve(store=s3_url(engine, "away"), api_key=KEY)
        frames = make_frames(8, seed=6)
        async with (
            WireClient(server) as client,
            AsyncRHEEDStreamer(KEY, server.url, spool_dir=tmp_path / "spool") as streamer,
        ):
            data_id = await streamer.initialize(fps=2.0, rotations_per_min=0.0, chunk_size=4)
            await streamer.push(data_id, 0, frames[:4])
            await streamer.flush(data_id)
            other = await client.create()
            url = await client.url(other, 0, (4, 8, 12))
            engine.kill()
            await streamer.push(data_id, 1, frames[4:])
            status, reply, headers = await client.put(url, shard_bytes(frames[:4]))
            assert (status, headers["Retry-After"]) == (503, "2")
            assert "store of this server can't be reached" in reply["detail"]
            assert (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0] == 503
            async with client.session.get(f"{server.url}/rheed/stream/{data_id}/chunks/0") as cached:
                assert cached.status == 200
            engine.start()
            report = await streamer.finalize(data_id)
            assert (await client.put(url, shard_bytes(frames[:4])))[0] == 200
        assert (report["chunks_uploaded"], report["chunks_failed"], report["lost"]) == (2, 0, [])
        store = s3_store(engine, "away")
        assert np.array_equal(_stored(store, data_id), frames)
        store.close()
        await server.stop()
