"""The asynchronous streamer for signals of instruments.

It uses the streamer of frames for everything but the verbs that push points: one session, one pipeline, one spool.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import numpy as np

from atomstream.checks import integer_in_range
from atomstream.config import Durability, WhenUnreachable
from atomstream.errors import ConfigError
from atomstream.protocol import MAX_CHUNK_POINTS
from atomstream.records import ClockStatus, StreamReport
from atomstream.spool import SpoolStatus
from atomstream.streaming.async_streamer import AsyncRHEEDStreamer
from atomstream.streaming.signal_chunk import ChannelPoints, checked_points
from atomstream.streaming.signal_request import SignalsRequest
from atomstream.streaming.validation import iterate

DEFAULT_POINTS = 60
"""Points in a chunk of :meth:`AsyncTimeseriesStreamer.run` for single points: a minute at 1 Hz."""


class AsyncTimeseriesStreamer:
    """Stream signals of instruments (temperature, pressure, shutters) to a server from an asyncio application.

    On an atomstream server they lie beside the frames of the same physical sample, on one time axis. Accepted points
    have the promises of frames: they are kept on disk until the server has them.

    Args:
        api_key: key of the server. None: ``$ATOMSTREAM_API_KEY``.
        endpoint: URL of the server. None: ``$ATOMSTREAM_ENDPOINT``, else the hosted service.
        points_per_chunk: points of a channel that :meth:`run` sends together, 1 to 1 000 000.
        verbosity: log level on stderr, 0 to 3; None: as the application configured logging.
        spool_dir: folder in which chunks are kept until the server has them, as for ``RHEEDStreamer``.
        spool_max_bytes, spool_min_free_bytes, spool_retention_s: limits of the spool, as for ``RHEEDStreamer``.
        durability: ``"memory"``: ``push`` returns when the points are accepted; ``"disk"``: when they would survive a
            power failure, or the server has them.
        clock_sync: whether to measure the difference between the server's clock and this computer's clock. It is
            used for points that are pushed without a time.
        when_unreachable: what ``initialize`` does if the server can't be reached, as for ``RHEEDStreamer``.

    Raises:
        ConfigError: an argument is invalid, or there is no API key. TypeError: an argument has the wrong type.
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
        self._points_per_chunk = integer_in_range("points_per_chunk", points_per_chunk, 1, MAX_CHUNK_POINTS)
        self._streamer = AsyncRHEEDStreamer(
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

    @classmethod
    def _over(cls, streamer: AsyncRHEEDStreamer, points_per_chunk: int) -> Self:
        """A streamer of signals that uses the session of ``streamer``."""
        made = cls.__new__(cls)
        made._points_per_chunk, made._streamer = points_per_chunk, streamer
        return made

    async def initialize(
        self,
        stream_name: str | None = None,
        synth_source_id: str | int | None = None,
        physical_sample: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        *,
        marks: Iterable[str] | None = None,
    ) -> str:
        """Create a stream of signals on the server and return its ``data_id``.

        If the server can't be reached, the stream begins under a local id in the spool, as for ``RHEEDStreamer``.

        Args:
            stream_name: name of the stream. None: a name with the time, such as ``Signals @ 4:41PM``.
            synth_source_id: the hosted service's id of the growth system.
            physical_sample: name or UUID of the sample, as for ``RHEEDStreamer``. The signals lie beside the frames of
                this sample.
            project_id: UUID of a project; its tracked sample is set to ``physical_sample``.
            tags: names (created if they do not exist), or UUIDs of existing tags.
            marks: rules that set marks in the frames, such as ``'shutter>0.5 -> mark "shutter open"'`` (atomstream
                servers only).

        Raises:
            TypeError, ConfigError: an argument is invalid; nothing was created.
            NotFoundError, LinkError, ServiceError: as for ``RHEEDStreamer.initialize``.
        """
        return await self._initialize(
            SignalsRequest(
                self._points_per_chunk, stream_name, synth_source_id, physical_sample, project_id, tags, marks
            )
        )

    async def _initialize(self, request: SignalsRequest) -> str:
        session = await self._streamer._open_session()
        return await session.initialize_signals(request)

    async def resume(self, data_id: str) -> int:
        """Continue a stream that an earlier process left in the spool; returns an index that no chunk has yet."""
        return await self._streamer.resume(data_id)

    async def push(
        self,
        data_id: str,
        chunk_index: int | None,
        channel_name: str,
        timestamps: Any,
        values: Any,
        units: str | None = None,
    ) -> None:
        """Push points of one channel. Returns when they are accepted, before they are sent.

        Args:
            data_id: the stream.
            chunk_index: index of the chunk, from 0, counted for each channel. An index belongs to one content: equal
                points pushed again are ignored, other points are an error. None: the next free index.
            channel_name: name of the channel, 1 to 256 characters.
            timestamps: times in seconds since 1970 (UTC), N numbers in any order, or one. None: now, for one value.
            values: N numbers, or one; None and NaN mean no value, True and False are 1 and 0.
            units: unit of the values, such as ``"°C"``; a channel has one.

        Raises:
            TypeError: a time or value is not a number. ConfigError (a ValueError): a time is not in seconds since
                1970, the numbers of times and values differ, or the channel has another unit. Nothing was sent.
            ChunkConflictError: the index was pushed before with other points.
            BufferFullError, UnknownStreamError, StreamFinalizedError, StreamGoneError: as for ``RHEEDStreamer``.
        """
        points = self._points(channel_name, timestamps, values, units)
        await self._push(data_id, chunk_index, {channel_name: points}, several=False)

    async def push_multi(self, data_id: str, chunk_index: int | None, channels: Mapping[str, Any]) -> None:
        """Push points of several channels as one chunk, which is stored as a whole.

        Args:
            data_id: the stream.
            chunk_index: index of the chunk, as in :meth:`push`.
            channels: ``{name: {"timestamps": ..., "values": ..., "units": ...}}``, or ``{name: (timestamps, values)}``.

        Raises:
            The errors of :meth:`push`.
        """
        if not hasattr(channels, "items") or not channels:
            raise TypeError(f"channels must be a dict with at least one channel, not {str(channels)[:80]!r}.")
        await self._push(
            data_id,
            chunk_index,
            {name: self._channel(name, one) for name, one in channels.items()},
            several=True,
        )

    def _channel(self, name: str, given: Any) -> ChannelPoints:
        if isinstance(given, Mapping):
            keys = set(map(str, given))
            if not {"values"} <= keys <= {"timestamps", "values", "units"}:
                raise ConfigError(
                    f"Channel {name!r} has the keys {sorted(keys)}; allowed are timestamps, values, units."
                )
            return self._points(name, given.get("timestamps"), given["values"], given.get("units"))
        if isinstance(given, tuple | list) and len(given) in (2, 3):
            return self._points(name, *given)
        raise TypeError(
            f"Channel {name!r} must be (timestamps, values) or a dict of them, not {str(given)[:80]!r}."
        )

    def _points(self, name: str, timestamps: Any, values: Any, units: Any = None) -> ChannelPoints:
        if timestamps is None:
            if np.ndim(values) or np.size(values) != 1:
                raise ConfigError(
                    f"Channel {name!r}: without timestamps there is one value, which was measured now."
                )
            timestamps = self._streamer._current_session().signals.now_s()
        return checked_points(name, timestamps, values, units)

    async def _push(
        self, data_id: str, chunk_index: int | None, channels: Mapping[str, ChannelPoints], *, several: bool
    ) -> None:
        session = self._streamer._current_session()
        session.check_loop()
        await session.signals.push(data_id, chunk_index, channels, several=several)

    async def run(
        self,
        data_id: str,
        channel_name: str,
        data_iter: Iterable[Any] | AsyncIterable[Any],
        units: str | None = None,
    ) -> None:
        """Push everything that ``data_iter`` yields, starting at the stream's next index.

        Args:
            data_id: the stream.
            channel_name: name of the channel.
            data_iter: yields ``(timestamps, values)``. Parts with several points are sent as they come, single points
                are gathered to ``points_per_chunk``. A synchronous iterable runs in its own thread.
            units: unit of the values.

        Raises:
            The errors of :meth:`push`, and those of ``data_iter``. What was pushed before stays.
        """
        gathered = Gathered(self._points_per_chunk)
        async with aclosing(iterate(data_iter)) as items:
            async for item in items:
                for part in gathered.add(item):
                    await self.push(data_id, None, channel_name, *part, units)
        for part in gathered.rest():
            await self.push(data_id, None, channel_name, *part, units)

    async def flush(self, data_id: str, timeout_s: float | None = None) -> None:
        """Wait until each chunk pushed before is stored, or reported as lost (as ``RHEEDStreamer.flush``)."""
        await self._streamer.flush(data_id, timeout_s)

    async def finalize(self, data_id: str, drain_timeout_s: float | None = None) -> StreamReport:
        """Accept no more points, wait for the uploads, end the stream, and report (as ``RHEEDStreamer.finalize``)."""
        return await self._streamer.finalize(data_id, drain_timeout_s)

    async def clock_status(self) -> ClockStatus | None:
        """Return the measured difference between the server's clock and this computer's; None if not measured."""
        return await self._streamer.clock_status()

    async def spool_status(self) -> SpoolStatus:
        """Return what the spool holds, for all streams and processes that use its folder."""
        return await self._streamer.spool_status()

    async def server_id(self, data_id: str) -> str | None:
        """Return the id of a stream on the server; None if it began without the server and is not registered yet."""
        return await self._streamer.server_id(data_id)

    async def close(self, drain_timeout_s: float = 30.0) -> None:
        """Wait until all points are on disk or sent, then release all resources (as ``RHEEDStreamer.close``)."""
        await self._streamer.close(drain_timeout_s)

    async def __aenter__(self) -> Self:
        await self._streamer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Gathered:
    """Single points of an iterator, gathered to parts of ``most`` points; larger parts pass through."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._times: list[Any] = []
        self._values: list[Any] = []

    def add(self, item: Any) -> list[tuple[Any, Any]]:
        """Add an item ``(timestamps, values)``; return the parts to push now."""
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise TypeError(f"run() takes pairs (timestamps, values), not {str(item)[:80]!r}.")
        times, values = item
        if np.ndim(times) or np.ndim(values):
            return [*self.rest(), (times, values)]
        self._times.append(times)
        self._values.append(values)
        return self.rest() if len(self._times) >= self._most else []

    def rest(self) -> list[tuple[Any, Any]]:
        """The points that are gathered, as one part; none are gathered afterwards."""
        part, self._times, self._values = (self._times, self._values), [], []
        return [part] if part[0] else []
