"""The front doors: :class:`RHEEDStreamer` for scripts and threads, :class:`AsyncRHEEDStreamer` for asyncio."""

from __future__ import annotations

from atomstream.results import Measured, StreamEvent
from atomstream.streaming.async_streamer import AsyncRHEEDStreamer
from atomstream.streaming.blocking_streamer import RHEEDStreamer
from atomstream.streaming.result_batch import ResultBatch

__all__ = ["AsyncRHEEDStreamer", "Measured", "RHEEDStreamer", "ResultBatch", "StreamEvent"]
