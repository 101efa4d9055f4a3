"""How soon a result is with the client: after a chunk's PUT was answered, and after the exposure of its frames.

Run: ``python -m benchmarks.live_latency [--chunk-s 2.0] [--seconds 30] [--streams 1]``. A server in a process of its
own, a client in this one, 480x640 frames of the simulator at 120 fps in real time. A chunk's result is the batch that
reaches its last frame. "From the 200" is measured from the moment the server stored the chunk, which is before its
200 leaves; "from exposure" from the time at which the chunk's last and its first frame were handed over.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from atomstream import AsyncRHEEDStreamer
from atomstream.cli.embedded import embedded_server
from atomstream.sources import GrowthSpec, Simulator

FPS = 120.0
WARM_UP_S = 6.0
LOOPED = 240
"""Frames drawn beforehand: to draw them as they go would take the computer's time."""


@dataclass
class Times:
    """When each frame was handed over and when results came, in s of one clock; latencies in ms."""

    chunk: int
    exposed: list[float] = field(default_factory=list)
    from_stored: list[float] = field(default_factory=list)
    from_last: list[float] = field(default_factory=list)
    from_first: list[float] = field(default_factory=list)

    def arrived(self, end: int, stored_unix_ms: float | None) -> None:
        """A result came that reaches frame ``end`` (exclusive)."""
        now = time.time()
        if end % self.chunk or stored_unix_ms is None:
            return
        self.from_stored.append(1000.0 * now - stored_unix_ms)
        self.from_last.append(1000.0 * (now - self.exposed[end - 1]))
        self.from_first.append(1000.0 * (now - self.exposed[end - self.chunk]))


async def film(
    streamer: AsyncRHEEDStreamer, data_id: str, frames: np.ndarray, seconds: float, times: Times
) -> None:
    """Hand frame after frame over, each at its time."""
    began = time.perf_counter()
    for number in range(round(seconds * FPS)):
        await asyncio.sleep(max(0.0, began + number / FPS - time.perf_counter()))
        times.exposed.append(time.time())
        await streamer.push_frame(data_id, frames[number % LOOPED], frame_id=number)
    await streamer.finalize(data_id)


async def follow(streamer: AsyncRHEEDStreamer, data_id: str, times: Times) -> None:
    """Note when each result comes."""
    async for batch in streamer.results(data_id):
        times.arrived(batch.start + batch.count, batch.stored_unix_ms)


async def one_stream(streamer: AsyncRHEEDStreamer, frames: np.ndarray, seconds: float, chunk: int) -> Times:
    """One stream from its creation to the end of its analysis."""
    times = Times(chunk)
    data_id = await streamer.initialize(FPS, 0.0, chunk, "latency")
    await asyncio.gather(film(streamer, data_id, frames, seconds, times), follow(streamer, data_id, times))
    return times


async def measure(url: str, key: str, spool: Path, options: argparse.Namespace) -> list[Times]:
    """All streams at once."""
    frames = next(Simulator(GrowthSpec(fps=FPS)).chunks(LOOPED, LOOPED))
    chunk = max(1, round(options.chunk_s * FPS))
    async with AsyncRHEEDStreamer(key, url, spool_dir=spool) as streamer:
        runs = (one_stream(streamer, frames, options.seconds, chunk) for _ in range(options.streams))
        return list(await asyncio.gather(*runs))


def told(name: str, values: list[float]) -> str:
    """One line of the table."""
    ms = np.array(values)
    return (
        f"{name:<38} {np.median(ms):8.0f} {np.percentile(ms, 95):8.0f} {ms.max():8.0f}   ({len(ms)} results)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunk-s", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder) / "server") as server:
        runs = asyncio.run(measure(server.url, server.api_key, Path(folder) / "spool", options))
    print(f"{options.streams} stream(s), 480x640 at {FPS:g} fps, chunks of {options.chunk_s:g} s, ms")
    print(f"{'':<38} {'median':>8} {'p95':>8} {'max':>8}")
    skipped = round(WARM_UP_S / options.chunk_s)
    for name, key in (
        ("result after the chunk was stored", "from_stored"),
        ("result after its last frame's exposure", "from_last"),
        ("result after its first frame's", "from_first"),
    ):
        print(told(name, [value for run in runs for value in getattr(run, key)[skipped:]]))
    print(f"without the first {WARM_UP_S:g} s, in which the worker starts and the pattern is found")


if __name__ == "__main__":
    main()
