"""The rules of retention in a running server: what is changed, what never is, and a kill at every step."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from click.testing import CliRunner

from atomstream.cli import commands
from atomstream.protocol import EXPORT_PATH
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.archive.thinning import KEPT
from atomstream.server.data_dir import upkeep_lock
from atomstream.server.retention_rules import RetentionSettings
from tests.live_helpers import analysed, analysis_status
from tests.live_server import LiveServer, Serve
from tests.server.upkeep.upkeep_helpers import DyingFileSystem, Killed
from tests.wire_client import START_MS, WireClient, make_frames

NOW = {"rules": [{"whole_days": 0, "keep_every": 5, "around_s": 0.15}]}
FRAMES = make_frames(24, 32, 48)
FPS = 10.0


async def a_stream(server: LiveServer, client: WireClient, name: str = "Growth 001", **more: Any) -> str:
    """A finished and analysed stream of 24 frames in chunks of 6."""
    data_id = await client.create(name, fps_capture_rate=FPS, **more)
    await analysed(client, data_id, FRAMES, chunk=6, fps=FPS)
    return data_id


async def rested(server: LiveServer) -> None:
    """Restart the server: then nobody has read a stream lately."""
    await server.stop()
    await server.start()


async def thinned_stream(serve: Serve, **settings: Any) -> tuple[LiveServer, str]:
    """A server with a stream that the rules have thinned, with a mark at 1.2 s."""
    server = await serve(retention=RetentionSettings.parse(NOW), **settings)
    async with WireClient(server) as client:
        data_id = await a_stream(server, client)
        mark = {"kind": "note", "label": "here", "time_ms_utc": START_MS + 1200.0, "value": None}
        assert (await client.ask("POST", f"/rheed/stream/{data_id}/events", mark))[0] == 200
    await rested(server)
    report = await server.context.retention.run()
    assert [action.data_id for action in report.actions] == [data_id]
    return server, data_id


def kept_of(server: LiveServer, data_id: str) -> list[int]:
    """The frame numbers that the archive names."""
    import zarr

    group: Any = zarr.open_group(server.folder(data_id) / "frames.zarr", mode="r")
    return [int(n) for n in np.flatnonzero(group[KEPT][:])]


async def test_frames_go_results_stay(serve: Serve) -> None:
    """One frame in 5 and those near the mark are left, bit-equal; series, marks and the list are as before."""
    server = await serve(retention=RetentionSettings.parse(NOW))
    async with WireClient(server) as client:
        data_id = await a_stream(server, client)
        mark = {"kind": "note", "label": "here", "time_ms_utc": START_MS + 1200.0, "value": None}
        await client.ask("POST", f"/rheed/stream/{data_id}/events", mark)
        before = await analysis_status(client, data_id)
        series = await client.ask("GET", f"/dashboard/streams/{data_id}/series?columns=specular_intensity")
        await rested(server)
        report = await server.context.retention.run()
        (action,) = report.actions
        assert action.freed_bytes > 0
        assert kept_of(server, data_id) == [0, 5, 10, 11, 12, 13, 15, 20]
        stored = server.frames(data_id)
        assert (stored[kept_of(server, data_id)] == FRAMES[kept_of(server, data_id)]).all()
        assert not np.delete(stored, kept_of(server, data_id), axis=0).any()
        after = await analysis_status(client, data_id)
        assert after["thinning"]["every"] == 5
        assert after["thinning"]["frames_left"] == 8
        assert after["thinning"]["bytes_freed"] == action.freed_bytes
        assert {**after, "thinning": None} == {**before, "thinning": None}
        assert (
            await client.ask("GET", f"/dashboard/streams/{data_id}/series?columns=specular_intensity")
            == series
        )
        info = (await client.ask("GET", f"/dashboard/streams/{data_id}"))[1]
        assert info["thinning"]["complete"]
        assert info["frames_stored"] == 24
    await rested(server)
    assert (await server.context.retention.run()).actions == []


async def test_nothing_replaces_the_results_of_a_thinned_stream(serve: Serve) -> None:
    """No analysis again: neither on request, nor for a calibration, a region, or a late chunk; each refusal has the
    reason."""
    server, data_id = await thinned_stream(serve)
    async with WireClient(server) as client:
        before = await analysis_status(client, data_id)
        for method, path, body in (
            ("POST", "reanalyse", None),
            ("PUT", "calibration", {"layer_thickness_nm": 0.39}),
            (
                "PUT",
                "regions",
                {"regions": [{"type": "box", "name": "b", "x": 1, "y": 1, "width": 9, "height": 9}]},
            ),
        ):
            status, reply = await client.ask(method, f"/rheed/stream/{data_id}/{path}", body)
            assert status in (400, 409), reply
            if status == 409:
                assert "removed by the rules" in reply["detail"]
        status, _ = await client.send(data_id, 4, make_frames(6, 32, 48, seed=5), 6)
        assert status == 200
        after = await analysis_status(client, data_id)
        assert not after["reanalysis"]
        assert after["values"] == before["values"]
    assert kept_of(server, data_id)[-6:] == [24, 25, 26, 27, 28, 29]


async def test_the_page_shows_the_nearest_frame_that_is_left(serve: Serve) -> None:
    """A picture of a removed frame is that of the nearest one, with its own time and number."""
    server, data_id = await thinned_stream(serve)
    async with (
        aiohttp.ClientSession(headers=server.headers) as session,
        session.get(f"{server.url}/dashboard/streams/{data_id}/picture?time=1.7") as reply,
    ):
        body = await reply.read()
    from atomstream.protocol import PICTURE_HEADER

    time_s, frame, width, height, *_ = PICTURE_HEADER.unpack(body[: PICTURE_HEADER.size])
    assert (frame, round(time_s, 3)) == (15, 1.5)
    assert body[PICTURE_HEADER.size :] == FRAMES[15].tobytes()
    assert (width, height) == (48, 32)


async def test_what_runs_or_is_read_is_left_alone(serve: Serve) -> None:
    """A stream that runs, one that a page shows and one that was asked for lately are skipped, with the reason."""
    server = await serve(retention=RetentionSettings.parse(NOW))
    async with WireClient(server) as client:
        shown, resting = await a_stream(server, client, "shown"), await a_stream(server, client, "resting")
        running = await client.create("running")
        await client.send(running, 0, FRAMES[:4], 4)
        await rested(server)
        await analysis_status(client, shown)
        preview = (await client.ask("GET", "/retention/preview"))[1]
        assert [action["data_id"] for action in preview["actions"]] == [resting]
        assert dict(preview["skipped"]) == {running: "it runs (stream_active)", shown: "it is being read"}
        assert (await client.ask("POST", "/retention/run"))[0] == 202
        await server.context.retention.wait()
        report = (await client.ask("GET", "/retention"))[1]
        assert [action["data_id"] for action in report["actions"]] == [resting]
    assert (server.frames(shown) == FRAMES).all()
    assert server.frames(running).any()


async def test_a_backup_and_a_run_exclude_each_other(serve: Serve) -> None:
    """While one of them works on the folder, the other one is refused with that reason and changes nothing."""
    from atomstream.errors import ConfigError
    from atomstream.server.upkeep.backup import back_up

    server = await serve(retention=RetentionSettings.parse(NOW))
    lock = upkeep_lock(server.data_dir)
    with lock:
        with pytest.raises(ConfigError, match="backup"):
            await server.context.retention.run()
        with pytest.raises(ConfigError, match="retention"):
            back_up(server.data_dir, server.data_dir.parent / f"backups-{time.monotonic_ns()}")
    assert (await server.context.retention.run()).actions == []


async def test_a_kill_at_every_step(memory_path: Path, serve: Serve) -> None:
    """Each frame is as before or removed as planned, frame_kept names none that is gone, a new run completes it."""
    server = await serve(data_dir=memory_path / "server", retention=RetentionSettings.parse(NOW))
    async with WireClient(server) as client:
        data_id = await a_stream(server, client)
    await rested(server)
    retention, streams, folder = server.context.retention, server.context.streams, server.folder(data_id)
    shutil.copytree(folder, memory_path / "before")
    step, partial = 0, 0
    while True:
        step += 1
        shutil.rmtree(folder)
        shutil.copytree(memory_path / "before", folder)
        streams._keep(data_id, StreamArchive.open(folder, DyingFileSystem(step)))
        try:
            await retention.thin(data_id, 5, 0.0)
            break
        except Killed:
            pass
        archive = StreamArchive.open(folder)  # as the next start does
        frames, kept = archive.frames(0, 24), archive.thinned.read(0, 24)
        there = np.array([frame.any() for frame in frames])
        assert (frames[there] == FRAMES[there]).all()
        assert there[np.arange(24) % 5 == 0].all()
        if archive.description.get("thinning", {}) and archive.description["thinning"]["planned"]:
            assert there[kept].all()
        partial += not there.all()
        streams._keep(data_id, archive)
        await retention.thin(data_id, 5, 0.0)
        assert np.flatnonzero([frame.any() for frame in server.frames(data_id)]).tolist() == [
            0,
            5,
            10,
            15,
            20,
        ]
        assert kept_of(server, data_id) == [0, 5, 10, 15, 20]
        assert (await streams.about(data_id)).thinning.complete  # type: ignore[union-attr]
    assert partial > 5
    assert kept_of(server, data_id) == [0, 5, 10, 15, 20]


async def test_the_command_without_a_server(serve: Serve, tmp_path: Path) -> None:
    """Preview changes nothing, run asks first; both use data folder and rules of the configuration file."""
    import asyncio

    server = await serve()
    async with WireClient(server) as client:
        data_id = await a_stream(server, client)
    config = tmp_path / "server.toml"
    rules = "[[retention.rules]]\nwhole_days = 0\nkeep_every = 12\naround_s = 0\n"
    config.write_text(f'data = "{server.data_dir.as_posix()}"\n{rules}')

    def invoke(*words: str, answer: str | None = None) -> Any:
        return CliRunner().invoke(commands, ["retention", *words, "--config", str(config)], input=answer)

    in_use = await asyncio.to_thread(invoke, "preview")
    assert "runs on" in str(in_use.exception)
    await server.stop()
    shown = await asyncio.to_thread(invoke, "preview")
    assert data_id in shown.output
    assert "1 frame in 12 stays" in shown.output
    assert "Nothing was changed" in (await asyncio.to_thread(invoke, "run", answer="n\n")).output
    assert (server.frames(data_id) == FRAMES).all()
    done = await asyncio.to_thread(invoke, "run", "--yes")
    assert "became free" in done.output, done
    assert kept_of(server, data_id) == [0, 12]


async def test_exports_of_a_thinned_stream(serve: Serve) -> None:
    """Results are exported as before; an export with pixels is refused with the reason, in place of black pictures."""
    server, data_id = await thinned_stream(serve)
    async with aiohttp.ClientSession(headers=server.headers) as session:
        for query, status in (("csv", 200), ("h5&pixels=0", 200), ("h5", 400), ("tiff", 400), ("mp4", 400)):
            path = EXPORT_PATH.format(data_id=data_id)
            async with session.get(f"{server.url}{path}?to={query}") as reply:
                body = await reply.read()
                assert reply.status == status, (query, body[:300])
                assert status == 200 or b"frame_kept" in body
