"""The blocking streamer for signals of instruments: its verbs run those of the asynchronous one in a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from atomstream.checks import integer_in_range
from atomstream.config import Durability, WhenUnreachable
from atomstream.protocol import MAX_CHUNK_POINTS
from atomstream.records import ClockStatus, StreamReport
from atomstream.spool import SpoolStatus
from atomstream.streaming.blocking_streamer import RHEEDStreamer, documented_by
from atomstream.streaming.timeseries_streamer import DEFAULT_POINTS, AsyncTimeseriesStreamer, Gathered


class TimeseriesStreamer:
    """Stream signals of instruments to a server from a script, a notebook or several threads.

    It has the methods of :class:`AsyncTimeseriesStreamer`, as ordinary functions. Use ``with``, or call :meth:`close`
    at the end.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        points_per_chunk: int = DEFAULT_POINTS,
        verbosity: int | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        spool_min_free_bytes: int | None = None,
        spool_retention_s: float | None = None,
        *,
        durability: Durability = "memory",
        clock_sync: bool | None = None,
        when_unreachable: WhenUnreachable = "record",
    ) -> None:
        points = integer_in_range("points_per_chunk", points_per_chunk, 1, MAX_CHUNK_POINTS)
        self._blocking = RHEEDStreamer(
            *(
                api_key,
                endpoint,
                verbosity,
                spool_dir,
                spool_max_bytes,
                spool_min_free_bytes,
                spool_retention_s,
            ),
            durability=durability,
            clock_sync=clock_sync,
            when_unreachable=when_unreachable,
        )
        self._points_per_chunk = points
        self._streamer = AsyncTimeseriesStreamer._over(self._blocking._streamer, points)

    @documented_by(AsyncTimeseriesStreamer.initialize)
    def initialize(
        self,
        stream_name: str | None = None,
        synth_source_id: str | int | None = None,
        physical_sample: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        *,
        marks: Iterable[str] | None = None,
    ) -> str:
        """This call blocks until the server has created the stream."""
        return self._blocking._call(
            lambda: self._streamer.initialize(
                stream_name, synth_source_id, physical_sample, project_id, tags, marks=marks
            )
        )

    @documented_by(AsyncTimeseriesStreamer.resume)
    def resume(self, data_id: str) -> int:
        """This call blocks until the stream is open."""
        return self._blocking._call(lambda: self._streamer.resume(data_id))

    @documented_by(AsyncTimeseriesStreamer.push)
    def push(
        self,
        data_id: str,
        chunk_index: int | None,
        channel_name: str,
        timestamps: Any,
        values: Any,
        units: str | None = None,
    ) -> None:
        """This call blocks only if there is no room in memory."""
        self._blocking._call(
            lambda: self._streamer.push(data_id, chunk_index, channel_name, timestamps, values, units)
        )

    @documented_by(AsyncTimeseriesStreamer.push_multi)
    def push_multi(self, data_id: str, chunk_index: int | None, channels: Mapping[str, Any]) -> None:
        """This call blocks only if there is no room in memory."""
        self._blocking._call(lambda: self._streamer.push_multi(data_id, chunk_index, channels))

    @documented_by(AsyncTimeseriesStreamer.run)
    def run(
        self, data_id: str, channel_name: str, data_iter: Iterable[Any], units: str | None = None
    ) -> None:
        """The calling thread iterates, so only synchronous iterables work here."""
        if not isinstance(data_iter, Iterable):
            raise TypeError(f"run() takes an iterable of points, not {type(data_iter).__name__}.")
        gathered = Gathered(self._points_per_chunk)
        for item in data_iter:
            for times, values in gathered.add(item):
                self.push(data_id, None, channel_name, times, values, units)
        for times, values in gathered.rest():
            self.push(data_id, None, channel_name, times, values, units)

    @documented_by(AsyncTimeseriesStreamer.flush)
    def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """This call blocks until then."""
        self._blocking.flush(data_id, timeout_s)

    @documented_by(AsyncTimeseriesStreamer.finalize)
    def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """This call blocks until then."""
        session = self._blocking._session()
        report = self._blocking._call(lambda: session.finalize(data_id, drain_timeout_s))
        session.warn_about_losses(data_id, report, stacklevel=2)
        return report

    @documented_by(AsyncTimeseriesStreamer.clock_status)
    def clock_status(self) -> ClockStatus | None:
        """This call does not block."""
        return self._blocking.clock_status()

    @documented_by(AsyncTimeseriesStreamer.spool_status)
    def spool_status(self) -> SpoolStatus:
        """This call blocks until the folder is read."""
        return self._blocking.spool_status()

    @documented_by(AsyncTimeseriesStreamer.server_id)
    def server_id(self, data_id: str) -> str | None:
        """This call does not block."""
        return self._blocking.server_id(data_id)

    @documented_by(AsyncTimeseriesStreamer.close)
    def close(self, drain_timeout_s: float = 30.0) -> None:
        """This call blocks until then."""
        self._blocking.close(drain_timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


if TimeseriesStreamer.__doc__ and AsyncTimeseriesStreamer.__doc__:
    TimeseriesStreamer.__doc__ += (
        "\n    Args:\n" + AsyncTimeseriesStreamer.__doc__.partition("    Args:\n")[2]
    )
