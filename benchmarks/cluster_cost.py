"""Processor time of a stream in a cluster, part by part, and on one server: ``python -m benchmarks.cluster_cost``.

A cluster of one server and one analysis process runs on this machine, then a single server, each with the same
streams: ``COUNT x HEIGHT x WIDTH @ FPS``. All of them are followed by their feeds. The time is that of each process and
its children from the first chunk to the last result, without what it needs while nothing is streamed, in processor
cores for each stream. ``behind`` is the time from the end of the clients to the last result.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from atomstream.cluster.nodes import ServerNode
from benchmarks.cluster_streams import (
    Target,
    followed_streams,
    growth_chunk,
    parser_of_cases,
    process_stat,
    processes,
    temporary_folder,
)
from tests.cluster.kill_rig import running_cluster

TICKS: Final = os.sysconf("SC_CLK_TCK")
CHUNK_S: Final = 2.0
IDLE_S: Final = 5.0
IDLE_CORES: Final = 0.1
"""With more than this, processes are still starting: a worker imports scipy."""
CASES: Final = ((2, 480, 640, 120.0), (4, 120, 160, 30.0), (16, 120, 160, 30.0), (64, 120, 160, 30.0))
KEY: Final = "atst_" + "a key of this benchmark " * 2


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and all its descendants, those that have ended included."""
    return sum(sum(map(int, process_stat(one)[11:15])) / TICKS for one in processes(pid))


def cpu_of(target: Target) -> dict[str, float]:
    """Processor seconds of each part until now."""
    return {name: cpu_s(part.pid) for name, part in target.parts.items()}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Target]:
    """One server and one analysis process, and three services."""
    async with running_cluster(folder, servers=1, analysts=1) as made:
        parts = dict(zip(("server", "analysis"), [*made.servers, *made.analysts], strict=True))
        services = {"S3": made.s3, "NATS": made.nats, "PostgreSQL": made.postgres}
        yield Target(made.url, made.api_key, {**parts, **services})


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[Target]:
    """One server with its own data folder."""
    server = ServerNode("server", folder, ["--limit", "analysis_workers=1"], {"ATOMSTREAM_API_KEY": KEY})
    await asyncio.to_thread(server.start)
    try:
        yield Target(server.url, KEY, {"server": server})
    finally:
        await asyncio.to_thread(server.stop)


async def idle_cores(target: Target) -> dict[str, float]:
    """Cores of each part while nothing is streamed, once all processes have started."""
    while True:
        before = cpu_of(target)
        await asyncio.sleep(IDLE_S)
        idle = {name: (at - before[name]) / IDLE_S for name, at in cpu_of(target).items()}
        if sum(idle.values()) < IDLE_CORES:
            return idle


async def run(
    target: Target, spool: Path, count: int, chunk: npt.NDArray[np.uint8], fps: float, n_chunks: int
) -> tuple[dict[str, float], float]:
    """Cores of each part for each stream, and how far the results were behind at the end in s."""
    chunk_s = len(chunk) / fps
    idle = await idle_cores(target)
    async with followed_streams(target, spool, count, chunk, fps) as senders:
        before, begun = cpu_of(target), time.monotonic()
        for index in range(n_chunks):
            for number, data_id in enumerate(senders.data_ids):
                # spread over the time of a chunk, as from many instruments
                at = begun + (index + number / count) * chunk_s
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                await senders.streamer.push(data_id, index, chunk)
        await asyncio.gather(*(senders.streamer.finalize(data_id) for data_id in senders.data_ids))
        ended = time.monotonic()
        await asyncio.gather(*senders.feeds)
        over = time.monotonic()
    seconds = count * n_chunks * chunk_s
    used = {name: at - before[name] - idle[name] * (over - begun) for name, at in cpu_of(target).items()}
    return {name: max(0.0, one) / seconds for name, one in used.items()}, over - ended


async def measure(cases: Sequence[tuple[int, int, int, float]], n_chunks: int, chunk_s: float) -> None:
    """Run all cases and print a line for each."""
    names = ("server", "analysis", "S3", "NATS", "PostgreSQL")
    heads = ("streams", *names, "cluster", "alone", "beyond", "behind s", "alone behind s")
    print("  ".join(head.rjust(12) for head in heads), flush=True)
    with temporary_folder("cost") as folder:
        for number, (count, height, width, fps) in enumerate(cases):
            chunk = growth_chunk(height, width, fps, chunk_s)
            place = folder / str(number)
            async with cluster(place / "cluster") as target:
                shared, behind = await run(target, place / "spool", count, chunk, fps, n_chunks)
            async with alone(place / "alone") as target:
                own, own_behind = await run(target, place / "spool-alone", count, chunk, fps, n_chunks)
            total, single = sum(shared.values()), sum(own.values())
            cells = [f"{count}x{height}x{width}@{fps:g}", *(f"{shared[part]:.3f}" for part in names)]
            cells += [f"{one:.3f}" for one in (total, single, total - single)]
            cells += [f"{behind:.1f}", f"{own_behind:.1f}"]
            print("  ".join(cell.rjust(12) for cell in cells), flush=True)


def main() -> int:
    """Measure all cases, or those that the command line names."""
    parser = parser_of_cases(__doc__, len(CASES))
    parser.add_argument("--chunks", type=int, default=12, help="chunks of each stream")
    parser.add_argument("--chunk-s", type=float, default=CHUNK_S, help="seconds in a chunk")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the cluster is ended in that case too
    asyncio.run(measure([CASES[number] for number in asked.cases], asked.chunks, asked.chunk_s))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
