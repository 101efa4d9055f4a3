"""Files of this user alone: their modes, and links, pipes and second names that are never opened for writing."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from atomstream.system.files import LOCAL, load_or_make_secret
from atomstream.system.own_files import LONGEST, exposure_of, make_private, open_file, read_plain
from atomstream.system.record_log import RecordLog

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="modes, links and pipes need privileges on Windows"
)

SECRET = b"somebody else's file" * 70


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file outside of the folder under test."""
    path = tmp_path / "foreign"
    path.write_bytes(SECRET)
    return path


def mode_of(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_new_is_private(tmp_path: Path) -> None:
    """New files are 0600 and new folders 0700, whatever the process's umask is."""
    before = os.umask(0)
    try:
        LOCAL.make_folder(tmp_path / "a" / "b")
        LOCAL.write_atomic(tmp_path / "a" / "b" / "atomic", [b"x"])
        LOCAL.overwrite(tmp_path / "a" / "over", b"x")
        RecordLog(tmp_path / "a" / "log").close()
        open_file(tmp_path / "a" / "new", "xb").close()
    finally:
        os.umask(before)
    for path in (tmp_path / "a").rglob("*"):
        assert mode_of(path) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize(
    "step",
    [
        lambda path: LOCAL.open_truncated(path, 8),
        LOCAL.open_existing,
        LOCAL.open_read,
        LOCAL.sync_file,
        read_plain,
        lambda path: open_file(path, "rb"),
        lambda path: open_file(path, "xb"),
    ],
)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_regular_files_are_opened(
    tmp_path: Path, foreign: Path, step: Callable[[Path], object], kind: str
) -> None:
    """A link, a pipe (where an open would wait for ever) or a folder raises OSError, and no target of a link
    changes."""
    path = tmp_path / "planted"
    make_planted(path, foreign, kind)
    with pytest.raises(OSError, match=r"it is|File exists|directory|No such device"):
        step(path)
    assert foreign.read_bytes() == SECRET
    assert not (tmp_path / "nothing").exists()


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """Reading a file with a hole would need as much memory as its length."""
    path = tmp_path / "huge"
    path.write_bytes(b"x")
    assert read_plain(path, 1) == b"x"
    os.truncate(path, 1 << 40)
    for most in (LONGEST, 1000):
        with pytest.raises(OSError, match=f"longer than {most} bytes"):
            read_plain(path, most)


def make_planted(path: Path, foreign: Path, kind: str) -> None:
    """Something that another program put at ``path``."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "hard link":
        os.link(foreign, path)
    else:
        path.symlink_to(foreign if kind == "link" else path.with_name("nothing"))


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling link"])
def test_writing_never_reaches_the_other_file(tmp_path: Path, foreign: Path, kind: str) -> None:
    """Steps that replace a planted link do not touch its target; one that keeps a hard link's content copies it."""
    for step in (
        lambda path: LOCAL.close(LOCAL.create(path)),
        lambda path: LOCAL.write_atomic(path, [b"new"]),
        lambda path: LOCAL.overwrite(path, b"new"),
        lambda path: load_or_make_secret(path, 1 << 12),
        lambda path: RecordLog(path).close(),
    ):
        path = tmp_path / "planted"
        make_planted(path, foreign, kind)
        step(path)
        assert foreign.read_bytes() == SECRET
        assert not path.is_symlink()
        assert not (tmp_path / "nothing").exists()
        path.unlink()


def test_a_second_name_keeps_its_content(tmp_path: Path, foreign: Path) -> None:
    """A hard link that is shortened or appended to becomes a separate file: a backup that shares the file does not
    change.
    """
    path = tmp_path / "planted"
    os.link(foreign, path)
    fd = LOCAL.open_truncated(path, 8)
    LOCAL.write(fd, [b"more"])
    LOCAL.close(fd)
    assert path.read_bytes() == SECRET[:8] + b"more"
    assert foreign.read_bytes() == SECRET
    assert sorted(os.listdir(tmp_path)) == ["foreign", "planted"]


def test_linked_folders_are_refused(tmp_path: Path) -> None:
    """Below a chosen folder no folder may be a link; the chosen folder itself may."""
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "chosen").symlink_to(tmp_path / "real")
    LOCAL.make_folder(tmp_path / "chosen" / "a", inside=tmp_path / "chosen")
    (tmp_path / "chosen" / "b").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        LOCAL.make_folder(tmp_path / "chosen" / "b" / "c", inside=tmp_path / "chosen")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_old_folders_are_closed(tmp_path: Path) -> None:
    """A folder that an earlier version made readable for all is closed; one with other people's files is not."""
    for name in ("own", "shared"):
        (tmp_path / name).mkdir(mode=0o755)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "shared" / "thesis.tex").write_text("")
    make_private(tmp_path / "own", lambda name: name == "lock")
    make_private(tmp_path / "shared", lambda name: name == "lock")
    assert mode_of(tmp_path / "own") == 0o700
    assert mode_of(tmp_path / "shared") == 0o755
    assert exposure_of(tmp_path / "shared") == ""
    (tmp_path / "shared").chmod(0o777)
    assert "can be changed by other users" in exposure_of(tmp_path / "shared")
