"""What a disk is asked before a record is written: its room, where the system can tell."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from spool_kit import delivered, new_stream, payload, shard

from atomstream.errors import SpoolError, SpoolFullError
from atomstream.spool.disk import RESERVE_BYTES, Disk

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
        with pytest.raises(kind, match="goes on from memory"):
            stream.put(shard(0, side=LARGE))
    assert not list(stream.folder.glob("chunk-*"))
    assert stream.put(shard(0, side=LARGE)) is not None
    stream.close()


def test_a_large_file_is_reserved_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its room is reserved, never so much at once that whoever waits for this core waits for long."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fallocate", lambda fd, at, nbytes: asked.append((at, nbytes)))
    disk, nbytes = Disk(), 3 * RESERVE_BYTES + 5
    fd = disk.create(tmp_path / "record")
    disk.reserve(fd, nbytes)
    disk.close(fd)
    assert asked == [(at, min(RESERVE_BYTES, nbytes - at)) for at in range(0, nbytes, RESERVE_BYTES)]
