"""Rename, move, end and delete streams: requests, running uploads, kills at any step, and the audit lines."""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from atomstream import AsyncRHEEDStreamer
from atomstream.errors import StreamGoneError
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.names_log import NamesLog
from atomstream.system.files import FileSystem
from tests.live_helpers import FPS, feed, follow, growth, next_message, send_chunks
from tests.live_server import LiveServer, Serve
from tests.server.held_commits import hold_commits
from tests.wire_client import Address, WireClient, make_frames, raw_connection, request_head, shard_bytes


async def project(client: WireClient, name: str) -> str:
    """A new project's id."""
    _, made = await client.ask("POST", "/projects/", {"name": name})
    return str(made["id"])


async def names(client: WireClient) -> dict[str, str]:
    """The names of all listed streams, by id."""
    _, entries = await client.ask("GET", "/data_entries/")
    return {entry["data_id"]: entry["raw_name"] for entry in entries}


async def removed(server: LiveServer) -> None:
    """Wait until the files of deleted streams are removed."""
    assert server.running is not None
    await server.context.deletion.wait()


async def test_move_to_another_sample(serve: Serve) -> None:
    """A stream is moved to a sample by id, or by a name, which is created; null removes the link. Archive and list
    agree."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth 1")
        await client.send(data_id, 0, make_frames(4))
        path = f"/rheed/stream/{data_id}"
        _, reply = await client.ask("PATCH", path, {"sample_name": " Wafer 12 "})
        assert reply["changes"] == ["moved from no sample to sample 'Wafer 12'"]
        sample = reply["physical_sample_id"]
        assert (await client.entry(data_id))["physical_sample_name"] == "Wafer 12"
        assert server.archive(data_id).about["sample"] == {"id": sample, "name": "Wafer 12"}
        other = await client.create("Growth 2")
        _, reply = await client.ask("PATCH", f"/rheed/stream/{other}", {"physical_sample_id": sample.upper()})
        assert reply["physical_sample_id"] == sample
        assert (await client.ask("PATCH", path, {"sample_name": "wafer 12"}))[1]["changes"] == []
        _, reply = await client.ask("PATCH", path, {"physical_sample_id": None})
        assert reply["changes"] == ["moved from sample 'Wafer 12' to no sample"]
        unknown = {"physical_sample_id": "11111111-1111-4111-8111-111111111111"}
        assert (await client.ask("PATCH", path, unknown))[0] == 404
        assert (await client.ask("PATCH", path, {"sample_name": "  "}))[0] == 400
        assert (await client.ask("PATCH", path, {"sample_name": "x", **unknown}))[0] == 400


async def test_rename_and_move(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Name and project change in the list, in the files and after a restart, while the stream runs and afterwards."""
    caplog.set_level(logging.INFO, "atomstream.server.audit")
    server = await serve()
    async with WireClient(server) as client:
        first, second = await project(client, "GaN"), await project(client, "STO")
        data_id = await client.create("Growth 1", project_id=first)
        await client.send(data_id, 0, make_frames(4))
        path = f"/rheed/stream/{data_id}"
        status, reply = await client.ask("PATCH", path, {"name": "  Growth 2 ", "project_id": second})
        moved = ["renamed from 'Growth 1' to 'Growth 2'", "moved from 'GaN' to 'STO'"]
        expected = {"data_id": data_id, "name": "Growth 2", "project_id": second, "physical_sample_id": None}
        assert (status, reply) == (200, {**expected, "changes": moved})
        assert (await client.entry(data_id))["projects"] == [{"id": second, "name": "STO"}]
        assert (await client.send(data_id, 1, make_frames(4, seed=1)))[0] == 200
        await client.end(data_id)
        assert (await client.ask("PATCH", path, {"name": "Growth 3"}))[1]["project_id"] == second
        assert (await client.ask("PATCH", path, {"project_id": None}))[0] == 200
    assert (server.archive(data_id).about["name"], server.archive(data_id).about["project"]) == (
        "Growth 3",
        None,
    )
    await server.stop()
    await server.start()
    async with WireClient(server) as client:
        entry = await client.entry(data_id)
        assert (entry["raw_name"], entry["projects"], entry["pipeline_status"]) == ("Growth 3", [], "success")
    lines = [record.getMessage() for record in caplog.records if record.name == "atomstream.server.audit"]
    done = [line.split(f"stream {data_id} ")[1].split(" by ")[0] for line in lines]
    assert done == [
        "renamed from 'Growth 1' to 'Growth 2'",
        "moved from 'GaN' to 'STO'",
        "ended",
        "renamed from 'Growth 2' to 'Growth 3'",
        "moved from 'STO' to 'no project'",
    ]
    assert all(line.endswith(" from 127.0.0.1") for line in lines)
    assert server.api_key not in caplog.text


