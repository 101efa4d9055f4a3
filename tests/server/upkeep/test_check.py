"""The check of a data folder: every kind of damage is named, and a running server is not damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.upkeep.check import check
from atomstream.server.upkeep.pace import Pace
from tests.cli.commands import atomstream_here
from tests.live_helpers import FPS, analysis_status, follow, growth, send_chunks
from tests.live_server import Serve
from tests.server.archive.archive_helpers import commit
from tests.server.upkeep.upkeep_helpers import IDS, content, make_data_dir
from tests.wire_client import WireClient


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 4
    path.write_bytes(raw)


def test_each_byte_of_a_shard_is_covered(memory_path: Path) -> None:
    """A changed bit anywhere in a stored shard is found, and the shard is named; so is a shard cut short."""
    make_data_dir(memory_path, chunks=[0])
    name = f"streams/{IDS[0]}/frames.zarr/frames/c/0/0/0"
    shard = memory_path / name
    whole = shard.read_bytes()
    for at in range(0, len(whole), 7):
        flip(shard, at)
        (line,) = check(memory_path).damaged
        assert line.startswith(f"{name}: "), at
        shard.write_bytes(whole)
    for nbytes in (0, 3, len(whole) // 2, len(whole) - 1):
        shard.write_bytes(whole[:nbytes])
        (line,) = check(memory_path).damaged
        assert line.startswith(f"{name}: "), nbytes
    shard.unlink()
    assert check(memory_path).damaged == [f"{name}: this chunk was stored, and its file is missing"]


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("stream.json", lambda path: path.write_text("{")),
    ("stream.json", lambda path: path.unlink()),
    ("stream.json", lambda path: path.write_text('{"name": 3}')),
    ("frames.zarr/zarr.json", lambda path: path.write_bytes(b"\0" * 9)),
    ("frames.zarr/time/zarr.json", lambda path: path.write_text("[]")),
    ("frames.zarr/time/c/0", lambda path: path.write_bytes(b"\0" * 800)),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_other_files(memory_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    """Descriptions, documents and columns that can't be read are named; the other stream is not."""
    make_data_dir(memory_path)
    damage(memory_path / "streams" / IDS[0] / name)
    assert [line.split(": ")[0] for line in check(memory_path).damaged] == [f"streams/{IDS[0]}/{name}"]


def test_names_and_keys(memory_path: Path) -> None:
    """A line of the names log that can't be read is named; half a line at the end is being written."""
    make_data_dir(memory_path)
    names = memory_path / "names.jsonl"
    whole = names.read_text()
    names.write_text(whole + '{"type":"sa')
    assert check(memory_path).damaged == []
    names.write_text("{oops}\n" + whole)
    (memory_path / "keys.json").write_text("[")
    assert [line.split(": ")[0] for line in check(memory_path).damaged] == ["keys.json", "names.jsonl"]


async def test_records_of_a_finished_stream(serve: Serve) -> None:
    """All records of a real analysis are checked; a changed byte in any of its files is found."""
    server = await serve()
    async with WireClient(server) as client:
        data_id = await client.create(fps_capture_rate=FPS)
        for label in ("open", "close"):
            await client.ask("POST", f"/rheed/stream/{data_id}/events", {"label": label})
        await send_chunks(client, data_id, growth(120))
        running = await asyncio.to_thread(check, server.data_dir)
        await client.end(data_id)
        await follow(client, data_id)
        seq = (await analysis_status(client, data_id))["seq"]
    assert running.damaged == []
    report = await asyncio.to_thread(check, server.data_dir)
    assert (report.streams, report.shards, report.damaged) == (1, 2, [])
    assert report.records == seq + 2
    await server.stop()
    folder = server.folder(data_id) / "analysis"
    for path in (folder / "results.log", folder / "inputs.log", folder / "checkpoint", folder / "profiles"):
        whole = path.read_bytes()
        # Bytes 8 to 11 are the length of the first record. More records follow, so a wrong length is damage, not an
        # incomplete record at the end.
        for at in (0, 8, 11, 12, len(whole) // 2):
            flip(path, at)
            (line,) = check(server.data_dir).damaged
            assert path.name in line, at
            path.write_bytes(whole)
    (folder / "results.log").write_bytes((folder / "results.log").read_bytes()[:-3])
    assert check(server.data_dir).damaged == []


def test_the_rate_is_limited(memory_path: Path) -> None:
    """At a rate of 1000 bytes/s, the waits add up to the bytes read divided by the rate."""
    make_data_dir(memory_path)
    now = [0.0]
    pace = Pace(1000.0, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds))
    report = check(memory_path, pace=pace)
    assert report.nbytes > 100_000
    assert abs(report.seconds - report.nbytes / 1000.0) < 1e-6


def test_the_command(memory_path: Path) -> None:
    """Exit code 0 and the rate if all is well; 1 and the file's name if not; nothing is changed."""
    archives, before = make_data_dir(memory_path / "data"), None
    commit(archives[IDS[0]], 2)
    before = content(memory_path / "data")
    done = atomstream_here("check", "--data", memory_path / "data")
    assert done.returncode == 0, done.stderr
    assert "2 streams: 5 shards" in done.stdout
    assert "MB/s; nothing damaged." in done.stdout
    assert content(memory_path / "data") == before
    flip(archives[IDS[1]].shard_file(1), 40)
    done = atomstream_here("check", "--data", memory_path / "data")
    assert done.returncode == 1
    assert f"damaged: streams/{IDS[1]}/frames.zarr/frames/c/1/0/0: its checksum" in done.stdout
    with pytest.raises(ConfigError, match="no 'streams'"):
        check(memory_path)
