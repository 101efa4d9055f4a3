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
import math
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from atomstream import AsyncRHEEDStreamer
from atomstream.sources import GrowthSpec, Simulator, apaced
from atomstream.streaming import ResultBatch

CHUNK_S = 0.5
SETTLE_S = 1.0
MAX_LAG_S = CHUNK_S
MAX_DOUBT_LAYERS = 0.3
# Short chunks give earlier results. An atomstream server takes them; the warning concerns the hosted service.
warnings.filterwarnings("ignore", message=".*chunk", category=UserWarning)


class Chamber(ABC):
    """A placeholder for your growth chamber: a film that grows while the shutter is open, and a camera of ``fps``."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.now_s = 0.0
        self.closes_at_s = math.inf
        self.closed = asyncio.Event()
        self._result_s = 0.0
        self._new_result = asyncio.Event()

    @abstractmethod
    def layers_at(self, time_s: float) -> float:
        """The true number of layers with the shutter open until ``time_s``, which is unknown in a real chamber."""

    @abstractmethod
    def frames(self, first: int, n: int) -> np.ndarray:
        """The frames (n, H, W) from number ``first`` on."""

    @property
    def layers(self) -> float:
        """The true number of layers now."""
        return self.layers_at(min(self.now_s, self.closes_at_s))

    def note_result(self, time_s: float) -> None:
        """Note that results up to ``time_s`` have arrived."""
        self._result_s = time_s
        self._new_result.set()

    async def wait_for_results(self) -> None:
        """Wait until results up to ``MAX_LAG_S`` before now have arrived, or the shutter has closed.

        Leave this out with a real chamber, which can't wait. Here it makes the outcome independent of the computer: on
        a busy one results come late.
        """
        while not self.closed.is_set() and self._result_s < self.now_s - MAX_LAG_S:
            self._new_result.clear()
            await self._new_result.wait()

    def expose(self, first: int, n: int) -> np.ndarray:
        """The next frames (n, H, W); closes the shutter if its time has come."""
        self.now_s = (first + n) / self.fps
        if self.now_s >= self.closes_at_s:
            self.closed.set()
        return self.frames(first, n)


class SimulatedChamber(Chamber):
    """Grows a film as ``spec`` describes it, which may include an end of the growth (``growth_stop_s``)."""

    def __init__(self, spec: GrowthSpec) -> None:
        super().__init__(spec.fps)
        self._spec = spec
        self._simulator = Simulator(spec)

    def layers_at(self, time_s: float) -> float:
        """The true number of layers."""
        stops_s = self._spec.growth_stop_s
        return self._spec.rate_ml_s * (time_s if stops_s is None else min(time_s, stops_s))

    def frames(self, first: int, n: int) -> np.ndarray:
        """Simulated frames."""
        if self.closed.is_set() and self.closes_at_s < (self._spec.growth_stop_s or math.inf):
            self._spec = replace(self._spec, growth_stop_s=self.closes_at_s)
            self._simulator = Simulator(self._spec)
        return self._simulator.frames(first, n)


def camera(chamber: Chamber, n: int, n_total: int) -> Iterator[np.ndarray]:
    """Chunks of ``n`` frames, until ``n_total`` frames or ``SETTLE_S`` after the shutter has closed."""
    for first in range(0, n_total, n):
        if chamber.now_s > chamber.closes_at_s + SETTLE_S:
            return
        yield chamber.expose(first, n)


async def film(streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber, seconds: float) -> None:
    """Stream the camera's chunks in real time."""
    chunks = camera(chamber, round(CHUNK_S * chamber.fps), round(seconds * chamber.fps))
    began_ms, index = 1000.0 * time.time(), 0
    async for frames in apaced(chunks, chamber.fps):
        exposed_s = (
            chamber.now_s - len(frames) / chamber.fps
        )  # replace with your camera's time of the first frame
        await streamer.push(data_id, index, frames, began_ms + 1000.0 * exposed_s)
        index += 1
        await chamber.wait_for_results()
    await streamer.finalize(data_id)


async def control(streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber, layers: float) -> None:
    """Compute the time to close the shutter from each result, until it has closed.

    While the rate is undetermined there is no such time: it is unknown whether the film still grows. The same holds
    while the count is uncertain by more than ``MAX_DOUBT_LAYERS``: growth may have ended some tenths of a layer ago.
    """
    async for batch in streamer.results(data_id):
        if chamber.closed.is_set() or not batch.count:
            continue
        chamber.note_result(float(batch.time_s[-1]))
        rate, grown, now_s = batch.growth_rate_ml_s, batch.layers_grown, float(batch.time_s[-1])
        if rate is None or grown is None:
            if math.isfinite(chamber.closes_at_s):
                print(f"{now_s:5.1f} s: the shutter stays open, the rate is undetermined: {why(batch)}")
            chamber.closes_at_s = math.inf
            continue
        doubt = batch.values["layers_grown"].sigma or 0.0
        if doubt > MAX_DOUBT_LAYERS:
            print(
                f"{now_s:5.1f} s: the shutter stays open, the count is uncertain: {grown:.2f} ± {doubt:.2f} layers"
            )
            chamber.closes_at_s = math.inf
            continue
        chamber.closes_at_s = now_s + (layers - grown) / rate
        print(f"{now_s:5.1f} s: {grown:.2f} layers at {rate:.3f} ± {batch.growth_rate_sigma:.3f} a second")


def why(batch: ResultBatch) -> str:
    """The reason why a batch has no growth rate."""
    return batch.values["growth_rate_ml_s"].why


async def mark_closing(streamer: AsyncRHEEDStreamer, data_id: str, chamber: Chamber) -> None:
    """Mark the closing in the stream: the mark begins a new segment and is shown on every chart."""
    await chamber.closed.wait()
    await streamer.mark(data_id, "shutter closed", kind="shutter")


async def main(chamber: Chamber, layers: float, seconds: float) -> None:
    """Grow ``layers`` layers; stop after ``seconds`` in any case."""
    async with AsyncRHEEDStreamer() as streamer:
        data_id = await streamer.initialize(
            chamber.fps, 0.0, round(CHUNK_S * chamber.fps), f"{layers:g} layers"
        )
        marking = asyncio.create_task(mark_closing(streamer, data_id, chamber))
        await asyncio.gather(
            film(streamer, data_id, chamber, seconds), control(streamer, data_id, chamber, layers)
        )
        if chamber.closed.is_set():
            await marking
        else:
            marking.cancel()
    print(f"data_id: {data_id}")
    if chamber.closed.is_set():
        print(f"closed after {chamber.layers:.2f} layers ({layers:g} were requested)")
    else:
        print(
            f"the shutter was never closed: the film has {chamber.layers:.2f} layers, and its rate is undetermined"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=0.8)
    parser.add_argument("--stops-at", type=float, help="time in s at which the growth ends by itself")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    args = parser.parse_args()
    growth = GrowthSpec(args.height, args.width, args.fps, rate_ml_s=args.rate, growth_stop_s=args.stops_at)
    asyncio.run(main(SimulatedChamber(growth), args.layers, args.seconds))