async def test_attributes(serve: Serve) -> None:
    """Attributes are merged, kept over a restart, and readable with zarr-python; null removes one."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth 1")
        path = f"/rheed/stream/{data_id}"
        first = {"camera": "basler:0", "crop": [1, 2, 30, 40], "name": "a"}
        status, reply = await client.ask("PATCH", path, {"attributes": first})
        assert (status, reply["attributes"]) == (200, first)
        await client.send(data_id, 0, make_frames(4))
        await client.ask("PATCH", path, {"attributes": {"camera": "sim", "crop": None, "bin": 2}})
        await client.end(data_id)
    await server.stop()
    await server.start()
    assert server.archive(data_id).about["attributes"] == {"camera": "sim", "name": "a", "bin": 2}
    group = zarr.open_group(server.data_dir / "streams" / data_id / "frames.zarr", mode="r")
    found = {key: value for key, value in group.attrs.items() if key.startswith("recording_")}
    assert found == {"recording_camera": "sim", "recording_name": "a", "recording_bin": 2}
    assert group.attrs["name"] == "Growth 1"


INVALID: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"attributes": {"Crop": 1}}, 400),
    ({"attributes": {"crop": {"x": 1}}}, 400),
    ({"attributes": {"crop": "x" * 1001}}, 400),
    ({"attributes": {"crop": [1] * 1001}}, 400),
    ({"attributes": {f"a{number}": 1 for number in range(65)}}, 400),
    ({"attributes": [1]}, 400),
    ({"name": "  "}, 400),
    ({"name": "n" * 300}, 400),
    ({"name": None}, 400),
    ({"status": "success"}, 400),
    ({"project_id": "11111111-1111-4111-8111-111111111111"}, 404),
    ({"project_id": "../../etc"}, 400),
]


async def test_invalid_changes(serve: Serve) -> None:
    """An invalid change is refused with a sentence, and nothing changes."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth")
        for body, status in INVALID:
            answered, reply = await client.ask("PATCH", f"/rheed/stream/{data_id}", body)
            assert (answered, isinstance(reply["detail"], str)) == (status, True), body
            assert await names(client) == {data_id: "Growth"}, body


async def test_the_right_of_writing(serve: Serve) -> None:
    """Without a key nothing can be changed or deleted; unknown and malformed ids are 404."""
    server = await serve()
    async with WireClient(server) as client, WireClient(server, headers={}) as stranger:
        data_id = await client.create("Growth")
        for method in ("PATCH", "DELETE"):
            assert (await stranger.ask(method, f"/rheed/stream/{data_id}", {"name": "x"}))[0] == 401
            for unknown in ("11111111-1111-4111-8111-111111111111", "..%2f..", "x"):
                assert (await client.ask(method, f"/rheed/stream/{unknown}", {"name": "x"}))[0] == 404
        assert await names(client) == {data_id: "Growth"}


