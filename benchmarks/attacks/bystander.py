"""The stream that runs during an attack, in a separate process: so the load of the attacking process does not slow it
down.

The process reads a line from stdin for each stream. It answers ``ready`` when the first chunk is stored, sends a chunk
every quarter of a second until the next line, and answers with a :class:`Running` as JSON. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import Any, Final

import aiohttp
import msgspec
import numpy as np

from benchmarks.processes import ROOT, environment
from tests.wire_client import START_MS, Address, WireClient, make_frames, shard_bytes

FRAMES: Final = make_frames(6, 48, 64)
"""A chunk of the stream; chunk K has these values, rolled by K."""
PERIOD_S: Final = 0.25
FPS: Final = 24.0


class Running(msgspec.Struct):
    """The effect on a stream: seconds from the beginning of each chunk's upload to its answer, and refused uploads."""

    data_id: str
    delays_s: list[float] = []
    refused: int = 0
    stored: int = 0


class Bystander:
    """The process, as its parent sees it. Its methods block."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process

    def begin(self) -> None:
        """Begin a stream; returns when its first chunk is stored."""
        if self._ask() != "ready":
            raise RuntimeError("the running stream could not begin")

    def end(self) -> Running:
        """End the stream, and return the effect of the attack on it."""
        return msgspec.json.decode(self._ask(), type=Running)

    def _ask(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def bystander(url: str, api_key: str) -> Iterator[Bystander]:
    """The process for a server, for as long as the block lasts."""
    command = [sys.executable, "-m", "benchmarks.attacks.bystander", url]
    env = {**environment(), "ATTACKED_KEY": api_key}
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT, env=env) as process:
        try:
            yield Bystander(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


async def film(client: WireClient, puts: aiohttp.ClientSession, running: Running) -> None:
    """Send a chunk every quarter of a second; one that is refused again until it is stored."""
    index = 1
    while True:
        began = time.monotonic()
        while not await push(client, puts, running.data_id, index):
            running.refused += 1
            await asyncio.sleep(0.1)
        running.delays_s.append(time.monotonic() - began)
        running.stored = index
        index += 1
        await asyncio.sleep(max(0.0, PERIOD_S - (time.monotonic() - began)))


async def push(client: WireClient, puts: aiohttp.ClientSession, data_id: str, index: int) -> bool:
    """Send a chunk, over connections that stay open, as a streamer does; False if it was not stored."""
    begin = START_MS + 1000.0 * index * len(FRAMES) / FPS
    end = begin + 1000.0 * len(FRAMES) / FPS
    times: dict[str, Any] = {"start_unix_ms_utc": f"{begin:.0f}", "end_unix_ms_utc": f"{end:.0f}"}
    try:
        url = await client.url(data_id, index, FRAMES.shape, len(FRAMES), **times)
        async with puts.put(url, data=shard_bytes(np.roll(FRAMES, index))) as reply:
            return reply.status == 200
    except (aiohttp.ClientError, OSError, AssertionError, TimeoutError):
        return False


async def serve_lines(url: str, api_key: str) -> None:
    """The process: one stream after the other."""
    limit = aiohttp.ClientTimeout(total=60)
    while await asyncio.to_thread(sys.stdin.readline):
        async with (
            WireClient(Address(url, api_key), timeout=limit) as client,
            aiohttp.ClientSession(timeout=limit) as puts,
        ):
            running = Running(await client.create("camera", fps_capture_rate=FPS))
            await push(client, puts, running.data_id, 0)
            print("ready", flush=True)
            task = asyncio.create_task(film(client, puts, running))
            await asyncio.to_thread(sys.stdin.readline)
            await asyncio.sleep(2 * PERIOD_S)
            task.cancel()
            await asyncio.wait([task])
            print(msgspec.json.encode(running).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(serve_lines(sys.argv[1], os.environ["ATTACKED_KEY"]))
