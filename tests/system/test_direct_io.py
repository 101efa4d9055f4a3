"""Direct I/O writes the same bytes as a normal write, whatever the file system supports."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from atomstream.system import scheduling as yielding
from atomstream.system.direct_io import ALIGNMENT, WINDOW_BYTES, DirectWriter
from atomstream.system.files import FileSystem
from atomstream.system.scheduling import STEP_BYTES
from tests.system.tuning_marks import needs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has O_DIRECT")


def random_pieces(*sizes: int) -> list[bytes]:
    rng = np.random.default_rng(sum(sizes))
    return [rng.integers(0, 256, size, dtype=np.uint8).tobytes() for size in sizes]


LARGE = random_pieces(300, 2 * WINDOW_BYTES + 17, WINDOW_BYTES // 3, 1, 4096)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = FileSystem().create(tmp_path / "record")
    yield fd
    os.close(fd)


def content(tmp_path: Path) -> bytes:
    return (tmp_path / "record").read_bytes()


@pytest.mark.parametrize(
    "pieces",
    [
        LARGE,
        random_pieces(WINDOW_BYTES),
        random_pieces(WINDOW_BYTES + ALIGNMENT),
        random_pieces(WINDOW_BYTES - 1, 5),
        random_pieces(*[100_003] * 60),
    ],
)
def test_every_byte_is_written(tmp_path: Path, fd: int, pieces: list[bytes]) -> None:
    """Pieces of any length are in the file one after the other, wherever the window splits them."""
    FileSystem().write(fd, pieces)
    assert content(tmp_path) == b"".join(pieces)


def test_views_and_what_follows(tmp_path: Path, fd: int) -> None:
    """Views of numpy memory are written too, and a later write continues after them."""
    disk = FileSystem()
    disk.write(fd, [memoryview(np.frombuffer(piece, dtype=np.uint8)) for piece in LARGE])
    disk.write(fd, LARGE)
    disk.write(fd, [b"end"])
    assert content(tmp_path) == 2 * b"".join(LARGE) + b"end"


def refusing(monkeypatch: pytest.MonkeyPatch, call: int, answer: Callable[[int], int]) -> None:
    """Let the ``call``-th write of whole pages write ``answer(its bytes)`` bytes only."""
    real, calls = os.writev, [0]

    def writev(fd: int, views: list[memoryview]) -> int:
        if len(views) == 1 and views[0].nbytes % ALIGNMENT == 0:
            calls[0] += 1
            if calls[0] == call:
                short = answer(views[0].nbytes)
                return real(fd, [views[0][:short]])
        return real(fd, views)

    monkeypatch.setattr(os, "writev", writev)


def fails(_: int) -> int:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@needs("direct_io")
@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("answer", [fails, lambda n: n // 2, lambda n: ALIGNMENT])
def test_the_page_cache_takes_the_rest(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch, call: int, answer: Callable[[int], int]
) -> None:
    """If a direct write fails or is short, the rest is written through the page cache, and nothing twice."""
    refusing(monkeypatch, call, answer)
    FileSystem().write(fd, LARGE)
    assert content(tmp_path) == b"".join(LARGE)


def test_a_file_system_without_it(tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file system refuses O_DIRECT, everything is written through the page cache."""
    import fcntl

    real = fcntl.fcntl

    def no_direct(fd: int, command: int, flags: int = 0) -> int:
        if command == fcntl.F_SETFL and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(fd, command, flags)

    monkeypatch.setattr(fcntl, "fcntl", no_direct)
    assert DirectWriter().write(fd, LARGE) == 0
    FileSystem().write(fd, LARGE)
    assert content(tmp_path) == b"".join(LARGE)


def test_the_descriptor_keeps_its_flags(fd: int) -> None:
    """O_DIRECT is removed again: later writes need not be whole pages."""
    import fcntl

    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    FileSystem().write(fd, LARGE)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) == before


@pytest.mark.parametrize("aligned", [True, False])
def test_a_long_write_yields_the_core(fd: int, monkeypatch: pytest.MonkeyPatch, aligned: bool) -> None:
    """After each 2 MiB the thread yields its core, with and without the page cache."""
    steps: list[int] = []
    real = os.writev

    def writev(fd: int, views: list[memoryview]) -> int:
        steps.append(real(fd, views))
        return steps[-1]

    monkeypatch.setattr(os, "writev", writev)
    monkeypatch.setattr(yielding, "YIELD_INTERVAL_S", 0.0)
    monkeypatch.setattr(yielding, "yield_core", lambda: steps.append(0))
    os.lseek(fd, 0 if aligned else 1, os.SEEK_SET)
    FileSystem().write(fd, LARGE)
    assert sum(steps) == sum(map(len, LARGE))
    assert max(steps) <= STEP_BYTES
    assert all(step == 0 for before, step in pairwise(steps) if before)