async def test_a_deleted_stream_is_gone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Its files, row, feed and analysis are gone, each request about it is 410, also after a restart; others stay."""
    caplog.set_level(logging.INFO, "atomstream.server.audit")
    server = await serve()
    async with WireClient(server) as client:
        kept = await client.create("Kept")
        await client.send(kept, 0, make_frames(4))
        data_id = await client.create("Growth", fps_capture_rate=FPS)
        url = await client.url(data_id, 3, (4, 8, 12))
        await send_chunks(client, data_id, growth(120))
        async with feed(client, data_id) as socket:
            await next_message(socket, "batch")
            assert await client.ask("DELETE", f"/rheed/stream/{data_id}") == (
                200, {"data_id": data_id, "deleted": True},
            )  # fmt: skip
            async for _ in socket:
                pass
            assert socket.close_code == 1001
        await removed(server)
        assert {path.name for path in (server.data_dir / "streams").iterdir()} == {kept}
        for _ in range(2):
            assert await names(client) == {kept: "Kept"}
            for method, path, body in (
                ("DELETE", "", None),
                ("PATCH", "", {"name": "x"}),
                ("POST", "/end", None),
                ("GET", "/analysis", None),
                ("GET", "/chunks", None),
                ("POST", "/events", {"label": "x"}),
            ):
                status, reply = await client.ask(method, f"/rheed/stream/{data_id}{path}", body)
                assert (status, "was deleted" in reply["detail"]) == (410, True), path
            assert (await client.ask_url(data_id, 4, (4, 8, 12)))[0] == 410
            assert (await client.put(url, shard_bytes(make_frames(4))))[0] == 410
            await server.stop()
            await server.start()
            url = url.replace(url.split("/upload")[0], server.url)
        assert (server.frames(kept) == make_frames(4)).all()
    assert f"stream {data_id} deleted, named 'Growth' by the server's key (key " in caplog.text


async def test_a_running_upload_is_answered(serve: Serve) -> None:
    """An upload whose body is arriving gets 410 at once, with the reason, and leaves no file."""
    server = await serve(linger_s=0.05)
    async with WireClient(server) as client:
        data_id = await client.create("Growth")
        body = shard_bytes(make_frames(4))
        url = await client.url(data_id, 0, (4, 8, 12))
        async with raw_connection(url) as (reader, writer):
            writer.write(request_head("PUT", url, {"Content-Length": str(len(body))}) + body[:100])
            await writer.drain()
            while not server.context.ingest._running:
                await asyncio.sleep(0)
            assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
            assert b" 410 " in await reader.readline()
            assert b"was deleted; nothing of this body was stored" in await reader.read()
        await removed(server)
        assert list((server.data_dir / "streams").iterdir()) == []


async def test_the_client_of_a_deleted_stream(serve: Serve, tmp_path: Path) -> None:
    """The real client raises StreamGoneError with the reason at its next chunk; other streams of it go on."""
    server = await serve()
    async with (
        WireClient(server) as client,
        AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=tmp_path) as streamer,
    ):
        deleted, kept = [await streamer.initialize(2.0, 0.0, 4, name) for name in ("Deleted", "Kept")]
        await streamer.push(deleted, 0, make_frames(4))
        await streamer.flush(deleted)
        assert (await client.ask("DELETE", f"/rheed/stream/{deleted}"))[0] == 200
        await streamer.push(deleted, 1, make_frames(4, seed=1))
        with pytest.raises(StreamGoneError, match="was deleted"):
            await streamer.flush(deleted)
        await streamer.push(kept, 0, make_frames(4))
        await streamer.finalize(kept)
        with pytest.warns(RuntimeWarning, match="was deleted"):
            await streamer.finalize(deleted)
        assert await names(client) == {kept: "Kept"}


async def test_a_commit_that_runs_ends_first(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that was received completely is stored and answered with 200; then the stream is deleted."""
    commits = hold_commits(monkeypatch)
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        upload = asyncio.create_task(client.send(data_id, 0, make_frames(4)))
        await asyncio.to_thread(commits.began.wait)
        deletion = asyncio.create_task(client.ask("DELETE", f"/rheed/stream/{data_id}"))
        while not server.context.streams.deleted:
            await asyncio.sleep(0)
        assert (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0] == 410
        commits.go_on.set()
        assert ((await upload)[0], (await deletion)[0]) == (200, 200)
        await removed(server)
        assert list((server.data_dir / "streams").iterdir()) == []


async def test_a_failed_deletion_changes_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk refuses the rename, the stream goes on: chunks are taken, and the next deletion succeeds."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await client.send(data_id, 0, make_frames(4))

        def refuse(*_: object) -> None:
            raise PermissionError(13, "no")

        with monkeypatch.context() as patch:
            patch.setattr(StreamArchive, "delete", refuse)
            assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 500
        assert (await client.send(data_id, 1, make_frames(4, seed=1)))[0] == 200
        assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200


