"""Fixtures of the streamers' tests: a small server, a streamer to it, and a path at which no folder can be made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atomstream import AsyncRHEEDStreamer
from atomstream.testing import MemoryService
from tests.live_server import LiveServer, Serve
from tests.streaming.proxy import Proxy, proxied
from tests.streaming.scripted_faults import KEY
from tests.streaming.stream_helpers import hurry, make_async


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the delays between attempts from seconds to milliseconds."""
    hurry(monkeypatch)


@pytest.fixture
async def service() -> AsyncIterator[MemoryService]:
    """A server with the hosted service's protocol; a test can script its replies."""
    async with MemoryService() as made:
        yield made


@pytest.fixture
async def streamer(service: MemoryService) -> AsyncIterator[AsyncRHEEDStreamer]:
    """An async streamer to ``service``."""
    async with make_async(service.url, KEY) as made:
        yield made


@pytest.fixture
def no_disk(tmp_path: Path) -> Path:
    """A path at which no folder can be made, so that streams are kept in memory only."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "spool"


@pytest.fixture
async def server(serve: Serve) -> LiveServer:
    """A real server."""
    return await serve()


@pytest.fixture
async def line(server: LiveServer) -> AsyncIterator[Proxy]:
    """A proxy in front of ``server`` that refuses connections at first."""
    async with proxied(server.url) as proxy:
        await proxy.refuse()
        yield proxy
