"""Helpers of the spool's tests: small real shards, and a file system with injected faults."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from atomstream.records import Chunk, FrameMeta, Piece, Shard, StreamSpec, Timestamp
from atomstream.shard import ShardEncoder
from atomstream.spool import Spool, StreamSpool
from atomstream.system.files import FileSystem

ENDPOINT = "http://127.0.0.1:8765"
DATA_ID = "3e0f6d3a-52c5-4b39-9a29-6a1d0e4b7c11"


def spec(data_id: str = DATA_ID) -> StreamSpec:
    """A stream of 4-frame chunks."""
    return StreamSpec(data_id, fps=120.0, rpm=15.0, chunk_size=4, name="a growth", announced=True)


@cache
def shard(index: int, variant: int = 0, data_id: str = DATA_ID, side: int = 6) -> Shard:
    """A real shard whose frames depend on the index and the variant."""
    frames = np.random.default_rng([index, variant]).integers(0, 256, (4, side, side + 1), dtype=np.uint8)
    meta = FrameMeta(ids=tuple(range(4 * index, 4 * index + 4)))
    return ShardEncoder().encode(Chunk(data_id, index, frames, Timestamp(1e12 + index, 3.5, 0.25), meta))


def payload(of: Shard) -> bytes:
    """A shard's bytes joined."""
    return b"".join(map(bytes, of.pieces))


def delivered(stream: StreamSpool, index: int) -> bytes:
    """The bytes that an uploader would send."""
    return b"".join(stream.read_windows(index, window=37))


def new_spool(root: Path, disk: FileSystem | None = None, **options: Any) -> Spool:
    """A spool with ``min_free_bytes`` 0, because the disk of the tests may be small."""
    return Spool(root, **{"max_bytes": 1 << 30, "min_free_bytes": 0, **options}, disk=disk)


def new_stream(root: Path, disk: FileSystem | None = None, **options: Any) -> StreamSpool:
    """A new stream in a new spool."""
    return new_spool(root, disk, **options).create_stream(ENDPOINT, spec())


def reopened(root: Path, disk: FileSystem | None = None) -> StreamSpool:
    """The stream, opened as the next process would."""
    return new_spool(root, disk).open_stream(ENDPOINT, DATA_ID)


class FaultyDisk(FileSystem):
    """A real file system whose calls number ``first`` to ``last`` (from 0) fail with ``code``.

    With ``late`` a call fails after its work is done (a write: half of it).
    """

    def __init__(self, first: int = -1, last: int | None = None, code: int = errno.EIO, late: bool = False):
        super().__init__()
        self.first = first
        self.last = first if last is None else last
        self.code = code
        self.late = late
        self.calls: list[str] = []

    def recover(self) -> None:
        """No further call fails."""
        self.first = self.last = -1

    def _do(self, name: str, work: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        if not self.first <= number <= self.last:
            return work()
        if self.late:
            (half or work)()
        raise OSError(self.code, f"injected at call {number} ({name})")

    def create(self, path: Path) -> int:
        return self._do("create", lambda: super(FaultyDisk, self).create(path), path.touch)

    def open_truncated(self, path: Path, position: int) -> int:
        return self._do(
            "open_truncated", lambda: super(FaultyDisk, self).open_truncated(path, position), lambda: None
        )

    def open_existing(self, path: Path) -> int:
        return self._do("open_existing", lambda: super(FaultyDisk, self).open_existing(path), lambda: None)

    def truncate(self, fd: int, position: int) -> None:
        self._do("truncate", lambda: super(FaultyDisk, self).truncate(fd, position))

    def write(self, fd: int, pieces: Sequence[Piece]) -> None:
        whole = b"".join(map(bytes, pieces))
        half = [whole[: len(whole) // 2]]
        self._do(
            "write",
            lambda: super(FaultyDisk, self).write(fd, pieces),
            lambda: super(FaultyDisk, self).write(fd, half),
        )

    def sync(self, fd: int) -> None:
        self._do("sync", lambda: super(FaultyDisk, self).sync(fd))

    def close(self, fd: int) -> None:
        super().close(fd)  # also where an error follows: else the test leaks
        self._do("close", lambda: None)

    def rename(self, source: Path, target: Path) -> None:
        self._do("rename", lambda: super(FaultyDisk, self).rename(source, target))

    def unlink(self, path: Path) -> None:
        self._do("unlink", lambda: super(FaultyDisk, self).unlink(path))

    def overwrite(self, path: Path, data: bytes) -> None:
        self._do("overwrite", lambda: super(FaultyDisk, self).overwrite(path, data))

    def make_one_folder(self, path: Path) -> None:
        self._do("mkdir", lambda: super(FaultyDisk, self).make_one_folder(path))

    def sync_folder(self, path: Path) -> None:
        self._do("sync_folder", lambda: super(FaultyDisk, self).sync_folder(path))

    def open_read(self, path: Path) -> io.FileIO:
        return self._do("open_read", lambda: super(FaultyDisk, self).open_read(path), lambda: None)
