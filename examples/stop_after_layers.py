"""A control loop: close the shutter after N layers, using the growth rate that is measured while the film grows.

Results are some tenths of a second old when they arrive. So the loop does not wait until the layers are complete: it
computes from each result when they will be, and the shutter closes at the newest estimate.

Run it against a server (``atomstream serve``)::

    export ATOMSTREAM_ENDPOINT=http://127.0.0.1:8765 ATOMSTREAM_API_KEY=atst_...
    python examples/stop_after_layers.py --layers 6
"""

from __future__ import annotations

import argparse
import asyncio
import time
import warnings
from dataclasses import replace

import numpy as np

from atomstream import AsyncRHEEDStreamer
from atomstream.sources import GrowthSpec, Simulator, apaced

CHUNK_S = 0.5
SETTLE_S = 1.0
# Short chunks give earlier results. An atomstream server takes them; the warning concerns the hosted service.
warnings.filterwarnings("ignore", message=".*chunk", category=UserWarning)


class Chamber:
    """A place-holder for your growth chamber: a film that grows while the shutter is open, and a camera."""

    def __init__(self, spec: GrowthSpec) -> None:
        self._spec = spec
        self._simulator = Simulator(spec)
        self.now_s = 0.0
        self.closes_at_s = float("inf")
        self.closed = asyncio.Event()

    @property
    def layers(self) -> float:
        """The true number of layers, which a real chamber does not know."""
        return self._spec.rate_ml_s * min(self.now_s, self.closes_at_s)

    def camera(self, n: int, n_total: int) -> Camera:
        """A camera that delivers chunks of ``n`` frames, until ``SETTLE_S`` after the shutter has closed."""
        return Camera(self, n, n_total)

    def expose(self, first: int, n: int) -> np.ndarray:
        """The next frames (n, H, W); closes the shutter if its time has come."""
        self.now_s = (first + n) / self._spec.fps
        if self.now_s >= self.closes_at_s and not self.closed.is_set():
            self._simulator = Simulator(replace(self._spec, growth_stop_s=self.closes_at_s))
            self.closed.set()
        return self._simulator.frames(first, n)


class Camera:
    """Iterates over chunks of frames."""

    def __init__(self, chamber: Chamber, n: int, n_total: int) -> None:
        self._chamber = chamber
        self._n = n
        self._starts = iter(range(0, n_total, n))

    def __iter__(self) -> Camera:
        return self

    def __next__(self) -> np.ndarray:
        if self._chamber.now_s > self._chamber.closes_at_s + SETTLE_S:
            raise StopIteration
        return self._chamber.expose(next(self._starts), self._n)


async def film(
    streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber, spec: GrowthSpec, seconds: float
) -> None:
    """Stream the camera's chunks in real time."""
    camera = chamber.camera(round(CHUNK_S * spec.fps), round(seconds * spec.fps))
    began_ms, index = 1000.0 * time.time(), 0
    async for frames in apaced(camera, spec.fps):
        exposed_s = chamber.now_s - len(frames) / spec.fps  # replace by your camera's time of the first frame
        await streamer.push(data_id, index, frames, began_ms + 1000.0 * exposed_s)
        index += 1
    await streamer.finalize(data_id)


async def control(streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber, layers: float) -> None:
    """Compute the time to close the shutter from each result, until it has closed."""
    async for batch in streamer.results(data_id):
        rate, grown = batch.growth_rate_ml_s, batch.layers_grown
        if chamber.closed.is_set() or rate is None or grown is None or not batch.count:
            continue
        chamber.closes_at_s = float(batch.time_s[-1]) + (layers - grown) / rate
        print(
            f"{batch.time_s[-1]:5.1f} s: {grown:.2f} layers at {rate:.3f} ± {batch.growth_rate_sigma:.3f} a second"
        )


async def mark_closing(streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber) -> None:
    """Mark the closing in the stream: the mark begins a new segment and is shown on every chart."""
    await chamber.closed.wait()
    await streamer.mark(data_id, "shutter closed", kind="shutter")


async def main(layers: float, seconds: float, spec: GrowthSpec) -> None:
    """Grow ``layers`` layers; stop after ``seconds`` in any case."""
    chamber = Chamber(spec)
    async with AsyncRHEEDStreamer() as streamer:
        data_id = await streamer.initialize(spec.fps, 0.0, round(CHUNK_S * spec.fps), f"{layers:g} layers")
        marking = asyncio.create_task(mark_closing(streamer, data_id, chamber))
        await asyncio.gather(
            film(streamer, data_id, chamber, spec, seconds), control(streamer, data_id, chamber, layers)
        )
        if chamber.closed.is_set():
            await marking
        else:
            marking.cancel()
    print(f"data_id: {data_id}")
    if chamber.closed.is_set():
        print(f"closed after {chamber.layers:.2f} layers ({layers:g} were requested)")
    else:
        print("the shutter was never closed: no growth rate was determined in time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=0.8)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    growth = GrowthSpec(args.height, args.width, args.fps, rate_ml_s=args.rate)
    asyncio.run(main(args.layers, args.seconds, growth))
