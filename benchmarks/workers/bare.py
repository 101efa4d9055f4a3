"""The bare limits: one memory copy, zstd, a write to the page cache, a send; and our encoder alone.

CPU time of this thread per GB of raw frames, each step with the same frames. Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import zstandard

from atomstream.shard import ShardEncoder, slice_bound

MIB = 1 << 20


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    gb = source.nbytes / 1e9
    views = [memoryview(frame.data).cast("B") for frame in source]
    shard = compress(views)
    steps = {
        "copy": copy_step(source),
        "zstd": lambda: compress(views),
        "write": lambda: write(Path(job["spool"]), shard),
        "send": lambda: send(job["url"], shard),
    }
    cpu = {name: min(_cpu(step) for _ in range(job["times"])) / gb for name, step in steps.items()}
    ratio = source.nbytes / sum(map(len, shard))
    fps = {"zstd_fps": fps_on_two(views, job["times"]), "encoder_fps": encoder_fps(source, job["times"])}
    print(json.dumps({"cpu_s_per_gb": cpu, "ratio": ratio, **fps}))


def copy_step(source: np.ndarray) -> Callable[[], None]:
    """Copy between two arrays that are in memory already."""
    target = np.empty_like(source)
    np.copyto(target, source)
    return lambda: np.copyto(target, source)


def compress(views: list[memoryview]) -> list[bytes]:
    """Compress each frame with zstd level 1 and a checksum, as in the shards."""
    compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
    return [compressor.compress(view) for view in views]


def write(folder: Path, pieces: list[bytes]) -> None:
    """Write to the page cache, without sync."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bare"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for piece in pieces:
        os.write(fd, piece)
    os.close(fd)
    path.unlink()


def send(url: str, pieces: list[bytes]) -> None:
    """Send one PUT over a plain socket."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        length = sum(map(len, pieces))
        connection.sendall(f"PUT /put HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        for piece in pieces:
            connection.sendall(piece)
        connection.recv(4096)


def fps_on_two(views: list[memoryview], times: int) -> float:
    """Return the frames per second of zstd alone on two threads, each with its own compressor."""
    local = threading.local()

    def one(view: memoryview) -> int:
        if not hasattr(local, "compressor"):
            local.compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
        return len(local.compressor.compress(view))

    with ThreadPoolExecutor(2) as pool:
        begun = time.perf_counter()
        for _ in range(times):
            list(pool.map(one, views))
        return times * len(views) / (time.perf_counter() - begun)


def encoder_fps(source: np.ndarray, times: int) -> float:
    """Return the frames per second of our encoder alone on two threads."""
    half, passes = len(source) // 2, 4 * times
    warm = threading.Barrier(3)

    def encode(frames: np.ndarray) -> None:
        encoder, room = ShardEncoder(1), memoryview(bytearray(slice_bound(len(frames), frames[0].nbytes)))
        encoder.compress(frames, room)
        warm.wait()
        for _ in range(passes):
            encoder.compress(frames, room)

    threads = [threading.Thread(target=encode, args=(part,)) for part in (source[:half], source[half:])]
    for thread in threads:
        thread.start()
    warm.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    return passes * len(source) / (time.perf_counter() - begun)


def _cpu(step: Callable[[], object]) -> float:
    begun = time.thread_time()
    step()
    return time.thread_time() - begun


if __name__ == "__main__":
    main()
