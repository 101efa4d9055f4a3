"""Pushes to a slow disk, then reports its memory: ``slow_disk_child.py URL KEY SPOOL BUFFER_BYTES``."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil

from atomstream import RHEEDStreamer
from atomstream.system.files import FileSystem

SHAPE = (240, 120, 160)
CHUNKS = 120
WRITE_S = 0.02
"""Delay of each write, in s: the encoders are faster than this disk."""


def main() -> None:
    url, key, spool, limit = *sys.argv[1:4], int(sys.argv[4])
    write = FileSystem.write

    def slow(disk: FileSystem, *arguments: Any) -> None:
        time.sleep(WRITE_S)  # simulates the slow disk
        write(disk, *arguments)

    patch.object(FileSystem, "write", slow).start()
    # Like a camera's frames: noise around a level, so that shards have half the size of the frames.
    frames = np.random.default_rng(0).normal(120, 6, SHAPE).astype(np.uint8)
    streamer = RHEEDStreamer(
        key, url, spool_dir=Path(spool), spool_min_free_bytes=0, buffer_bytes=limit, encoder_threads=2,
        upload_concurrency=4, upload_timeout_s=600.0, clock_sync=False,
    )  # fmt: skip
    data_id = streamer.initialize(120.0, 0.0, len(frames))
    base = psutil.Process().memory_info().rss
    peak, used = [base], [0]
    threading.Thread(target=watch, args=(streamer, peak, used), daemon=True).start()
    for k in range(CHUNKS):
        streamer.push(data_id, k, frames)
    result = {"grown": peak[0] - base, "used": used[0]}
    print(json.dumps(result), flush=True)  # noqa: T201 - the result for the test
    os._exit(0)  # chunks that wait for the server would still wait


def watch(streamer: RHEEDStreamer, peak: list[int], used: list[int]) -> None:
    """Record the peak memory of the process and the peak that the memory limiter counted."""
    while True:
        peak[0] = max(peak[0], psutil.Process().memory_info().rss)
        used[0] = max(used[0], streamer.stats()["buffer_bytes_used"])
        time.sleep(0.005)  # samples at intervals, so that the process can do its work


if __name__ == "__main__":
    main()
