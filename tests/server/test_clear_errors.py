"""Errors name the actual cause: a full disk, damaged files, pages that do not exist, impossible sizes."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from atomstream.server.archive.archive_files import ArchiveFiles
from atomstream.server.catalogue import database
from atomstream.server.disk_errors import LEAST_FREE, DiskState, is_disk_full
from atomstream.system.files import LOCAL, FileSystem
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames, shard_bytes, upload_form

FRAMES = make_frames(4)
UNKNOWN = "1db5c30e-a4e7-4404-bbce-e2c3e2c819bc"


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A disk that is full as long as the list is not empty: every new file and each write fails with ENOSPC."""
    full: list[bool] = []

    def failing(name: str) -> None:
        real = getattr(FileSystem, name)

        def call(self: FileSystem, *args: Any, **kwargs: Any) -> Any:
            if full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(self, *args, **kwargs)

        monkeypatch.setattr(FileSystem, name, call)

    for name in ("create", "write", "write_at", "write_atomic", "make_folder"):
        failing(name)
    return full


async def test_a_full_disk_is_reported_until_it_has_space(
    serve: Serve, full_disk: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    """Uploads and all other writes are 507 with the free space, also on the page; with room again they succeed."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("growth")
        assert (await client.send(data_id, 0, FRAMES))[0] == 200
        url = await client.url(data_id, 1, FRAMES.shape)
        full_disk.append(True)
        event = ("POST", f"/rheed/stream/{data_id}/events", {"label": "x", "kind": "note"})
        writes = [
            await client.ask(*event),
            await client.ask("POST", "/tags/", {"name": "new"}),
            await client.ask("POST", "/physical_samples/", {"name": "new"}),
            (await client.put(url, shard_bytes(FRAMES)))[:2],
        ]
        for _ in range(3):
            form = {"data_item_name": "x", "rotations_per_min": 0.0, "fps_capture_rate": 1.0}
            writes.append(await client.ask("POST", "/rheed/stream/", form))
        for status, reply in writes:
            assert status == 507, reply
            assert "is full" in reply["detail"]
            assert "MB are free" in reply["detail"]
        _, shown = await client.ask("GET", "/dashboard/problems")
        (sentence,) = shown["server"]
        assert "is full" in sentence
        assert shown["disk_free_bytes"] > 0
        _, info = await client.ask("GET", f"/dashboard/streams/{data_id}")
        assert "is full" in info["problems"][0]
        full_disk.clear()
        assert (await client.send(data_id, 1, FRAMES))[0] == 200
        assert (await client.ask("POST", "/tags/", {"name": "new"}))[0] == 200
        assert (await client.ask("GET", "/dashboard/problems"))[1]["server"] == []
    assert not [record.getMessage() for record in caplog.records if record.exc_info]
    lines = [record.getMessage() for record in caplog.records if "No space left" in record.getMessage()]
    assert len(lines) == len(set(lines)), "each message once, however many requests fail"


def test_little_room_counts_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below ``LEAST_FREE`` the disk is full before a write fails, and has room again above it."""
    now = [0.0]
    disk = DiskState(tmp_path, lambda: now[0])
    free = [LEAST_FREE - 1]
    monkeypatch.setattr(DiskState, "free_bytes", lambda self: free[0])
    assert "8.4 MB are free" in disk.problem()
    free[0] += 1
    assert disk.problem() == ""
    disk.note_full()
    assert disk.problem() != ""
    now[0] += 60.0
    assert disk.problem() == ""


@pytest.mark.parametrize(
    "path", [f"/streams/{UNKNOWN}", "/streams/none", "/nowhere", f"/streams/{UNKNOWN}/x"]
)
async def test_a_page_that_does_not_exist(serve: Serve, path: str) -> None:
    """A person gets a readable page with a way out, a program JSON; both are 404."""
    server = await serve()
    async with WireClient(server) as client:
        status, reply = await client.ask("GET", path)
        assert status == 404
        assert reply["detail"]
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        async with client.session.get(server.url + path, headers=browser) as page:
            text = await page.text()
        assert (page.status, page.content_type) == (404, "text/html")
        assert "<h1>Not found</h1>" in text
        assert 'href="/"' in text
        assert "script" not in page.headers["Content-Security-Policy"]
        async with client.session.head(server.url + path, headers=browser) as page:
            assert page.status == 404


async def test_an_error_page_shows_the_address_as_text(serve: Serve) -> None:
    """Signs in the address are not HTML."""
    server = await serve()
    async with WireClient(server) as client:
        path = "/streams/%3Cscript%3Ealert(1)%3C%2Fscript%3E"
        async with client.session.get(server.url + path, headers={"Accept": "text/html"}) as page:
            assert "<script" not in await page.text()


async def test_the_page_of_a_stream_that_exists(serve: Serve) -> None:
    """The page of a stream is answered with 200, also when the stream is damaged: the page shows that."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("growth")
        await client.send(data_id, 0, FRAMES)
        await server.stop()
        (server.folder(data_id) / "stream.json").write_bytes(b"{")
        await server.start()
        async with client.session.get(f"{server.url}/streams/{data_id}") as page:
            assert (page.status, page.content_type) == (200, "text/html")
        status, reply = await client.ask("GET", f"/dashboard/streams/{data_id}")
        assert status == 503
        assert "stream.json is damaged" in reply["detail"]
        assert str(server.data_dir) not in reply["detail"]
        _, shown = await client.ask("GET", "/dashboard/problems")
        assert list(shown["streams"]) == [data_id]
        assert "stream.json is damaged" in shown["streams"][data_id][0]


async def test_sizes_with_other_text_are_400(serve: Serve) -> None:
    """``dims`` are three whole numbers and nothing else."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("growth")
        query = {"original_filename": "frames.zarr/frames/c/0/0/0"}
        path = "/data_entries/raw_data/staged/upload_urls/"
        for text in (
            "4,8,12 ",
            "4,8,12x",
            "4,8,12,",
            "4,8,12\n",
            " 4,8,12",
            "4,8",
            "٤,8,12",
            "4,+8,12",
            "4.,8,12",
        ):
            form = {**upload_form(data_id, (4, 8, 12), 4), "dims": text}
            status, reply = await client.ask("POST", path, form, params=query)
            assert status == 400, text
            assert "dims" in reply["detail"]


def test_a_full_catalogue_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite's own error for a full disk counts, also inside of SQLAlchemy's."""
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count=2")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
    connection.close()
    assert is_disk_full(caught.value)
    assert is_disk_full(OperationalError("INSERT", {}, caught.value))
    assert not is_disk_full(OperationalError("INSERT", {}, sqlite3.OperationalError("no such table")))


def test_something_in_the_way_is_kept(tmp_path: Path) -> None:
    """A folder in the place of a file is moved, with what is in it, and named; a second one gets another number."""
    files = ArchiveFiles(tmp_path / "incoming", LOCAL)
    for number in (1, 2):
        (tmp_path / "a" / "file").mkdir(parents=True)
        (tmp_path / "a" / "file" / "mine").write_text("mine")
        files.clear_way(tmp_path / "a" / "file")
        assert (tmp_path / "damaged" / f"a_file-{number}" / "mine").read_text() == "mine"
    assert not (tmp_path / "a" / "file").exists()
    assert [note.file for note in files.damage.notes()] == ["a/file"]


async def test_a_server_starts_on_a_full_disk(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored can be read and is listed, and the catalogue in the data folder stays."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create("growth")
    await server.stop()
    before = (server.data_dir / "catalogue.sqlite").read_bytes()
    real = database._is_usable

    def full(path: Path) -> bool:
        if path.parent == server.data_dir:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return real(path)

    monkeypatch.setattr(database, "_is_usable", full)
    await server.start()
    async with WireClient(server) as client:
        assert (await client.entry(data_id))["raw_name"] == "growth"
    await server.stop()
    assert (server.data_dir / "catalogue.sqlite").read_bytes() == before
