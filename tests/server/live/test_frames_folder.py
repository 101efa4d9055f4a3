"""Frames that a killed server left in shared memory are removed at the next server's start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from atomstream.server.live.shared_frames import PREFIX, FramesFolder, remove_leftovers

HOLDER = """
import sys
from pathlib import Path
from atomstream.server.live.shared_frames import FramesFolder
folder = FramesFolder(Path(sys.argv[1]))
(folder.path / "slot").write_bytes(b"frames")
print(folder.path, flush=True)
sys.stdin.read()
"""


def test_frames_of_a_dead_server_are_removed(tmp_path: Path) -> None:
    """After a SIGKILL the folder is removed when the next one is created, but not while its server runs."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        theirs = Path(server.stdout.readline().strip())
        ours = FramesFolder(tmp_path)
        assert (theirs / "slot").read_bytes() == b"frames"
        server.kill()
        server.wait()
        assert theirs.exists()
        later = FramesFolder(tmp_path)
        assert not theirs.exists()
        assert ours.path.exists()
    ours.remove()
    later.remove()
    assert not list(tmp_path.iterdir())


def test_other_folders_are_kept(tmp_path: Path) -> None:
    """A folder without a server's lock is not removed."""
    foreign = tmp_path / f"{PREFIX}mine"
    foreign.mkdir()
    (foreign / "notes").touch()
    remove_leftovers(tmp_path)
    assert (foreign / "notes").exists()
