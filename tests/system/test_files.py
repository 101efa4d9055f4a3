"""What a disk is asked before a record is written: its room, where the system can tell."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.system import scheduling as yielding
from atomstream.system.files import FileSystem
from atomstream.system.scheduling import STEP_BYTES
from tests.spool.spool_helpers import delivered, new_stream, payload, shard

LARGE = 400
"""A side of frames whose record is large enough to have its room reserved."""
pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room")


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> list[int]:
    """Let each reservation fail with ``code``; the sizes that were asked for."""
    asked: list[int] = []

    def posix_fallocate(fd: int, offset: int, nbytes: int) -> None:
        asked.append(nbytes)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    return asked


def test_a_record_takes_just_what_it_says(tmp_path: Path) -> None:
    """Reserved room is no longer than the record: its file is read back whole."""
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=LARGE))
    assert chunk is not None
    assert chunk.path.stat().st_size == chunk.nbytes
    assert delivered(stream, 0) == payload(shard(0, side=LARGE))
    stream.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_that_reserves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where the file system can't reserve room the record is written all the same."""
    asked = refuse(monkeypatch, code)
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=LARGE))
    assert chunk is not None
    assert asked == [chunk.nbytes]
    assert delivered(stream, 0) == payload(shard(0, side=LARGE))
    stream.close()


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, SpoolFullError), (errno.EIO, SpoolError)])
def test_no_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[SpoolError]
) -> None:
    """A full disk refuses the record, leaves no half-written file, and counts no bytes for it."""
    stream = new_stream(tmp_path)
    with monkeypatch.context() as patched:
        refuse(patched, code)
        with pytest.raises(kind, match="continues from memory"):
            stream.put(shard(0, side=LARGE))
    assert not list(stream.folder.glob("chunk-*"))
    assert stream.put(shard(0, side=LARGE)) is not None
    stream.close()


def steps_of(nbytes: int) -> list[tuple[int, int]]:
    """Offset and length of each reservation for a file of ``nbytes``."""
    return [(at, min(STEP_BYTES, nbytes - at)) for at in range(0, nbytes, STEP_BYTES)]


@pytest.mark.parametrize("refused", [None, 1, 2])
def test_a_large_file_is_reserved_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int | None
) -> None:
    """Room is asked for 2 MiB at a time, and the core left in between; what is full in the middle says so at once."""
    asked: list[tuple[int, int]] = []
    yields: list[int] = []

    def posix_fallocate(fd: int, at: int, nbytes: int) -> None:
        asked.append((at, nbytes))
        if len(asked) - 1 == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    monkeypatch.setattr(yielding, "YIELD_INTERVAL_S", 0.0)
    monkeypatch.setattr(yielding, "yield_core", lambda: yields.append(len(asked)))
    disk, nbytes = FileSystem(), 3 * STEP_BYTES + 5
    fd = disk.create(tmp_path / "record")
    with nullcontext() if refused is None else pytest.raises(OSError, match="No space"):
        disk.reserve(fd, nbytes)
    disk.close(fd)
    assert asked == steps_of(nbytes)[: None if refused is None else refused + 1]
    assert yields == list(range(len(asked)))
