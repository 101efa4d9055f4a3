"""Export of an hour at 120 frames a second as HDF5: speed beside a plain copy of the file, and memory of the server.

The frames are small (48x64), so that an hour of them fits onto any disk; the number of chunks and rows is that of
large ones. Memory is constant if it is the same for a quarter of an hour and for an hour.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Final
from urllib.request import Request, urlopen

import google_crc32c
import numpy as np

from atomstream import RHEEDStreamer
from atomstream.records import Chunk, FrameMeta, Timestamp
from atomstream.server.archive.records import UploadClaims
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.shard import ShardEncoder
from benchmarks.report import Goal, Row
from benchmarks.runner import Plan, main
from benchmarks.serving import KEY, Served, running_server

HEIGHT: Final = 48
WIDTH: Final = 64
HOURS: Final = (0.25, 1.0)
MORE_MB: Final = 40.0
"""The peak may differ by this much: pieces of 16 MB, and what the allocator keeps."""


def measure(plan: Plan) -> list[Row]:
    """Export a quarter of an hour and an hour; ``bare`` is the time of copying the exported file on the same disk."""
    folder = plan.disk / "exports"
    with (
        running_server(folder) as server,
        RHEEDStreamer(KEY, server.url, None, plan.shm / "spool") as streamer,
    ):
        data_id = streamer.initialize(plan.fps, 0.0, plan.chunk, "an hour")
        streamer.push(data_id, 0, some_frames(plan, 0), capture_start_ms_utc=1.7e12)
        streamer.finalize(data_id)
    taken: list[float] = []
    bare: list[float] = []
    peaks: list[float] = []
    count = 1
    for hours in HOURS:
        chunks = round(hours * 3600 * plan.fps / plan.chunk) if not plan.quick else round(8 * hours)
        fill(plan, folder / "streams" / data_id, data_id, range(count, chunks))
        count = chunks
        with running_server(folder) as server:
            target = plan.disk / "export.h5"
            seconds, peak = _export(server, f"/rheed/stream/{data_id}/export?to=h5", target)
            peaks.append(peak)
            begun = time.perf_counter()
            shutil.copyfile(target, plan.disk / "copy.h5")
            copied = time.perf_counter() - begun
            size_mb = target.stat().st_size / 1e6
            taken.append(size_mb / seconds)
            bare.append(size_mb / copied)
    name = f"export as HDF5, {HEIGHT}x{WIDTH}"
    return [
        Row(f"{name}, an hour: speed", "MB/s", {"ours": taken[-1:], "bare": bare[-1:]}),
        Row(f"{name}, a quarter of an hour: most memory of the server", "MB", {"ours": peaks[:1]}),
        Row(f"{name}, an hour: the same", "MB", {"ours": peaks[1:]}, (Goal(peaks[0] + MORE_MB),)),
    ]


def _export(server: Served, path: str, target: Path) -> tuple[float, float]:
    """Export into ``target``; returns the time in s and the server's largest memory in MB."""
    ended, peak = threading.Event(), [0]

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], server.process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        begun = time.perf_counter()
        asked = Request(server.url + path, headers={"X-API-KEY": KEY})
        with urlopen(asked, timeout=3600) as reply, target.open("wb") as file:
            shutil.copyfileobj(reply, file, 1 << 20)
        return time.perf_counter() - begun, peak[0] / 1e6
    finally:
        ended.set()
        watcher.join()


def fill(plan: Plan, folder: Path, data_id: str, indices: range) -> None:
    """Add chunks of noise to the archive in ``folder``, whose server is stopped."""
    archive = StreamArchive.open(folder)
    encoder = ShardEncoder()
    for index in indices:
        start = 1.7e12 + 1000.0 * index * plan.chunk / plan.fps
        chunk = Chunk(data_id, index, some_frames(plan, index), Timestamp(start), FrameMeta())
        shard = encoder.encode(chunk)
        data = b"".join(shard.pieces)
        end = start + 1000.0 * plan.chunk / plan.fps
        claims = UploadClaims(data_id, index, shard.info.dims, "uint8", plan.chunk, plan.fps, start, end)
        body = archive.incoming()
        body.write_bytes(data)
        archive.commit(claims, body, google_crc32c.value(data))


def some_frames(plan: Plan, index: int) -> np.ndarray:
    """Noise, a chunk of (n, H, W)."""
    return np.random.default_rng(index).integers(0, 64, (plan.chunk, HEIGHT, WIDTH), np.uint8)


if __name__ == "__main__":
    main(measure)
