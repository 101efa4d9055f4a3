"""Backup of a running server, restored on another folder: the same streams, marks, results and keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atomstream.server.upkeep.backup import back_up
from atomstream.server.upkeep.restore import restore
from tests.cli.commands import atomstream_here
from tests.live_helpers import FPS, analysis_status, batches, feed, follow, growth, next_message, send_chunks
from tests.live_server import LiveServer, Serve
from tests.wire_client import Address, WireClient


async def series(client: WireClient, data_id: str) -> object:
    """The time series of a stream."""
    return (await client.ask("GET", f"/rheed/timeseries/{data_id}/"))[1]


async def made_stream(client: WireClient) -> str:
    """A new stream with a project, a sample, a mark and a region."""
    _, project = await client.ask("POST", "/projects/", {"name": "GaN on Si"})
    _, sample = await client.ask("POST", "/physical_samples/", {"name": "A1"})
    data_id = await client.create("Growth", fps_capture_rate=FPS, project_id=project["id"])
    link = {"data_ids": [data_id], "physical_sample_id": sample["id"]}
    assert (await client.ask("POST", "/data_entries/physical_sample", link))[0] == 200
    status, _ = await client.ask("POST", f"/rheed/stream/{data_id}/events", {"label": "shutter open"})
    assert status == 200
    return data_id


async def facts(client: WireClient, data_id: str) -> dict[str, object]:
    """What a restored server must have of a stream."""
    status = await analysis_status(client, data_id)
    chunks = (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[1]
    names = [(await client.ask("GET", path))[1] for path in ("/projects/", "/physical_samples/", "/tags/")]
    kept = {
        name: status[name] for name in ("values", "segments", "events", "frames_analysed", "seq", "status")
    }
    return {**kept, "chunks": chunks, "names": names, "entry": await client.entry(data_id)}


async def test_a_finished_stream(serve: Serve, tmp_path: Path) -> None:
    """A server on the restored folder takes the same key and answers every request equally."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await made_stream(client)
        await send_chunks(client, data_id, growth(120))
        await client.end(data_id)
        await follow(client, data_id)
        expected, expected_series = await facts(client, data_id), await series(client, data_id)
        report = await asyncio.to_thread(back_up, server.data_dir, tmp_path / "backups")
        assert (report.streams, report.chunks, report.problems) == (1, 2, [])
        frames = server.frames(data_id)
    restore(report.folder, tmp_path / "again")
    again = await serve(data_dir=tmp_path / "again")
    async with WireClient(Address(again.url, server.api_key)) as client:
        assert await facts(client, data_id) == expected
        assert await series(client, data_id) == expected_series
    assert (again.frames(data_id) == frames).all()


async def test_a_running_stream(serve: Serve, tmp_path: Path) -> None:
    """A stream that was copied while it ran goes on on the restored server, to the same results."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await made_stream(client)
        await send_chunks(client, data_id, growth(), [0, 1])
        async with feed(client, data_id) as socket:
            await next_message(socket, "batch")
        report = await asyncio.to_thread(back_up, server.data_dir, tmp_path / "backups")
        await send_chunks(client, data_id, growth(), [2, 3])
        await client.end(data_id)
        expected, expected_series = await follow(client, data_id), await series(client, data_id)
    await server.stop()
    restore(report.folder, tmp_path / "again")
    again = await serve(data_dir=tmp_path / "again")
    async with WireClient(Address(again.url, server.api_key)) as client:
        assert (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[1] == {"stored": "0-1"}
        await send_chunks(client, data_id, growth(), [2, 3])
        await client.end(data_id)
        found = await follow(client, data_id)
        assert batches(found)[-1]["values"] == batches(expected)[-1]["values"]
        assert await series(client, data_id) == expected_series
        events = (await client.ask("GET", f"/rheed/stream/{data_id}/events"))[1]
        assert [event["label"] for event in events if event["by"] == "user"] == ["shutter open"]


async def test_the_commands(serve: Serve, tmp_path: Path) -> None:
    """Both commands print what they copied; the second backup of an idle server copies the new files only."""
    server: LiveServer = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth é", fps_capture_rate=FPS)
        await send_chunks(client, data_id, growth(), [0])
        done = await asyncio.to_thread(
            atomstream_here, "backup", tmp_path / "backups", "--data", server.data_dir, "--rate", "1000"
        )
    assert done.returncode == 0, done.stderr
    assert f"{data_id}  1 chunk," in done.stdout
    assert "1 stream with 1 chunk;" in done.stdout
    await server.stop()
    target = tmp_path / "again"
    done = await asyncio.to_thread(atomstream_here, "restore", tmp_path / "backups", "--data", target)
    assert done.returncode == 0, done.stderr
    assert "The catalogue holds 1 stream," in done.stdout
    done = await asyncio.to_thread(atomstream_here, "restore", tmp_path / "backups", "--data", target)
    assert (done.returncode, "has files already" in done.stderr) == (2, True)
