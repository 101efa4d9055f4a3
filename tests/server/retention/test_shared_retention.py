"""The rules of retention on a store that several servers share: who runs them, what all servers see, and kills."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.server.archive.analysis_note import AGAIN, AnalysisNote
from atomstream.server.archive.analysis_note import STALE_S as STALE_NOTE_S
from atomstream.server.archive.cached_archive import CachedArchive
from atomstream.server.archive.metadata import RUNNING
from atomstream.server.archive.shared_stream import SharedStream
from atomstream.server.archive.thinning import KEPT
from atomstream.server.live.reanalysis import Reanalysis
from atomstream.server.ports.local_store import LocalStore
from atomstream.server.retention.report import RetentionReport
from atomstream.server.retention.shared_report import STALE_S, StoreRecord
from atomstream.server.retention_rules import RetentionSettings
from tests.fake_clock import Clock
from tests.live_helpers import analysed
from tests.live_server import LiveServer, Serve
from tests.server.live.cluster_parts import until_over
from tests.server.upkeep.upkeep_helpers import Killed
from tests.stores import s3_url
from tests.wire_client import WireClient, make_frames

if TYPE_CHECKING:
    from atomstream.cluster.engines import SeaweedFS

RULES = RetentionSettings.parse({"rules": [{"whole_days": 0, "keep_every": 5, "around_s": 0}]})
FRAMES = make_frames(24, 32, 48)
FPS = 10.0
KEY = "one key of both servers " * 2
LEFT = [0, 5, 10, 15, 20]


async def a_stream(server: LiveServer) -> str:
    """A finished and analysed stream of 24 frames in chunks of 6, which nobody has read lately."""
    async with WireClient(server) as client:
        data_id = await client.create("Growth 001", fps_capture_rate=FPS)
        await analysed(client, data_id, FRAMES, chunk=6, fps=FPS)
    await server.stop()
    await server.start()
    return data_id


async def frames_of(server: LiveServer, data_id: str) -> Any:
    archive = await server.context.streams.archive(data_id)
    return await asyncio.to_thread(archive.frames, 0, archive.n_frames())


def check_thinned(frames: Any) -> None:
    """One frame in 5 is as it was sent, and no other one is there."""
    assert (frames[:24][LEFT] == FRAMES[LEFT]).all()
    assert not np.delete(frames[:24], LEFT, axis=0).any()


async def test_frames_go_for_all_servers(
    s3_server: SeaweedFS, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preview changes nothing. After a run by one server another one, which had all frames, has what is left."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    store = s3_url(s3_server, f"retention/{uuid.uuid4()}")
    a = await serve(store=store, api_key=KEY, retention=RULES)
    data_id = await a_stream(a)
    b = await serve(store=store, api_key=KEY)
    assert (await frames_of(b, data_id) == FRAMES).all()
    (planned,) = (await a.context.retention.preview()).actions
    assert (planned.data_id, planned.every) == (data_id, 5)
    assert (await frames_of(a, data_id) == FRAMES).all()
    (action,) = (await a.context.retention.run()).actions
    assert action.freed_bytes > 0
    check_thinned(await frames_of(a, data_id))
    await b.context.streams.refresh_shared()
    check_thinned(await frames_of(b, data_id))
    archive = await b.context.streams.archive(data_id)
    assert np.flatnonzero(archive.thinned.read(0, 24)).tolist() == LEFT
    async with WireClient(b) as client:
        status, reply = await client.ask("POST", f"/rheed/stream/{data_id}/reanalyse")
        assert (status, "removed by the rules" in reply["detail"]) == (409, True)
        assert (await client.ask("GET", "/retention"))[1]["actions"][0]["data_id"] == data_id
        late = make_frames(6, 32, 48, seed=5)
        assert (await client.send(data_id, 4, late, 6))[0] == 200
    assert (await a.context.retention.run()).actions == []
    assert ((await frames_of(b, data_id))[24:] == late).all()


async def test_a_folder_of_the_cache_that_is_older(tmp_path: Path, serve: Serve) -> None:
    """A server that did not run meanwhile has all shards in its cache: it reads what is left."""
    store = str(tmp_path / "store")
    a = await serve(store=store, api_key=KEY, retention=RULES)
    data_id = await a_stream(a)
    b = await serve(store=store, api_key=KEY)
    await frames_of(b, data_id)
    await b.stop()
    await a.context.retention.run()
    await b.start()
    check_thinned(await frames_of(b, data_id))
    kept = zarr_of(tmp_path / "store", data_id)[KEPT][:]
    assert np.flatnonzero(kept).tolist() == LEFT


def zarr_of(store: Path, data_id: str) -> Any:
    import zarr

    return zarr.open_group(store / "streams" / data_id / "frames.zarr", mode="r")


async def test_what_runs_anywhere_is_left_alone(tmp_path: Path, serve: Serve) -> None:
    """A stream without an end, and one that some process analyses again, as the store shows."""
    a = await serve(store=str(tmp_path / "store"), api_key=KEY, retention=RULES)
    analysed_again = await a_stream(a)
    async with WireClient(a) as client:
        running = await client.create("running")
        assert (await client.send(running, 0, FRAMES[:4], 4))[0] == 200
    objects = LocalStore(tmp_path / "store")
    objects.put(f"streams/{analysed_again}/{RUNNING}", b"reanalysis")
    report = await a.context.retention.run()
    assert report.actions == []
    assert dict(report.skipped) == {
        running: "it runs (stream_active)",
        analysed_again: "its analysis has not ended",
    }
    assert await a.context.retention.thin(analysed_again, 5, 0.0) is None
    about = SharedStream(objects, analysed_again).read_about()
    assert about["thinning"] is None
    objects.delete(f"streams/{analysed_again}/{RUNNING}")
    here = a.folder(analysed_again) / RUNNING  # this server analyses it again itself
    here.write_bytes(b"reanalysis")
    assert await a.context.retention.thin(analysed_again, 5, 0.0) is None
    here.unlink()
    assert [action.data_id for action in (await a.context.retention.run()).actions] == [analysed_again]


async def test_a_reanalysis_by_another_server(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bus too: no server removes frames of a stream that another one analyses again, and the other way
    round. The note of a process that has ended gets stale."""
    store = str(tmp_path / "store")
    a = await serve(store=store, api_key=KEY, retention=RULES)
    data_id = await a_stream(a)
    b = await serve(store=store, api_key=KEY, retention=RULES)
    begun, go_on, run = asyncio.Event(), asyncio.Event(), Reanalysis.run

    async def held(again: Reanalysis) -> Any:
        begun.set()
        await go_on.wait()
        return await run(again)

    monkeypatch.setattr(Reanalysis, "run", held)
    with a.context.results.unnoticed(data_id):
        results = await a.context.results.of(data_id)
    assert results.reanalyse()
    async with asyncio.timeout(60):
        await begun.wait()
    assert dict((await b.context.retention.run()).skipped) == {data_id: "its analysis has not ended"}
    assert await b.context.retention.thin(data_id, 5, 0.0) is None
    go_on.set()
    await until_over(results)
    shared = SharedStream(LocalStore(tmp_path / "store"), data_id)
    assert shared.names(AGAIN) == []
    AnalysisNote(shared, lambda: time.time() - 2 * STALE_NOTE_S).renew()
    report = await b.context.retention.run()
    assert (report.skipped, report.failed, [action.data_id for action in report.actions]) == (
        [],
        [],
        [data_id],
    )
    begun.clear()
    results.reanalyse()
    await until_over(results)
    assert not begun.is_set()


