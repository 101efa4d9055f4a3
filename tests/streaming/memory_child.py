"""Pushes until push blocks, then reports its memory: ``memory_child.py URL KEY SPOOL BUFFER_BYTES SIDE LEVELS``."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil

from atomstream import RHEEDStreamer

CHUNK = 8


def main() -> None:
    url, key, spool = sys.argv[1:4]
    limit, side, levels = map(int, sys.argv[4:])
    frames = np.random.default_rng(0).integers(0, levels, (CHUNK, side, side), dtype=np.uint8)
    with RHEEDStreamer(
        key, url, spool_dir=Path(spool), spool_min_free_bytes=0, buffer_bytes=limit, encoder_threads=2,
        upload_concurrency=4, upload_timeout_s=600.0, clock_sync=False,
    ) as streamer:  # fmt: skip
        data_id = streamer.initialize(4.0, 0.0, CHUNK)
        base = psutil.Process().memory_info().rss
        peak = [base]
        threading.Thread(target=watch, args=(streamer, base, peak), daemon=True).start()
        for k in range(10_000):
            streamer.push(data_id, k, frames)


def watch(streamer: RHEEDStreamer, base: int, peak: list[int]) -> None:
    """Report how much memory was added, once push has been blocked for half a second without progress."""
    still, before = 0, 0
    while still < 50:
        peak[0] = max(peak[0], psutil.Process().memory_info().rss)
        stats = streamer.stats()
        chunks = sum(one["chunks_accepted"] for one in stats["streams"].values())
        still = still + 1 if stats["pushes_waiting"] and chunks == before else 0
        before = chunks
        time.sleep(0.01)
    result = {"grown": peak[0] - base, "chunks": before, "used": streamer.stats()["buffer_bytes_used"]}
    print(json.dumps(result), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
