"""Chunks of signals: what a request may contain, checked before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt

from atomstream.protocol import MAX_CHUNK_INDEX, MAX_NAME_CHARS, MAX_TIME_MS, MAX_UNIT_CHARS
from atomstream.server.http.responses import HttpError

F64 = npt.NDArray[np.float64]

MAX_CHANNELS: Final = 256
"""Most channels of one stream."""

ChannelName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARS)]
UnitText = Annotated[str, msgspec.Meta(max_length=MAX_UNIT_CHARS)]
Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNK_INDEX)]


class ChannelBody(msgspec.Struct, frozen=True):
    """Points of one channel: times in s since 1970 (UTC), and values; null means no value."""

    timestamps: list[float]
    values: list[float | None]
    units: UnitText | None = None


class ChunkBody(ChannelBody, frozen=True, kw_only=True):
    """Body of ``POST /tool-state/stream/chunk``."""

    data_id: str
    chunk_index: Index
    channel_name: ChannelName


class MultiChunkBody(msgspec.Struct, frozen=True):
    """Body of ``POST /tool-state/stream/chunk/multi``."""

    data_id: str
    chunk_index: Index
    channels: Annotated[dict[ChannelName, ChannelBody], msgspec.Meta(max_length=MAX_CHANNELS)]


class StoredChannel(msgspec.Struct, frozen=True):
    """Points of one channel as they are stored: little-endian float64."""

    units: str | None
    times: bytes
    values: bytes

    @property
    def key(self) -> int:
        """A checksum of the points: an index has one content."""
        return int(google_crc32c.extend(google_crc32c.value(self.times), self.values))


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Times (N,) in s since 1970, ascending, and values (N,); NaN means no value."""

    times: F64
    values: F64

    def __len__(self) -> int:
        return len(self.times)


def stored_channels(channels: Mapping[str, ChannelBody]) -> dict[str, StoredChannel]:
    """Check the points of a chunk and return them as they are stored. Channels without points are left out.

    Raises:
        HttpError: 400 for numbers of times and values that differ, or a time that is not in s since 1970.
    """
    found = {}
    for name, body in channels.items():
        if len(body.timestamps) != len(body.values):
            raise HttpError(
                400,
                f"Channel {name!r} has {len(body.timestamps)} timestamps and {len(body.values)} values. Nothing was "
                "stored.",
            )
        times = np.array(body.timestamps, dtype=np.float64)
        wrong = ~((times >= 0.0) & (times <= MAX_TIME_MS / 1000.0))
        if wrong.any():
            raise HttpError(
                400,
                f"Channel {name!r}: the timestamp {times[wrong][0]:g} is not in seconds since 1970 (UTC), at most the "
                "year 2100; is it in milliseconds? Nothing was stored.",
            )
        values = np.array([np.nan if value is None else value for value in body.values], dtype=np.float64)
        if len(times):
            found[name] = StoredChannel(body.units, times.tobytes(), values.tobytes())
    return found