async def test_a_deletion_is_noted_at_the_next_start(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is deleted although the names log can't be written; after later starts it is 410 nevertheless."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("Growth")
        with monkeypatch.context() as patch:
            patch.setattr(NamesLog, "append", raise_disk_full)
            assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
            await removed(server)
            await server.stop()
        for _ in range(2):
            await server.start()
            await removed(server)
            assert list((server.data_dir / "streams").iterdir()) == []
            assert (await client.ask("GET", f"/rheed/stream/{data_id}/chunks"))[0] == 410
            await server.stop()


def raise_disk_full(*_values: object) -> None:
    """In place of a write: the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_damaged_stream_can_be_deleted(serve: Serve) -> None:
    """A stream whose description is damaged is deleted like any other."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        await server.stop()
        (server.folder(data_id) / "stream.json").write_text("{")
        await server.start()
        assert (await client.ask("DELETE", f"/rheed/stream/{data_id}"))[0] == 200
        await removed(server)
        assert list((server.data_dir / "streams").iterdir()) == []


def test_nothing_is_written_after_the_deletion(tmp_path: Path) -> None:
    """Whatever a late thread still does with the archive, no folder of the stream comes back."""
    from tests.server.archive.archive_helpers import body_of, claims_of, commit_body, frames_of, new_archive

    archive = new_archive(tmp_path)
    commit_body(archive, claims_of(0, frames_of(0)), body_of(frames_of(0)))
    body = archive.incoming()
    body.write_bytes(body_of(frames_of(1)))
    archive.delete(tmp_path / ".deleted" / "one")
    attempts: list[Callable[[], object]] = [
        lambda: archive.commit(claims_of(1, frames_of(1)), body, 0),
        archive.incoming,
        lambda: archive.update_about(name="x"),
        archive.finish,
        archive.flush_metadata,
        lambda: archive.write_values("rate", 0, np.ones(3)),
        lambda: archive.results.write(0, {"rate": np.ones(3)}, {}),
    ]
    for attempt in attempts:
        with pytest.raises(Exception, match=r"deleted|No such file"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == [".deleted"]


class Snapshots:
    """Copies of the data folder after each call that changes a file: what a kill at this moment leaves."""

    CALLS = ("rename", "unlink", "sync", "sync_folder", "write_at")

    def __init__(self, data_dir: Path, target: Path, patch: pytest.MonkeyPatch) -> None:
        self.folders: list[Path] = []
        self._data_dir, self._target = data_dir, target
        self._lock = threading.Lock()
        for name in self.CALLS:
            patch.setattr(FileSystem, name, self._wrapped(getattr(FileSystem, name)))

    def _wrapped(self, call: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            call(*args)
            with self._lock:
                folder = self._target / str(len(self.folders))
                shutil.copytree(self._data_dir, folder, ignore=shutil.ignore_patterns(".lock"))
                self.folders.append(folder)

        return run


@pytest.mark.parametrize("ended", [True, False])
async def test_a_kill_at_any_step(
    memory_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """After a kill at any step of a rename, move or deletion, list and files agree; a stream is whole, or 410."""
    server = await serve(data_dir=memory_path / "data")
    frames = make_frames(4)
    async with WireClient(server) as client:
        target = await project(client, "STO")
        data_id = await client.create("Before")
        await client.send(data_id, 0, frames)
        if ended:
            await client.end(data_id)
            await follow(client, data_id)
        path = f"/rheed/stream/{data_id}"
        with monkeypatch.context() as patch:
            shots = Snapshots(server.data_dir, memory_path / "shots", patch)
            (memory_path / "shots").mkdir()
            assert (await client.ask("PATCH", path, {"name": "After", "project_id": target}))[0] == 200
            assert (await client.ask("DELETE", path))[0] == 200
            await removed(server)
    await server.stop()
    seen = []
    for folder in shots.folders:
        again = await serve(data_dir=folder)
        await removed(again)
        async with WireClient(Address(again.url, server.api_key)) as client:
            listed = await names(client)
            if listed:
                about = again.archive(data_id).about
                assert listed == {data_id: about["name"]}
                entry = await client.entry(data_id)
                assert entry["projects"] == ([about["project"]] if about["project"] else [])
                assert (again.frames(data_id) == frames).all()
                assert (await client.ask("GET", f"{path}/analysis"))[0] == 200
                seen.append(about["name"])
            else:
                assert (await client.ask("GET", f"{path}/analysis"))[0] == 410
                assert list((folder / "streams").iterdir()) == []
                seen.append("")
        await again.stop()
    assert [name for k, name in enumerate(seen) if not k or seen[k - 1] != name] == ["Before", "After", ""]
