"""Streams in real time and measures the age of each result when it arrives. Prints one JSON line.

A chunk's result is the batch that reaches its last frame. "stored" is measured from the moment the server stored the
chunk, which is before its 200 leaves; "exposed" from the time at which the chunk's last frame was handed over.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import numpy as np

from atomstream import AsyncRHEEDStreamer

Ages = list[tuple[float, float, float]]
"""(s since the start of the stream, ms since storage, ms since exposure) of each chunk's result."""


async def film(streamer: AsyncRHEEDStreamer, data_id: str, job: dict[str, Any], exposed: list[float]) -> None:
    """Push the frames in real time."""
    frames, fps = np.load(job["frames"], mmap_mode="r"), job["fps"]
    frames, begun = np.ascontiguousarray(frames), time.perf_counter()
    for number in range(round(job["seconds"] * fps)):
        await asyncio.sleep(max(0.0, begun + number / fps - time.perf_counter()))
        exposed.append(time.time())
        await streamer.push_frame(data_id, frames[number % len(frames)], frame_id=number)
    await streamer.finalize(data_id)


async def follow(
    streamer: AsyncRHEEDStreamer, data_id: str, chunk: int, exposed: list[float], ages: Ages
) -> None:
    """Record when the result of each chunk arrives."""
    async for batch in streamer.results(data_id):
        now, end = time.time(), batch.start + batch.count
        if end % chunk == 0 and batch.stored_unix_ms is not None:
            last = exposed[end - 1]
            ages.append((last - exposed[0], 1000.0 * now - batch.stored_unix_ms, 1000.0 * (now - last)))


async def one_stream(streamer: AsyncRHEEDStreamer, job: dict[str, Any]) -> Ages:
    """Run one stream from its creation to the end of its analysis."""
    exposed: list[float] = []
    ages: Ages = []
    data_id = await streamer.initialize(job["fps"], 0.0, job["chunk"], "latency")
    await asyncio.gather(
        film(streamer, data_id, job, exposed), follow(streamer, data_id, job["chunk"], exposed, ages)
    )
    return ages


async def main() -> None:
    job = json.loads(sys.argv[1])
    async with AsyncRHEEDStreamer(job["key"], job["url"], None, job["spool"]) as streamer:
        streams = await asyncio.gather(*(one_stream(streamer, job) for _ in range(job["streams"])))
    ages = [age for stream in streams for age in stream if age[0] >= job["warm_up_s"]]
    print(json.dumps({"stored_ms": [age[1] for age in ages], "exposed_ms": [age[2] for age in ages]}))


if __name__ == "__main__":
    asyncio.run(main())
