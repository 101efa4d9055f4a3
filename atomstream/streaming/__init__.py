"""The front doors: :class:`RHEEDStreamer` for scripts and threads, :class:`AsyncRHEEDStreamer` for asyncio."""

from __future__ import annotations

from atomstream.streaming.batch import Measured, ResultBatch, StreamEvent
from atomstream.streaming.blocking import RHEEDStreamer
from atomstream.streaming.streamer import AsyncRHEEDStreamer

__all__ = ["AsyncRHEEDStreamer", "Measured", "RHEEDStreamer", "ResultBatch", "StreamEvent"]
