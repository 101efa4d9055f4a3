"""Backup and restore: consistent while streams grow, restorable after any interruption, and complete."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from atomstream.errors import ConfigError
from atomstream.server.archive.metadata import ABOUT
from atomstream.server.data_dir import own_data_dir
from atomstream.server.upkeep.backup import back_up
from atomstream.server.upkeep.manifest import backups_in, read_manifest
from atomstream.server.upkeep.pace import Pace
from atomstream.server.upkeep.restore import choose_backup, restore
from tests.server.archive.archive_helpers import commit
from tests.server.upkeep.upkeep_helpers import (
    IDS,
    DyingFileSystem,
    Killed,
    check_stream,
    content,
    make_data_dir,
)


def test_a_restored_folder_has_the_same_files(memory_path: Path) -> None:
    """Each file of the data folder is restored, byte by byte, and private; catalogue and secrets are not copied."""
    data = memory_path / "data"
    make_data_dir(data)
    for name in ("catalogue.sqlite", "signing.key", "sessions.json"):
        (data / name).write_text("secret")
    report = back_up(data, memory_path / "backups")
    assert (report.streams, report.chunks, report.problems) == (2, 4, [])
    restored = restore(choose_backup(memory_path / "backups"), memory_path / "again")
    assert (restored.streams, restored.damaged) == (2, [])
    wanted = content(data)
    del wanted["signing.key"], wanted["sessions.json"]
    assert content(memory_path / "again") == wanted
    if os.name == "posix":
        assert {path.stat().st_mode & 0o077 for path in (memory_path / "again").rglob("*")} == {0}


class Growing(Pace):
    """The stream gets a chunk each time that a file has been copied."""

    def __init__(self, archives: dict[str, object], most: int) -> None:
        super().__init__()
        self._archives, self._most, self._next = archives, most, 2

    def note(self, nbytes: int) -> None:
        super().note(nbytes)
        if self._next < self._most:
            for archive in self._archives.values():
                commit(archive, self._next)  # type: ignore[arg-type]
            self._next += 1


@pytest.mark.parametrize("most", [5, 11, 40])
def test_a_stream_that_grows_during_the_copy(memory_path: Path, most: int) -> None:
    """A chunk arrives after each copied file: every chunk in the copy reads equal, none before them is missing."""
    archives = make_data_dir(memory_path / "data")
    back_up(memory_path / "data", memory_path / "backups", pace=Growing(dict(archives), most))
    restore(choose_backup(memory_path / "backups"), memory_path / "again")
    for data_id in IDS:
        found = check_stream(memory_path / "again" / "streams" / data_id)
        assert found == set(range(len(found)))
        assert len(found) > 2


def test_unchanged_files_are_linked(memory_path: Path) -> None:
    """A second backup copies what changed and links the rest; each is complete without the other."""
    data, target = memory_path / "data", memory_path / "backups"
    archives = make_data_dir(data)
    for path in data.rglob("*"):
        os.utime(path, ns=(0, 0))
    first = back_up(data, target)
    commit(archives[IDS[0]], 2)
    second = back_up(data, target)
    assert second.folder != first.folder
    assert second.linked_files > second.files
    shutil.rmtree(first.folder)
    restore(second.folder, memory_path / "again")
    assert content(memory_path / "again") == content(data)


def test_a_file_that_changed_with_its_old_time_is_copied(memory_path: Path) -> None:
    """A file that was written moments before the backup is copied again, though its time may look unchanged."""
    data, target = memory_path / "data", memory_path / "backups"
    make_data_dir(data)
    time_ns = (data / "keys.json").stat().st_mtime_ns
    back_up(data, target)
    (data / "keys.json").write_text((data / "keys.json").read_text().replace("00", "11"))
    os.utime(data / "keys.json", ns=(time_ns, time_ns))
    restore(back_up(data, target).folder, memory_path / "again")
    assert content(memory_path / "again") == content(data)


def test_a_backup_that_is_killed_at_any_step(memory_path: Path) -> None:
    """After each interruption the earlier backup is restored unchanged; without one, the complete streams are."""
    data, target = memory_path / "data", memory_path / "backups"
    make_data_dir(data)
    wanted, step, seen = content(data), 0, set[int]()
    while True:
        step += 7
        try:
            back_up(data, target, file_system=DyingFileSystem(step))
            break
        except Killed:
            pass
        if not backups_in(target):
            continue
        with pytest.raises(ConfigError, match="interrupted"):
            choose_backup(target)
        again = memory_path / f"again{step}"
        found = restore(choose_backup(target, incomplete=True), again)
        seen.add(found.streams)
        assert found.damaged == []
        assert content(again).items() <= wanted.items()
        assert {path.name for path in (again / "streams").iterdir()} == set(IDS[: found.streams])
        shutil.rmtree(again)
    assert seen == {0, 1, 2}
    (complete,) = backups_in(target)  # the interrupted ones are removed
    with pytest.raises(Killed):
        back_up(data, target, file_system=DyingFileSystem(50))
    assert choose_backup(target) == complete
    restore(complete, memory_path / "again")
    assert content(memory_path / "again") == wanted


def test_a_restore_that_is_killed_at_any_step(memory_path: Path) -> None:
    """After each interruption no server starts on the folder, and the same command completes it."""
    data, again = memory_path / "data", memory_path / "again"
    make_data_dir(data)
    backup, step = back_up(data, memory_path / "backups").folder, 0
    while True:
        step += 9
        try:
            restore(backup, again, file_system=DyingFileSystem(step))
            break
        except Killed:
            pass
        if step > 20 and not (again / ".restoring").exists():
            break  # only the last sync of the folder was missing
        if (again / ".restoring").exists():
            with pytest.raises(ConfigError, match="restore again"), own_data_dir(again):
                pass
    assert step > 50
    assert content(again) == content(data)
    with own_data_dir(again, must_exist=True):
        pass


def test_a_damaged_backup(memory_path: Path) -> None:
    """A damaged or missing file is named and left out; everything else is restored. A damaged manifest is refused."""
    data = memory_path / "data"
    make_data_dir(data)
    backup = back_up(data, memory_path / "backups").folder
    damaged = f"streams/{IDS[0]}/frames.zarr/frames/c/1/0/0"
    (backup / damaged).write_bytes(b"\0" * (backup / damaged).stat().st_size)
    (backup / "keys.json").unlink()
    report = restore(backup, memory_path / "again")
    assert sorted(report.damaged) == ["keys.json", damaged]
    assert check_stream(memory_path / "again" / "streams" / IDS[0]) == {0}
    assert check_stream(memory_path / "again" / "streams" / IDS[1]) == {0, 1}
    manifest = (backup / "manifest.jsonl").read_bytes()
    (backup / "manifest.jsonl").write_bytes(manifest.replace(b'"nbytes":', b'"nbytes":1', 1))
    with pytest.raises(ConfigError, match="damaged"):
        read_manifest(backup)


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "streams/../../x",
        "streams/a\\\\b",
        "c:x",
        "",
        ".lock",
        ".restoring/x",
        "catalogue.sqlite",
        "streams",
        "streams/" + "a/" * 999 + "b",
        "streams/" + "a" * 2000,
    ],
)
def test_a_manifest_names_files_inside_of_the_folder_only(memory_path: Path, name: str) -> None:
    """A manifest of somebody else that names a file outside is refused before anything is written."""
    backup = memory_path / "backup"
    backup.mkdir()
    file = f'{{"what":"file","path":"{name}","nbytes":1,"crc32c":0}}'
    stream = '{"what":"stream","data_id":"x","name":"","chunks":0,"nbytes":1}'
    line = f"{file}\n{stream}\n"
    (backup / "manifest.part").write_text(line)
    with pytest.raises(ConfigError, match="not a file inside"):
        restore(backup, memory_path / "again")
    assert not (memory_path / "again").exists()


def test_a_link_in_a_backup_leads_nowhere(memory_path: Path) -> None:
    """A folder that is a link is not followed: the file that it leads to is left out, though its checksum is right."""
    make_data_dir(memory_path / "data")
    backup = back_up(memory_path / "data", memory_path / "backups").folder
    stream = backup / "streams" / IDS[0]
    stream.rename(memory_path / "elsewhere")
    stream.symlink_to(memory_path / "elsewhere", target_is_directory=True)
    report = restore(backup, memory_path / "again")
    assert report.damaged
    assert all(name.startswith(f"streams/{IDS[0]}/") for name in report.damaged)
    assert not (memory_path / "again" / "streams" / IDS[0] / ABOUT).exists()
    assert check_stream(memory_path / "again" / "streams" / IDS[1]) == {0, 1}


def test_a_backup_takes_as_much_space_as_it_states(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is longer than its entry is not copied to its end; more than the free space is refused at once."""
    make_data_dir(memory_path / "data")
    backup = back_up(memory_path / "data", memory_path / "backups").folder
    with (backup / "keys.json").open("ab") as file:
        file.truncate(1 << 44)
    assert restore(backup, memory_path / "again").damaged == ["keys.json"]
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(ConfigError, match="GB free"):
        restore(backup, memory_path / "other")
    assert not (memory_path / "other").exists()


