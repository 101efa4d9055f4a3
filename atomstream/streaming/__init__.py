"""The streaming clients: :class:`RHEEDStreamer` for scripts and threads, :class:`AsyncRHEEDStreamer` for asyncio."""

from __future__ import annotations

from atomstream.results import Event as StreamEvent
from atomstream.results import Measurement
from atomstream.results import Measurement as Measured
from atomstream.streaming.async_streamer import AsyncRHEEDStreamer
from atomstream.streaming.blocking_streamer import RHEEDStreamer
from atomstream.streaming.blocking_timeseries_streamer import TimeseriesStreamer
from atomstream.streaming.result_batch import ResultBatch
from atomstream.streaming.timeseries_streamer import AsyncTimeseriesStreamer

__all__ = [
    "AsyncRHEEDStreamer",
    "AsyncTimeseriesStreamer",
    "Measured",
    "Measurement",
    "RHEEDStreamer",
    "ResultBatch",
    "StreamEvent",
    "TimeseriesStreamer",
]
