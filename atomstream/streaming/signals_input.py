"""Signals from the caller to the pipeline: which index a chunk has, and what is unusual about its times."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from atomstream.checks import integer_in_range
from atomstream.errors import ChunkConflictError, ConfigError
from atomstream.pipeline.admission import PushRequest
from atomstream.pipeline.pipeline import Pipeline
from atomstream.pipeline.stream import StreamState
from atomstream.protocol import MAX_CHUNK_INDEX
from atomstream.records import FrameMeta, Frames, Timestamp
from atomstream.streaming import validation
from atomstream.streaming.frame_input import FrameInput
from atomstream.streaming.signal_chunk import ChannelPoints, check_count, rows_of_text, text_of
from atomstream.system.log_privacy import get_logger

log = get_logger("atomstream.signals")

REMEMBERED: Final = 20_000
"""Number of last chunks of a stream whose index and content are compared here; the server compares all of them."""

THREAD_POINTS: Final = 2000
"""Fewest points of a chunk whose JSON text is written in a thread, because this takes milliseconds."""

AHEAD_S: Final = 60.0
"""A time later than the server's clock by more than this, in s, is logged once per stream."""


@dataclass(slots=True)
class _Known:
    """What was pushed into one stream: the pipeline's index by channel and chunk index, units and last times."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    indices: OrderedDict[tuple[str, int], int] = field(default_factory=OrderedDict)
    units: dict[str, str] = field(default_factory=dict)
    newest_s: dict[str, float] = field(default_factory=dict)
    logged: set[str] = field(default_factory=set)


class SignalsInput:
    """Pushes chunks of points. Used in the session's loop.

    ``timestamp(duration_s, explicit_ms)`` gives the present time of the reference clock, as for frames.
    """

    def __init__(
        self, pipeline: Pipeline, frames: FrameInput, timestamp: Callable[[float, float | None], Timestamp]
    ) -> None:
        self._pipeline = pipeline
        self._frames = frames
        self._timestamp = timestamp
        self._streams: dict[str, _Known] = {}

    def now_s(self) -> float:
        """The present time in s since 1970, by the server's clock if it was measured."""
        return self._timestamp(0.0, None).start_ms / 1000.0

    async def push(
        self, data_id: str, chunk_index: int | None, channels: Mapping[str, ChannelPoints], *, several: bool
    ) -> None:
        """Push one chunk; ``chunk_index`` None is the stream's next index. Waits as a push of frames does."""
        stream = self._frames.open_stream(data_id)
        if stream.spec.kind != "signals":
            raise ConfigError(f"Stream {data_id} contains frames; initialize a separate stream for signals.")
        check_count(channels)
        index = stream.ledger.next_index if chunk_index is None else chunk_index
        integer_in_range("chunk_index", index, 0, MAX_CHUNK_INDEX)
        known = self._streams.setdefault(data_id, _Known())
        self._check_units(known, channels)
        async with known.lock:
            if chunk_index is None:
                index = stream.ledger.next_index
            place = self._place(stream, known, index, channels)
            self._note_times(stream, known, channels)
            rows = await self._rows(data_id, index, channels, several)
            start_ms = 1000.0 * min(float(points.times.min()) for points in channels.values())
            request = PushRequest(place, rows, Timestamp(start_ms), FrameMeta(), copy=False)
            accepted = await self._pipeline.push(stream, request)
            if accepted is not None:
                self._note_accepted(known, index, channels, accepted)

    async def _rows(
        self, data_id: str, index: int, channels: Mapping[str, ChannelPoints], several: bool
    ) -> Frames:
        if sum(len(points.times) for points in channels.values()) < THREAD_POINTS:
            return rows_of_text(text_of(data_id, index, channels, several=several))
        return await asyncio.to_thread(
            lambda: rows_of_text(text_of(data_id, index, channels, several=several))
        )

    def _check_units(self, known: _Known, channels: Mapping[str, ChannelPoints]) -> None:
        for name, points in channels.items():
            before = known.units.get(name)
            if before is not None and points.units is not None and points.units != before:
                raise ConfigError(
                    f"Channel {name!r} is in {before!r}, and these points are in {points.units!r}. Convert them, or "
                    "give the channel another name. Nothing was sent."
                )

    def _place(
        self, stream: StreamState, known: _Known, index: int, channels: Mapping[str, ChannelPoints]
    ) -> int | None:
        """The pipeline's index of a chunk that was pushed before, None for a new one."""
        found = {known.indices.get((name, index)) for name in channels}
        if found == {None}:
            return None
        if len(found) == 1:
            return found.pop()
        raise ChunkConflictError(
            f"Chunk {index} of stream {stream.spec.data_id} was pushed before with other channels. The first ones "
            "stay; these were not accepted. Use the next index.",
            data_id=stream.spec.data_id,
            index=index,
        )

    def _note_accepted(
        self, known: _Known, index: int, channels: Mapping[str, ChannelPoints], accepted: int
    ) -> None:
        for name, points in channels.items():
            known.indices[name, index] = accepted
            if points.units is not None:
                known.units[name] = points.units
        while len(known.indices) > REMEMBERED:
            known.indices.popitem(last=False)

    def _note_times(self, stream: StreamState, known: _Known, channels: Mapping[str, ChannelPoints]) -> None:
        data_id = stream.spec.data_id
        for name, points in channels.items():
            first, newest = float(points.times[0]), float(points.times.max())
            if not stream.date_checked:
                stream.date_checked = True
                validation.warn_if_too_early(1000.0 * first, data_id, stacklevel=3)
            before = known.newest_s.get(name, first)
            if (
                first < before or (points.times[1:] < points.times[:-1]).any()
            ) and "back" not in known.logged:
                known.logged.add("back")
                log.warning(
                    "Stream %s: the times of channel %r run backwards (to %.3f s since 1970). All points are kept, "
                    "sorted by their times. Is the clock of the instrument being set?", data_id, name, first,
                )  # fmt: skip
            ahead = newest - self.now_s()
            if ahead > AHEAD_S and "ahead" not in known.logged:
                known.logged.add("ahead")
                log.warning(
                    "Stream %s: channel %r has times %.0f s after the server's clock. They are sent as given, and will "
                    "not lie beside the frames of the same moment. Is the clock of the instrument right?",
                    data_id, name, ahead,
                )  # fmt: skip
            known.newest_s[name] = max(newest, before)
