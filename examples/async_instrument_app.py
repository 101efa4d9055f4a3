"""An asyncio instrument-control app: camera, heater and streaming in one event loop.

The streamer never holds the loop up: copies and compression happen in threads, the network in between. A watch
beside the other tasks measures the longest time for which the loop did not turn.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/async_instrument_app.py --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time

from atomstream import AsyncRHEEDStreamer
from atomstream.sources import GrowthSpec, Simulator, apaced

CHUNK_S = 2.0


class LoopWatch:
    """Sleeps for a millisecond again and again; what it oversleeps, the loop stood still."""

    longest_ms = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_ms = max(self.longest_ms, 1000.0 * (time.perf_counter() - before) - 1.0)


async def control_heater(setpoint_c: float) -> None:
    """Stands for all else that an instrument app does many times a second."""
    temperature_c = 25.0
    while True:
        temperature_c += 0.05 * (setpoint_c - temperature_c)
        await asyncio.sleep(0.02)


async def film(streamer: AsyncRHEEDStreamer, spec: GrowthSpec, seconds: float) -> str:
    """Stream the camera's chunks as they come; the stream's id."""
    chunk_size = math.ceil(CHUNK_S * spec.fps)
    data_id = await streamer.initialize(spec.fps, 0.0, chunk_size, "Asyncio app", physical_sample="Wafer-A1")
    chunks = Simulator(spec).chunks(chunk_size, round(seconds * spec.fps))
    index = 0
    async for frames in apaced(chunks, spec.fps):  # your camera's `async for`, or its awaited capture()
        await streamer.push(data_id, index, frames)
        index += 1
    return data_id


async def main(seconds: float, spec: GrowthSpec) -> None:
    """Run camera and heater side by side, then wait for the last chunk."""
    watch = LoopWatch()
    others = [asyncio.create_task(watch.run()), asyncio.create_task(control_heater(620.0))]
    async with AsyncRHEEDStreamer() as streamer:
        data_id = await film(streamer, spec, seconds)
        report = await streamer.finalize(data_id)
    for task in others:
        task.cancel()
    print(f"data_id: {data_id}")
    print(f"{report['chunks_uploaded']} of {report['chunks_spooled']} chunks stored")
    print(f"longest stall of the event loop: {watch.longest_ms:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    given = parser.parse_args()
    asyncio.run(main(given.seconds, GrowthSpec(given.height, given.width, given.fps)))
