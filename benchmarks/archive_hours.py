"""Cost of opening an archive of ten hours at 120 fps, and of adding one chunk to it."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path

import google_crc32c
import numpy as np

from atomstream.records import Chunk, FrameMeta, Timestamp
from atomstream.server.archive.records import UploadClaims
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.shard import ShardEncoder
from benchmarks.report import Row
from benchmarks.runner import Plan, main

FPS, CHUNK, HEIGHT, WIDTH = 120.0, 240, 24, 32
SOME = 25


def measure(plan: Plan) -> list[Row]:
    """Measure with small frames, because the index is what grows; ``bare`` is the same for a new stream."""
    chunks = 200 if plan.quick else round(10 * 3600 * FPS / CHUNK)
    folder = plan.disk / "archive" / str(uuid.uuid4())
    archive = StreamArchive.create(folder, {"data_id": folder.name})
    early = [_commit(archive, k) for k in range(SOME)]
    for k in range(SOME, chunks):
        _copy(archive, k)
    begun = time.perf_counter()
    archive = StreamArchive.open(folder)
    taken_up = time.perf_counter() - begun
    begun = time.perf_counter()
    archive = StreamArchive.open(folder)
    opened = time.perf_counter() - begun
    late = [_commit(archive, chunks + k) for k in range(SOME)]
    name = f"archive of {chunks} chunks ({chunks * CHUNK / FPS / 3600:.3g} h)"
    return [
        Row(f"{name}: commit of one more", "ms", {"ours": [_middle(late)], "bare": [_middle(early)]}),
        Row(f"{name}: opening it", "s", {"ours": [opened]}),
        Row(f"{name}: taking up shards that no column counts", "s", {"ours": [taken_up]}),
    ]


def _commit(archive: StreamArchive, index: int) -> float:
    frames = np.full((CHUNK, HEIGHT, WIDTH), index % 255, dtype=np.uint8)
    start = 1000.0 * index * CHUNK / FPS
    shard = ShardEncoder().encode(Chunk(archive.folder.name, index, frames, Timestamp(start), FrameMeta()))
    data = b"".join(shard.pieces)
    ticket = UploadClaims(
        archive.folder.name, index, shard.info.dims, "uint8", CHUNK, FPS, start, start + 1000.0 * CHUNK / FPS
    )
    begun = time.perf_counter()
    body = archive.incoming()
    body.write_bytes(data)
    archive.commit(ticket, body, google_crc32c.value(data))
    return 1e3 * (time.perf_counter() - begun)


def _copy(archive: StreamArchive, index: int) -> None:
    """Return the shard of chunk 0 with another index; the pixels do not matter here."""
    place: Path = archive.shard_file(index)
    place.parent.mkdir(parents=True)
    shutil.copyfile(archive.shard_file(0), place)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main(measure)
