"""The file layer: what each operating system needs for a durable write, and what a failed write leaves."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

from atomstream.server.http.api_keys import KEYS_FILE, ensure_key
from atomstream.system import files
from atomstream.system.files import FileSystem, load_or_make_secret, temporary_path, write_private
from tests.paths import REPO


class RecordingCalls(FileSystem):
    """Records the names of the calls that make a write durable; the one named ``failing`` raises EIO."""

    def __init__(self, failing: str = "") -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failing = failing

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def sync(self, fd: int) -> None:
        self._call("sync")
        super().sync(fd)

    def sync_folder(self, path: Path) -> None:
        self._call("sync_folder")
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        super().rename(source, target)


def test_an_atomic_write_is_durable_when_it_returns(tmp_path: Path) -> None:
    """The content is synced before the rename, the folder after it; without ``durable`` the folder is not."""
    disk = RecordingCalls()
    disk.write_atomic(tmp_path / "a", [b"one", b"two"])
    assert disk.calls == ["sync", "rename", "sync_folder"]
    disk.calls.clear()
    disk.write_atomic(tmp_path / "a", [b"three"], durable=False)
    assert disk.calls == ["sync", "rename"]
    assert (tmp_path / "a").read_bytes() == b"three"


@pytest.mark.parametrize("failing", ["sync", "rename"])
def test_a_failed_atomic_write_changes_nothing(tmp_path: Path, failing: str) -> None:
    """The target has its old content, and the temporary file is removed."""
    target = tmp_path / "a"
    target.write_bytes(b"before")
    with pytest.raises(OSError, match="Input/output error"):
        RecordingCalls(failing).write_atomic(target, [b"after"])
    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a"]


def test_a_leftover_temporary_file_is_replaced(tmp_path: Path) -> None:
    """What a crash left under the temporary name does not get into the new file."""
    temporary_path(tmp_path / "a").write_bytes(b"left by a crash, and longer")
    FileSystem().write_atomic(tmp_path / "a", [b"new"])
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fcntl to pretend macOS with")
def test_macos_syncs_through_the_drive_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On macOS fsync only reaches the drive's cache, so F_FULLFSYNC is used."""
    import fcntl

    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: asked.append((fd, command)))
    FileSystem().sync(7)
    assert asked == [(7, 51)]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows never syncs a folder")
@pytest.mark.parametrize(
    ("code", "ignored"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_file_system_without_folder_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, ignored: bool
) -> None:
    """A file system that can't sync a folder is accepted; a disk that fails to is not."""

    def fsync(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    if ignored:
        FileSystem().sync_folder(tmp_path)
    else:
        with pytest.raises(OSError, match="Input/output error"):
            FileSystem().sync_folder(tmp_path)


def test_a_refused_rename_is_an_error_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that another process keeps open on Windows is an error after the time limit, not an endless wait."""

    def refuse(source: object, target: object) -> None:
        raise PermissionError(13, "the file is in use")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(files, "RENAME_PATIENCE_S", 0.0)
    with pytest.raises(PermissionError):
        FileSystem().rename(tmp_path / "a", tmp_path / "b")


def test_the_position_of_a_write_is_its_own(tmp_path: Path) -> None:
    """write_at() writes at the given offset, beyond the end too."""
    disk = FileSystem()
    fd = disk.create(tmp_path / "a")
    disk.write_at(fd, 4, b"5678")
    disk.write_at(fd, 0, b"1234")
    disk.write_at(fd, 10, b"x")
    disk.close(fd)
    assert (tmp_path / "a").read_bytes() == b"12345678\0\0x"


def test_secrets_are_durable_and_private(tmp_path: Path) -> None:
    """A key file is written durably through the given file system, and only its owner may read it."""
    disk = RecordingCalls()
    path = tmp_path / "new" / "secret"
    secret = load_or_make_secret(path, file_system=disk)
    assert disk.calls[-3:] == ["sync", "rename", "sync_folder"]
    assert load_or_make_secret(path, file_system=disk) == secret
    if sys.platform != "win32":
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_can_not_be_stored_is_not_given_out(tmp_path: Path) -> None:
    """If the disk refuses the key file, no key is returned and the old content stays."""
    with pytest.raises(OSError, match="Input/output error"):
        ensure_key(tmp_path, RecordingCalls("sync"))
    assert not (tmp_path / KEYS_FILE).exists()
    write_private(tmp_path / "other", b"kept")
    with pytest.raises(OSError, match="Input/output error"):
        write_private(tmp_path / "other", b"new", RecordingCalls("rename"))
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_only_the_file_layer_renames_and_syncs() -> None:
    """No other code renames or syncs by itself: it would lack F_FULLFSYNC, Windows' patience and the tests' faults."""
    direct = re.compile(
        r"\bos\.(?:replace|renames?|fsync|fdatasync|sync)\b|(?<!disk)(?<!_system)(?<!LOCAL)\.rename\((?!columns=)|\w\.replace\(\w+\)"
    )
    found = {
        path.relative_to(REPO).as_posix()
        for path in (REPO / "atomstream").rglob("*.py")
        if direct.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"atomstream/system/files.py", "atomstream/system/own_files.py"}
