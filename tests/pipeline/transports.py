"""A fake transport for tests of the pipeline: no network; the test decides every reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from atomstream.config import ClientSettings
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState, memory_needed
from atomstream.pipeline.upload import Upload
from atomstream.records import FrameMeta, Frames, Receipt, StreamSpec, Timestamp
from atomstream.shard import decode_shard


class FakeTransport:
    """Stores the uploads. ``verdict(upload)`` may raise an error; ``hold()`` delays all deliveries."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, int], Frames] = {}
        self.order: list[tuple[str, int]] = []
        self.attempts: list[tuple[str, int]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.verdict: Callable[[Upload], None] = lambda upload: None
        self.hang: set[str] = set()
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        """Delay all deliveries from now on."""
        self._open.clear()

    def release(self) -> None:
        """End the delay."""
        self._open.set()

    async def deliver(self, upload: Upload) -> Receipt:
        """Receive one upload like a server."""
        key = upload.spec.data_id, upload.index
        self.attempts.append(key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self._open.wait()
            if upload.spec.data_id in self.hang:
                await asyncio.Event().wait()
            self.verdict(upload)
            body = b"".join([bytes(piece) async for piece in upload.open()])
            self.stored[key] = decode_shard(body, upload.info.dims, upload.info.dtype)
            self.order.append(key)
        finally:
            self.at_once -= 1
        return Receipt(*key, len(body))


def settings(**changes: object) -> ClientSettings:
    """Settings with little memory and two encoder threads."""
    base: dict[str, object] = {
        "api_key": "k",
        "endpoint": "http://127.0.0.1:1",
        "buffer_bytes": 1 << 24,
        "encoder_threads": 2,
    }
    return ClientSettings(**{**base, **changes})  # type: ignore[arg-type]  # fields of PushRequest by name


def spec(name: str = "s", chunk_size: int = 8, announced: bool = True) -> StreamSpec:
    """A stationary stream at 120 fps."""
    return StreamSpec(name, 120.0, 0.0, chunk_size, name, announced)


def frames(seed: int = 0, n: int = 4, shape: tuple[int, int] = (6, 5)) -> Frames:
    """Random frames."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


async def drained(stream: StreamState) -> None:
    """Wait until no chunk of the stream is pending."""
    await stream.ledger.changed.wait_for(lambda: stream.ledger.pending == 0)


STAMP = Timestamp(0.0)
META = FrameMeta()


MakePipeline = Callable[..., Pipeline]
ONE = memory_needed(4, 30)
"""Bytes that are reserved for a chunk of ``frames()``."""


def chunk_request(index: int | None, seed: int | None = None, **rest: object) -> PushRequest:
    """A push of the chunk ``index``, with frames of ``seed``."""
    return PushRequest(index, frames(index or 0 if seed is None else seed), STAMP, META, **rest)  # type: ignore[arg-type]


async def push_all(pipeline: Pipeline, stream: StreamState, count: int) -> None:
    """Push that many chunks."""
    for k in range(count):
        await pipeline.push(stream, chunk_request(k))
