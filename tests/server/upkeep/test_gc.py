"""The removal of what nothing refers to: leftovers and old files that were set aside, nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from atomstream.server.upkeep.gc import GcReport, collect_garbage
from tests.cli.commands import atomstream_here
from tests.server.archive.archive_helpers import body_of, frames_of, new_archive
from tests.server.upkeep.upkeep_helpers import IDS, check_stream, content, make_data_dir

DAY_S = 86_400.0


def find(folder: Path, after_days: float, *, delete: bool = False, days: float = 30.0) -> set[str]:
    """The names of what is found ``after_days`` days from now."""
    report: GcReport = collect_garbage(
        folder, days=days, delete=delete, clock=lambda: time.time() + after_days * DAY_S
    )
    assert report.failed == []
    assert report.removed == (len(report.found) if delete else 0)
    return {one.path.relative_to(folder).as_posix() for one in report.found}


def litter(data: Path) -> tuple[set[str], set[str]]:
    """Make one of each kind of garbage: leftovers, and what was set aside."""
    one = f"streams/{IDS[0]}"
    leftovers = {
        f"{one}/incoming/{'ab' * 16}.part",
        f"{one}/stream.json.tmp",
        "names.jsonl.copy.tmp",
        "keys.json.tmp",
    }
    aside = {
        f"{one}/analysis/results.log.damaged-1",
        f"{one}/damaged/frames.zarr-1",
        "catalogue.sqlite.aside-2",
        "damaged/keys.json-1",
    }
    for name in leftovers | aside:
        (data / name).parent.mkdir(exist_ok=True, parents=True)
        (data / name).write_bytes(b"x" * 10)
    (data / f"{one}/frames.zarr/frames/c/77/0").mkdir(parents=True)
    (data / "streams/half-made/frames.zarr").mkdir(parents=True)
    return leftovers | {f"{one}/frames.zarr/frames/c/77", "streams/half-made"}, aside


def test_each_kind_at_its_age(memory_path: Path) -> None:
    """Leftovers are found after a day, what was set aside after 30 days or as many as are given; not before."""
    make_data_dir(memory_path)
    leftovers, aside = litter(memory_path)
    assert find(memory_path, 0.9) == set()
    assert find(memory_path, 1.1) == leftovers
    assert find(memory_path, 8.0, days=7.0) == leftovers | aside
    assert find(memory_path, 31.0) == leftovers | aside


def test_only_garbage_is_removed(memory_path: Path) -> None:
    """After the removal the folder is as it was without the garbage, and there is nothing more to remove."""
    make_data_dir(memory_path)
    before = content(memory_path)
    leftovers, aside = litter(memory_path)
    assert find(memory_path, 31.0, delete=True) == leftovers | aside
    assert content(memory_path) == before
    assert find(memory_path, 1000.0) == set()
    assert check_stream(memory_path / "streams" / IDS[0]) == {0, 1}


def test_a_deleted_stream_leaves_its_description(memory_path: Path) -> None:
    """Files of a deleted stream are removed, except the description, which the next start needs to record the
    deletion.
    """
    make_data_dir(memory_path)
    streams = memory_path / "streams"
    (streams / ".deleted").mkdir()
    (streams / IDS[0]).rename(streams / ".deleted" / IDS[0])
    find(memory_path, 0.0, delete=True)
    assert [path.name for path in (streams / ".deleted" / IDS[0]).iterdir()] == ["stream.json"]
    assert find(memory_path, 31.0) == set()


def test_what_is_not_garbage(memory_path: Path) -> None:
    """Files of others, a stream that lost its description, and the target of a link are never removed."""
    data = memory_path / "data"
    make_data_dir(data)
    (data / "thesis.tmp").write_text("of somebody else")
    (data / "streams" / IDS[1] / "stream.json").unlink()
    (memory_path / "outside").mkdir()
    (memory_path / "outside" / "precious.tmp").write_text("precious")
    (data / "streams" / IDS[0] / "damaged").symlink_to(memory_path / "outside")
    (data / "streams" / "link").symlink_to(memory_path / "outside")
    assert find(data, 1000.0, delete=True) == set()
    assert (memory_path / "outside" / "precious.tmp").exists()
    assert (data / "streams" / IDS[1] / "frames.zarr").is_dir()


def test_a_running_upload_is_kept(memory_path: Path) -> None:
    """The body of an upload that is being received is younger than a day."""
    archive = new_archive(memory_path / "streams")
    archive.incoming().write_bytes(body_of(frames_of(0)))
    assert find(memory_path, 0.5, delete=True) == set()


def test_the_command(memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--delete`` the command only lists what it would remove."""
    make_data_dir(memory_path)
    _, aside = litter(memory_path)
    name = f"streams/{IDS[0]}/analysis/results.log.damaged-1"
    listed = atomstream_here("gc", "--data", memory_path, "--days", "0")
    assert (listed.returncode, f"{name}  10 bytes" in listed.stdout) == (0, True), listed.stderr
    assert "Nothing was removed" in listed.stdout
    assert (memory_path / name).exists()
    removed = atomstream_here("gc", "--data", memory_path, "--days", "0", "--delete")
    assert f"Removed {len(aside)} of {len(aside)}" in removed.stdout
    assert not (memory_path / name).exists()
