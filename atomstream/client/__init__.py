"""Reading what a server has: :class:`Client` for scripts and notebooks, :class:`AsyncClient` for asyncio."""

from __future__ import annotations

from atomstream.client.async_client import AsyncClient
from atomstream.client.async_stream_data import AsyncFrames, AsyncStreamData
from atomstream.client.blocking_client import Client
from atomstream.client.comparison import compare
from atomstream.client.dataset import open_stream
from atomstream.client.hosted_calls import ProjectData, SampleData
from atomstream.client.signal import Signal
from atomstream.client.stream_data import LazyFrames, StreamData
from atomstream.client.stream_entry import StreamEntry

__all__ = [
    "AsyncClient",
    "AsyncFrames",
    "AsyncStreamData",
    "Client",
    "LazyFrames",
    "ProjectData",
    "SampleData",
    "Signal",
    "StreamData",
    "StreamEntry",
    "compare",
    "open_stream",
]