def test_wrong_folders_are_refused(memory_path: Path) -> None:
    """A backup into the data folder, one of no data folder, and a restore over existing files change nothing."""
    data = memory_path / "data"
    make_data_dir(data)
    with pytest.raises(ConfigError, match="inside of the data folder"):
        back_up(data, data / "streams" / "backups")
    with pytest.raises(ConfigError, match="no 'streams'"):
        back_up(memory_path / "nothing", memory_path / "backups")
    backup, before = back_up(data, memory_path / "backups").folder, content(data)
    with pytest.raises(ConfigError, match="has files already"):
        restore(backup, data)
    with pytest.raises(ConfigError, match="no backup"):
        choose_backup(data)
    assert content(data) == before


def test_a_file_that_cannot_be_read_is_named(memory_path: Path) -> None:
    """A link in place of a file is not followed; it is named, and everything else is copied."""
    data = memory_path / "data"
    make_data_dir(data)
    (memory_path / "outside").write_text("secret")
    (data / "keys.json").unlink()
    (data / "keys.json").symlink_to(memory_path / "outside")
    report = back_up(data, memory_path / "backups")
    assert [problem.split(":")[0] for problem in report.problems] == ["keys.json", "keys.json"]
    assert not any(b"secret" in one for one in content(report.folder).values())
