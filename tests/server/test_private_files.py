"""The data folder of a running server: private files, and no link that leads out of it."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.live import shared_frames
from tests.live_server import Serve
from tests.wire_client import WireClient, make_frames, shard_bytes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes and links")

SECRET = b"somebody else's file" * 70


def open_to_others(folder: Path) -> list[str]:
    """Files and folders that are not 0600 or 0700."""
    found = []
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode != (0o700 if path.is_dir() else 0o600):
                found.append(f"{path.relative_to(folder)}: {mode:o}")
    return found


async def test_a_data_folder_is_private(serve: Serve, tmp_path: Path) -> None:
    """No file is readable for others, on disk and in shared memory, whatever the umask."""
    before = os.umask(0)
    try:
        server = await serve(data_dir=tmp_path / "new" / "data")
        async with WireClient(server) as client:
            await client.ask("POST", "/tags/", {"name": "a tag"})
            data_id = await client.create()
            assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
            await client.ask("POST", f"/rheed/stream/{data_id}/events", {"label": "a mark"})
            memory = [folder for folder in shared_folders() if folder.stat().st_uid == os.geteuid()]
            assert not [open_to_others(folder) for folder in memory if open_to_others(folder)]
        await server.stop()
        assert open_to_others(server.data_dir) == []
    finally:
        os.umask(before)


def shared_folders() -> list[Path]:
    """The folders of running servers in shared memory."""
    return list(Path("/dev/shm").glob(f"{shared_frames.PREFIX}*"))


async def test_a_folder_of_an_earlier_version_is_closed(serve: Serve) -> None:
    """Folders and files that were readable for all are closed at the next start; frames are then out of reach."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create()
        assert (await client.send(data_id, 0, make_frames(4)))[0] == 200
    await server.stop()
    for path in (server.data_dir, *server.data_dir.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    await server.start()
    top = [server.data_dir, *server.data_dir.iterdir()]
    assert not [path for path in top if stat.S_IMODE(path.stat().st_mode) & 0o077]


@pytest.mark.parametrize(
    "name",
    [
        "keys.json",
        "sessions.json",
        "signing.key",
        "names.jsonl",
        ".lock",
        "catalogue.sqlite",
        "catalogue.sqlite-wal",
    ],
)
@pytest.mark.parametrize("kind", ["link", "hard link"])
async def test_planted_links_lead_nowhere(serve: Serve, tmp_path: Path, name: str, kind: str) -> None:
    """A link under the name of one of the server's files is not written through, and never ends in a traceback."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(SECRET)
    server = await serve(data_dir=tmp_path / "data", api_key="k" * 40)  # hard links need one file system
    await server.stop()
    path = server.data_dir / name
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(foreign)
    else:
        os.link(foreign, path)
    try:
        await server.start()
        async with WireClient(server) as client:
            await client.ask("POST", "/tags/", {"name": "a tag"})
            assert (await client.ask("GET", "/data_entries/"))[0] == 200
    except ConfigError:
        pass  # refused with a sentence
    assert foreign.read_bytes() == SECRET


async def test_a_folder_in_place_of_the_catalogue_is_set_aside(serve: Serve) -> None:
    """The catalogue is built again, and what was in its place stays under another name."""
    server = await serve()
    async with WireClient(server) as client:
        await client.create("a growth")
    await server.stop()
    for path in server.data_dir.glob("catalogue.sqlite*"):
        path.unlink()
    (server.data_dir / "catalogue.sqlite" / "kept").mkdir(parents=True)
    await server.start()
    async with WireClient(server) as client:
        status, entries = await client.ask("GET", "/data_entries/")
    assert (status, len(entries)) == (200, 1)
    assert (server.data_dir / "catalogue.sqlite.aside-1" / "kept").is_dir()


IN_A_STREAM = (
    "incoming", "analysis", "frames.zarr/frames", "frames.zarr/frames/c", "frames.zarr/time", "frames.zarr/time/c",
    "frames.zarr/frames/c/1", "analysis/results.log", "analysis/inputs.log",
)  # fmt: skip


async def test_links_in_a_stream_lead_nowhere(serve: Serve, tmp_path: Path) -> None:
    """A link in place of a stream's folder or log costs at most that stream; its target is not changed."""
    server = await serve(data_dir=tmp_path / "data")
    async with WireClient(server) as client:
        linked = {name: await client.create(name) for name in IN_A_STREAM}
        other = await client.create("other")
        for one in (*linked.values(), other):
            assert (await client.send(one, 0, make_frames(4)))[0] == 200
    await server.stop()
    foreign = tmp_path / "foreign"
    foreign.write_bytes(SECRET)
    elsewhere = {name: tmp_path / f"elsewhere-{number}" for number, name in enumerate(IN_A_STREAM)}
    for number, (name, data_id) in enumerate(linked.items()):
        elsewhere[name].mkdir()
        (elsewhere[name] / f"{'0' * 32}.part").write_bytes(SECRET)
        path = server.folder(data_id) / name
        if path.exists():
            path.rename(tmp_path / f"original-{number}")
        path.symlink_to(foreign if name.endswith(".log") else elsewhere[name])
    await server.start()
    async with WireClient(server) as client:
        for data_id in linked.values():
            status, reply = await client.ask_url(data_id, 1, (4, 8, 12))
            if status == 200:
                await client.put(reply[0]["url"], shard_bytes(make_frames(4)))
        assert (await client.send(other, 1, make_frames(4)))[0] == 200
    await server.stop()
    assert foreign.read_bytes() == SECRET
    for name, folder in elsewhere.items():
        assert os.listdir(folder) == [f"{'0' * 32}.part"], name


def test_leftovers_in_shared_memory_are_only_removed_from_own_folders(tmp_path: Path) -> None:
    """A link that looks like the folder of a dead server is not followed: the files of its target stay."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / shared_frames.LOCK).touch()
    (elsewhere / "thesis.tex").write_bytes(SECRET)
    (tmp_path / f"{shared_frames.PREFIX}x").symlink_to(elsewhere)
    shared_frames.remove_leftovers(tmp_path)
    assert (elsewhere / "thesis.tex").read_bytes() == SECRET