async def test_one_server_at_a_time(tmp_path: Path) -> None:
    """A second server waits for the end of the run; if its record stays as it is for long, the other one takes over."""
    store, clock = LocalStore(tmp_path), Clock()
    a, b = StoreRecord(store, clock), StoreRecord(store, clock)
    await a.begin(1.0)
    with pytest.raises(ConfigError, match="Another server"):
        await b.begin(2.0)
    report = RetentionReport(began=1.0, ended=3.0, over=["much"])
    await a.end(report)
    assert await b.refresh() == report
    await b.begin(4.0)
    with pytest.raises(ConfigError, match="Another server"):
        await a.begin(5.0)
    clock.now += STALE_S
    await a.begin(6.0)  # b has died without a word
    await b.end(RetentionReport(began=4.0, ended=7.0))  # or it was frozen
    await a.end(RetentionReport(began=6.0, ended=8.0))
    found = await b.refresh()
    assert found is not None
    assert (found.began, found.running) == (6.0, False)


class DyingStore(LocalStore):
    """Dies at the ``step``-th object that is written, before or after writing it."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder)
        self._left = step

    def put(self, key: str, data: Any, **options: Any) -> str:
        self._left -= 1
        if self._left <= 0:
            raise Killed
        etag = super().put(key, data, **options)
        self._left -= 1
        if self._left <= 0:
            raise Killed
        return etag


@pytest.mark.parametrize(("object_s", "least"), [(0.0, 5), (1.3, 3)])
async def test_a_kill_at_every_step(memory_path: Path, serve: Serve, object_s: float, least: int) -> None:
    """Each frame is as before or removed as planned; another server completes it from an empty cache.

    Four chunks are four objects, or merged into two.
    """
    place = memory_path / "store"
    server = await serve(store=str(place), api_key=KEY, retention=RULES, object_s=object_s)
    data_id = await a_stream(server)
    retention, streams = server.context.retention, server.context.streams
    shutil.copytree(place, memory_path / "before")

    def opened(name: str, objects: LocalStore) -> CachedArchive:
        folder = memory_path / name / data_id
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        archive = CachedArchive.open_shared(folder, SharedStream(objects, data_id))
        streams._keep(data_id, archive)
        return archive

    step, partial = 0, 0
    while True:
        step += 1
        shutil.rmtree(place)
        shutil.copytree(memory_path / "before", place)
        opened("killed", DyingStore(place, step))
        try:
            await retention.thin(data_id, 5, 0.0)
            break
        except Killed:
            pass
        archive = opened("next", LocalStore(place))
        frames = archive.frames(0, 24)
        there = np.array([frame.any() for frame in frames])
        assert (frames[there] == FRAMES[there]).all()
        assert there[LEFT].all()
        if (archive.description.get("thinning") or {}).get("planned"):
            assert there[archive.thinned.read(0, 24)].all()
        partial += not there.all()
        await retention.thin(data_id, 5, 0.0)
        check_thinned(opened("last", LocalStore(place)).frames(0, 24))
        assert np.flatnonzero(zarr_of(place, data_id)[KEPT][:]).tolist() == LEFT
    assert partial > least
