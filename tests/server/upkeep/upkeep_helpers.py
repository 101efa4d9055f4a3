"""Helpers of the upkeep's tests: a small data folder, its content, and a disk on which a process dies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atomstream.records import Piece
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.system.files import FileSystem
from tests.server.archive.archive_helpers import claims_of, commit, frames_of, read_zarr

IDS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")


def about_of(data_id: str) -> dict[str, Any]:
    """A complete description of a stream."""
    return {
        "data_id": data_id,
        "name": f"Growth {data_id[0]}",
        "fps": 100.0,
        "rotations_per_min": 0.0,
        "made": "2026-11-30T07:00:00.000000+00:00",
        "last_updated": "2026-11-30T07:00:00.000000+00:00",
        "status": "stream_active",
    }


def make_data_dir(folder: Path, chunks: Sequence[int] = (0, 1)) -> dict[str, StreamArchive]:
    """A data folder with two streams of these chunks, a key file and a names log."""
    archives = {}
    for data_id in IDS:
        archives[data_id] = StreamArchive.create(folder / "streams" / data_id, about_of(data_id))
        for index in chunks:
            commit(archives[data_id], index)
    (folder / "keys.json").write_text(json.dumps([{"sha256": "00" * 32, "made": "2026"}]))
    (folder / "names.jsonl").write_text('{"type":"tag","id":"a","name":"GaN","made":"2026"}\n')
    return archives


def content(data_dir: Path) -> dict[str, bytes]:
    """All files that a backup must bring back, by name."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in data_dir.rglob("*")
        if path.is_file()
        and "incoming" not in path.parts
        and not path.name.startswith((".lock", ".upkeep-lock", "catalogue"))
    }


def check_stream(folder: Path) -> set[int]:
    """Check that each stored chunk reads equal, with its times; returns their indices."""
    archive = StreamArchive.open(folder)
    chunks = archive.chunks()
    if chunks:
        seen, times = read_zarr(folder), read_zarr(folder, "time")
        for index in chunks:
            part = slice(4 * index, 4 * index + 4)
            assert (seen[part] == frames_of(index)).all(), index
            expected = [0.01 * (4 * index + k) for k in range(4)]
            assert abs(times[part] - expected).max() < 1e-6, index
            stamps = archive.stamps(index)
            assert stamps is not None
            assert stamps.start_unix_ms == claims_of(index, frames_of(index)).start_unix_ms
    return set(chunks)


class Killed(BaseException):
    """Raised at the point where the simulated process is killed."""


class DyingFileSystem(FileSystem):
    """Simulates a process that is killed before the call number ``after`` that changes the disk; all later calls raise
    too."""

    def __init__(self, after: int) -> None:
        self.left = after

    def _count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Killed

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, fd: int, pieces: Sequence[Piece]) -> None:
        self._count()
        super().write(fd, pieces)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._count()
        super().unlink(path)

    def sync_folder(self, path: Path) -> None:
        self._count()
        super().sync_folder(path)
