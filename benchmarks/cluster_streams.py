"""Shared by the benchmarks of a cluster: streams whose feeds are followed, and the processes to measure."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgpack
import numpy as np
import numpy.typing as npt

from atomstream import AsyncRHEEDStreamer
from atomstream.cluster.engine import Engine
from atomstream.sources import GrowthSpec, Simulator


@dataclass(frozen=True, slots=True)
class Target:
    """Where streams are sent to, and the processes behind it, by the name of their column."""

    url: str
    api_key: str
    parts: dict[str, Engine]


@dataclass(frozen=True, slots=True)
class Senders:
    """Open streams of one client, and a task for each that follows its feed and returns the bytes of it."""

    streamer: AsyncRHEEDStreamer
    data_ids: list[str]
    feeds: list[asyncio.Task[int]]


@asynccontextmanager
async def followed_streams(
    target: Target, spool: Path, count: int, chunk: npt.NDArray[np.uint8], fps: float
) -> AsyncIterator[Senders]:
    """Open ``count`` streams whose chunks are as long as ``chunk``, and follow their feeds."""
    async with AsyncRHEEDStreamer(
        api_key=target.api_key, endpoint=target.url, spool_dir=spool, compression_level=1
    ) as streamer:
        data_ids = [
            await streamer.initialize(
                fps=fps, rotations_per_min=0.0, chunk_size=len(chunk), stream_name=f"stream {number}"
            )
            for number in range(count)
        ]
        yield Senders(
            streamer, data_ids, [asyncio.create_task(follow(target, data_id)) for data_id in data_ids]
        )


async def follow(target: Target, data_id: str) -> int:
    """Read the feed of a stream to its end; returns its bytes."""
    nbytes = 0
    url = f"{target.url}/rheed/stream/{data_id}/feed"
    async with (
        aiohttp.ClientSession(headers={"X-API-KEY": target.api_key}) as session,
        session.ws_connect(url, params={"after": "0"}, protocols=("atomstream.msgpack",)) as feed,
    ):
        async for message in feed:
            msgpack.unpackb(message.data)
            nbytes += len(message.data)
    return nbytes


def growth_chunk(height: int, width: int, fps: float, chunk_s: float) -> npt.NDArray[np.uint8]:
    """One chunk of a simulated growth, ``chunk_s`` seconds long: frames x height x width."""
    n_frames = round(chunk_s * fps)
    (chunk,) = Simulator(GrowthSpec(height, width, fps, seed=1, rate_ml_s=1.2)).chunks(n_frames, n_frames)
    return chunk


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """A temporary folder for clusters. PostgreSQL may run as another user, so all users may read it."""
    with tempfile.TemporaryDirectory(prefix=f"atomstream-{name}-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def parser_of_cases(description: str | None, n_cases: int) -> argparse.ArgumentParser:
    """A command line whose ``--cases`` are numbers of cases, by default all ``n_cases`` of them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", type=int, default=range(n_cases), help="numbers of the cases")
    return parser


def processes(pid: int) -> set[int]:
    """A process and all its descendants that run."""
    wanted, parents = {pid}, dict(_parents())
    while more := {child for child, parent in parents.items() if parent in wanted} - wanted:
        wanted |= more
    return wanted


def process_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; zeros for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", *["0"] * 20]


def _parents() -> Iterable[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdecimal() and (found := process_stat(int(name))):
            yield int(name), int(found[1])
