"""The requests of the protocol, made with aiohttp alone and without the client of atomstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import numpy.typing as npt

from atomstream.records import Chunk, Timestamp
from atomstream.shard import ShardEncoder
from tests.live_server import LiveServer

START_MS = 1_735_689_600_000
FRAMES_SEED = 7


def make_frames(
    n: int, height: int = 8, width: int = 12, *, seed: int = FRAMES_SEED
) -> npt.NDArray[np.uint8]:
    """Random frames (n, height, width); each seed gives other ones."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width), dtype=np.uint8)


def shard_bytes(frames: npt.NDArray[Any], level: int = 1) -> bytes:
    """``frames`` encoded as the body of a PUT."""
    chunk = Chunk("", 0, frames, Timestamp(0.0))
    return b"".join(ShardEncoder(level).encode(chunk).pieces)


def upload_form(data_id: str, dims: tuple[int, ...], chunk_size: int, **changes: str) -> dict[str, str]:
    """The body of a request for an upload URL; all values are strings."""
    return {
        "data_id": data_id,
        "data_stream": "rheed",
        "is_stream": "1",
        "is_rotating": "0",
        "raw_frame_rate": "120.0",
        "avg_frame_rate": "120.0",
        "chunk_size": str(chunk_size),
        "dims": ",".join(map(str, dims)),
        "start_unix_ms_utc": str(START_MS),
        "end_unix_ms_utc": str(START_MS + 1000),
        **changes,
    }


@dataclass(frozen=True)
class Address:
    """A server of which only URL and key are known."""

    url: str
    api_key: str

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries the key."""
        return {"X-API-KEY": self.api_key}


class WireClient:
    """An HTTP session with a server's key; most methods return (status, JSON)."""

    def __init__(self, server: LiveServer | Address, **session: Any) -> None:
        self.server = server
        self._session_args = {"headers": server.headers, **session}

    async def __aenter__(self) -> WireClient:
        self.session = aiohttp.ClientSession(**self._session_args)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Send a request, with a JSON body unless ``body`` is None; redirects are not followed."""
        if body is not None:
            more["json"] = body
        async with self.session.request(
            method, self.server.url + path, allow_redirects=False, **more
        ) as reply:
            return reply.status, await reply.json()

    async def create(self, name: str = "Growth 001", **fields: Any) -> str:
        """Create a stream; returns its data_id."""
        form = {
            "data_item_name": name,
            "rotational_period": None,
            "rotations_per_min": 0.0,
            "fps_capture_rate": 120.0,
        }
        status, data_id = await self.ask("POST", "/rheed/stream/", {**form, **fields})
        assert status == 200, data_id
        return str(data_id)

    async def ask_url(
        self, data_id: str, index: Any, dims: tuple[int, ...], chunk_size: int = 4, **changes: str
    ) -> tuple[int, Any]:
        """Request an upload URL; returns the reply."""
        query = {
            "original_filename": f"frames.zarr/frames/c/{index}/0/0",
            "num_parts": "1",
            "staging_type": "stream",
        }
        form = upload_form(data_id, dims, chunk_size, **changes)
        return await self.ask("POST", "/data_entries/raw_data/staged/upload_urls/", form, params=query)

    async def url(
        self, data_id: str, index: int, dims: tuple[int, ...], chunk_size: int = 4, **more: str
    ) -> str:
        """Request an upload URL, which must succeed; returns it."""
        status, reply = await self.ask_url(data_id, index, dims, chunk_size, **more)
        assert status == 200, reply
        return str(reply[0]["url"])

    async def put(self, url: str, body: bytes, **more: Any) -> tuple[int, Any, Any]:
        """PUT ``body`` without an API key; returns (status, JSON, headers)."""
        more.setdefault("headers", {"Content-Length": str(len(body))})
        async with aiohttp.ClientSession() as bare, bare.put(url, data=pieces(body), **more) as reply:
            return reply.status, await reply.json(), reply.headers

    async def send(
        self,
        data_id: str,
        index: int,
        frames: npt.NDArray[Any],
        chunk_size: int = 4,
        level: int = 1,
        **more: str,
    ) -> tuple[int, Any]:
        """Request an upload URL and PUT ``frames`` to it."""
        url = await self.url(data_id, index, frames.shape, chunk_size, dtype=str(frames.dtype), **more)
        status, reply, _ = await self.put(url, shard_bytes(frames, level))
        return status, reply

    async def end(self, data_id: str, **headers: str) -> tuple[int, Any]:
        """End the stream."""
        return await self.ask("POST", f"/rheed/stream/{data_id}/end", headers=headers)

    async def entry(self, data_id: str) -> dict[str, Any]:
        """The stream's entry in the catalogue."""
        status, found = await self.ask("GET", "/data_entries/", params={"data_ids": data_id})
        assert status == 200, found
        (only,) = found
        return dict(only)


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """``body`` in pieces of 64 KiB, as a streamed request body."""
    for start in range(0, len(body), 1 << 16):
        yield body[start : start + (1 << 16)]


async def raw_request(method: str, url: str, headers: dict[str, str], body: bytes) -> int:
    """Send these bytes, valid HTTP or not; returns the reply's status, or 0 if the connection was closed."""
    async with raw_connection(url) as (reader, writer):
        writer.write(request_head(method, url, headers) + body)
        line = await reader.readline()
        return int(line.split()[1]) if line else 0


def request_head(method: str, url: str, headers: dict[str, str]) -> bytes:
    """The bytes of a request's head."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare TCP connection to the server of ``url``."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
