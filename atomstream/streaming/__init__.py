"""The streaming clients: :class:`RHEEDStreamer` for scripts and threads, :class:`AsyncRHEEDStreamer` for asyncio.

Each name is imported at its first use, so a script that streams frames does not import the clients for signals.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
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

_HOMES: Final = {
    "AsyncRHEEDStreamer": ("atomstream.streaming.async_streamer", "AsyncRHEEDStreamer"),
    "AsyncTimeseriesStreamer": ("atomstream.streaming.timeseries_streamer", "AsyncTimeseriesStreamer"),
    "Measured": ("atomstream.results", "Measurement"),
    "Measurement": ("atomstream.results", "Measurement"),
    "RHEEDStreamer": ("atomstream.streaming.blocking_streamer", "RHEEDStreamer"),
    "ResultBatch": ("atomstream.streaming.result_batch", "ResultBatch"),
    "StreamEvent": ("atomstream.results", "Event"),
    "TimeseriesStreamer": ("atomstream.streaming.blocking_timeseries_streamer", "TimeseriesStreamer"),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    found = getattr(import_module(module), attribute)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
