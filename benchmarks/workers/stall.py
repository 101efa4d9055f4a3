"""The longest that any one callback holds an asyncio application's loop while frames stream. One JSON line.

Every callback of the loop is timed: by the clock, and by its thread's processor time, which other threads
do not lengthen (a virtual machine's host may). Then the same of a loop that only ticks while zstd alone keeps
the cores busy: what the machine itself does to it.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import json
import os
import sys
import threading
import time
from typing import Any, Final

import numpy as np
import zstandard

from atomstream.streaming import AsyncRHEEDStreamer

worst = {"wall_s": 0.0, "cpu_s": 0.0}
TICK_S: Final = 0.002


def watch() -> None:
    """Time each callback from now on."""
    plain = asyncio.events.Handle._run

    def timed(handle: asyncio.events.Handle) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        plain(handle)
        worst["cpu_s"] = max(worst["cpu_s"], time.thread_time() - cpu)
        worst["wall_s"] = max(worst["wall_s"], time.perf_counter() - wall)

    asyncio.events.Handle._run = timed  # type: ignore[method-assign, assignment]


async def stream(job: dict[str, Any], source: np.ndarray) -> None:
    """Chunks at the camera's pace; the first, with its sessions and threads, is not timed."""
    async with AsyncRHEEDStreamer("key", job["url"], None, job["spool"], spool_min_free_bytes=0) as streamer:
        data_id = await streamer.initialize(job["fps"], 0.0, len(source))
        await streamer.push(data_id, 0, source)
        await streamer.flush(data_id)
        worst.update(wall_s=0.0, cpu_s=0.0)
        for k in range(1, job["chunks"]):
            await streamer.push(data_id, k, source)
            await asyncio.sleep(job["period_s"])
        await streamer.finalize(data_id)


async def tick(seconds: float, source: np.ndarray) -> None:
    """Nothing but ticks, beside as many compressing threads as there are cores."""
    over = threading.Event()
    threads = [threading.Thread(target=compress, args=(source, over)) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for _ in range(round(seconds / TICK_S)):
        await asyncio.sleep(TICK_S)
    over.set()
    for thread in threads:
        thread.join()


def compress(source: np.ndarray, over: threading.Event) -> None:
    """Frame after frame until ``over``; the GIL is released while each is made."""
    compressor = zstandard.ZstdCompressor(level=1)
    while not over.is_set():
        for frame in source:
            compressor.compress(memoryview(frame.data).cast("B"))
            if over.is_set():
                return


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    watch()
    asyncio.run(stream(job, source))
    ours = dict(worst)
    worst.update(wall_s=0.0, cpu_s=0.0)
    asyncio.run(tick(job["chunks"] * job["period_s"], source))
    print(json.dumps({"ours": ours, "bare": worst}))


if __name__ == "__main__":
    main()
