"""A simulated growth that the real client streams to a server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from atomstream.records import Frames
from atomstream.sources import GrowthSpec, Simulator
from atomstream.streaming import AsyncRHEEDStreamer
from tests.live_server import LiveServer
from tests.wire_client import WireClient

FPS = 20.0
CHUNK = 40
SPEC: dict[str, Any] = {"fps": FPS, "height": 240, "width": 320, "rate_ml_s": 1.6, "tau_ml": 120.0}


@cache
def chunk_of(spec: GrowthSpec, index: int) -> Frames:
    """The frames (CHUNK, H, W) of one chunk; most tests film the same growth."""
    frames = Simulator(spec).frames(index * CHUNK, CHUNK)
    frames.flags.writeable = False
    return frames


class Growth:
    """One stream: ``await growth.push(seconds)`` sends that many more seconds, as fast as possible."""

    def __init__(self, streamer: AsyncRHEEDStreamer, data_id: str, spec: GrowthSpec, length_s: float) -> None:
        self.streamer = streamer
        self.data_id = data_id
        self.spec = spec
        self.chunks = 0
        # The timestamps end at the current time when ``length_s`` were pushed.
        self.start_ms = 1000.0 * (time.time() - length_s)

    @classmethod
    @asynccontextmanager
    async def begin(
        cls, server: LiveServer, name: str = "Growth 001", length_s: float = 20.0, **more: Any
    ) -> AsyncIterator[Growth]:
        """Create a stream. ``more`` are fields of GrowthSpec, or arguments of ``initialize``."""
        fields = {key: more.pop(key) for key in tuple(more) if key in GrowthSpec.__dataclass_fields__}
        spec = GrowthSpec(**{**SPEC, **fields})
        async with AsyncRHEEDStreamer(server.api_key, server.url, spool_dir=None) as streamer:
            with_short = dict(fps=spec.fps, rotations_per_min=spec.rpm, chunk_size=CHUNK, stream_name=name)
            data_id = await streamer.initialize(**with_short, **more)
            yield cls(streamer, data_id, spec, length_s)

    async def push(self, seconds: float) -> None:
        """Send the next frames and wait until the server has stored them."""
        for _ in range(round(seconds * FPS / CHUNK)):
            frames = chunk_of(self.spec, self.chunks)
            stamp = self.start_ms + 1000.0 * self.chunks * CHUNK / FPS
            await self.streamer.push(self.data_id, self.chunks, frames, stamp)
            self.chunks += 1
        await self.streamer.flush(self.data_id)

    async def show(self, page: Any, seconds: float) -> None:
        """Send that many more seconds, open the page of the stream, and wait until it shows a rate."""
        await self.push(seconds)
        await page.goto(self.path)
        await page.wait_for_function("() => /\\d/.test(document.getElementById('rate-value').textContent)")

    @property
    def path(self) -> str:
        """Path of its page."""
        return f"/streams/{self.data_id}"


async def regions_of(server: LiveServer, growth: Growth) -> list[dict[str, Any]]:
    """The user's regions of the stream that the server stores."""
    async with WireClient(server) as client:
        return list((await client.ask("GET", f"/rheed/stream/{growth.data_id}/regions"))[1]["regions"])
