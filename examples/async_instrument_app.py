"""An asyncio instrument-control program: camera, heater and streaming in one event loop.

The streamer does not block the event loop: frames are copied and compressed in threads. One more task measures the
longest time for which the loop did not run.

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
    """Measures stalls of the event loop: it sleeps for 1 ms repeatedly, and a longer sleep means a stall."""

    longest_ms = 0.0

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_ms = max(self.longest_ms, 1000.0 * (time.perf_counter() - before) - 1.0)


async def control_heater(setpoint_c: float) -> None:
    """A placeholder for the other work that a control program does many times a second."""
    temperature_c = 25.0
    while True:
        temperature_c += 0.05 * (setpoint_c - temperature_c)
        await asyncio.sleep(0.02)


async def film(streamer: AsyncRHEEDStreamer, spec: GrowthSpec, seconds: float) -> str:
    """Stream the camera's chunks as they arrive; returns the stream's id."""
    chunk_size = math.ceil(CHUNK_S * spec.fps)
    data_id = await streamer.initialize(spec.fps, 0.0, chunk_size, "Asyncio app", physical_sample="Wafer-A1")
    chunks = Simulator(spec).chunks(chunk_size, round(seconds * spec.fps))
    index = 0
    async for frames in apaced(chunks, spec.fps):  # replace this by your camera
        await streamer.push(data_id, index, frames)
        index += 1
    return data_id


async def main(seconds: float, spec: GrowthSpec) -> None:
    """Run camera and heater at the same time, then wait until the last chunk is delivered."""
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
    args = parser.parse_args()
    asyncio.run(main(args.seconds, GrowthSpec(args.height, args.width, args.fps)))
