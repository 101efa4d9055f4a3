"""Longest callback of an asyncio event loop while frames are streamed. Prints one JSON line.

Every callback is timed, and the time of the longest is split into CPU time, waiting for a core, and the rest. The same
is then measured for a loop that only ticks while zstd uses the cores, which shows the effect of the machine.
"""

from __future__ import annotations

import asyncio
import asyncio.events
import json
import os
import sys
import threading
from typing import Any, Final

import numpy as np
import zstandard

from atomstream.streaming import AsyncRHEEDStreamer
from benchmarks.thread_time import ThreadClock, ThreadTime

TICK_S: Final = 0.002


class Longest:
    """Finds the longest callback of the loop since the last reading."""

    def __init__(self) -> None:
        self._clock = ThreadClock()
        self._hold = ThreadTime()

    def watch(self) -> None:
        """Start to time each callback."""
        plain = asyncio.events.Handle._run

        def timed(handle: asyncio.events.Handle) -> None:
            before = self._clock.now()
            plain(handle)
            self._hold = max(self._hold, self._clock.now().since(before), key=lambda hold: hold.wall_s)

        # asyncio has no public hook around a callback, and its debug mode, which logs slow ones, slows down all.
        asyncio.events.Handle._run = timed  # type: ignore[method-assign, assignment]  # a private method is replaced

    def take(self) -> ThreadTime:
        """Return the longest one and start again."""
        hold, self._hold = self._hold, ThreadTime()
        return hold


async def stream(job: dict[str, Any], source: np.ndarray, longest: Longest) -> None:
    """Push chunks in real time; the first one, which creates sessions and threads, is not timed."""
    async with AsyncRHEEDStreamer("key", job["url"], None, job["spool"], spool_min_free_bytes=0) as streamer:
        data_id = await streamer.initialize(job["fps"], 0.0, len(source))
        await streamer.push(data_id, 0, source)
        await streamer.flush(data_id)
        longest.take()
        for k in range(1, job["chunks"]):
            await streamer.push(data_id, k, source)
            await asyncio.sleep(job["period_s"])
        await streamer.finalize(data_id)


async def tick(seconds: float, source: np.ndarray) -> None:
    """Run only ticks, with one compressing thread per core."""
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
    """Compress frames until ``over``; the GIL is released meanwhile."""
    compressor = zstandard.ZstdCompressor(level=1)
    while not over.is_set():
        for frame in source:
            compressor.compress(memoryview(frame.data).cast("B"))
            if over.is_set():
                return


def main() -> None:
    job = json.loads(sys.argv[1])
    source = np.ascontiguousarray(np.load(job["frames"], mmap_mode="r"))
    longest = Longest()
    longest.watch()
    asyncio.run(stream(job, source, longest))
    ours = longest.take()
    asyncio.run(tick(job["chunks"] * job["period_s"], source))
    print(json.dumps({"ours": ours.milliseconds(), "bare": longest.take().milliseconds()}))


if __name__ == "__main__":
    main()
