"""Space for a record is reserved before it is written, where the file system can do that."""

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
"""Side of frames whose record is large enough for a reservation, in pixels."""
pytestmark = pytest.mark.skipif(
    not hasattr(os, "posix_fallocate"), reason="this system has no posix_fallocate"
)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> list[int]:
    """Let each reservation fail with ``code``; returns the list of requested sizes."""
    asked: list[int] = []

    def posix_fallocate(fd: int, offset: int, nbytes: int) -> None:
        asked.append(nbytes)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    return asked


def test_a_reserved_record_has_its_exact_size(tmp_path: Path) -> None:
    """The reservation does not make the file longer than the record."""
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=LARGE))
    assert chunk is not None
    assert chunk.path.stat().st_size == chunk.nbytes
    assert delivered(stream, 0) == payload(shard(0, side=LARGE))
    stream.close()


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_reservations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """If the file system can't reserve space, the record is written anyway."""
    asked = refuse(monkeypatch, code)
    stream = new_stream(tmp_path)
    chunk = stream.put(shard(0, side=LARGE))
    assert chunk is not None
    assert asked == [chunk.nbytes]
    assert delivered(stream, 0) == payload(shard(0, side=LARGE))
    stream.close()


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, SpoolFullError), (errno.EIO, SpoolError)])
def test_a_full_disk_is_noticed_before_any_write(
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
    """Space is reserved 2 MiB at a time, with yields in between; a full disk ends it at once."""
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
