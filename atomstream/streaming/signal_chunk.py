"""Points of signals: checked, written as the JSON text of a request, and carried by a chunk of the pipeline.

The pipeline, its spool and its recovery handle chunks of frames. The text of a chunk of points becomes such a chunk: it
is padded with blanks, which JSON allows at its end, to rows of ``ROW`` bytes, and each row is one "frame" (1, ROW). So
signals have the same guarantees as frames (see docs/promises.md), and compression, without a second kind of record. See
docs/decisions/0017-signals.md.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from atomstream.errors import ConfigError, ShardError
from atomstream.protocol import MAX_CHUNK_POINTS, MAX_NAME_CHARS, MAX_TIME_MS, MAX_UNIT_CHARS
from atomstream.records import Frames
from atomstream.shard import Dims, decode_shard

ROW: Final = 4096
"""Bytes in a row."""

MAX_TIME_S: Final = MAX_TIME_MS / 1000.0
_DATA_ID: Final = re.compile(rb'\A\{"data_id":"[^"]*"')
_HEAD: Final = re.compile(rb'\{"data_id":"[^"]*","chunk_index":\d+,"(channels|channel_name)":')

F64 = npt.NDArray[np.float64]


class ChannelPoints(NamedTuple):
    """Points of one channel: times (N,) in s since 1970 (UTC), values (N,) with NaN for none, and the unit."""

    times: F64
    values: F64
    units: str | None


def checked_points(channel: Any, timestamps: Any, values: Any, units: Any = None) -> ChannelPoints:
    """Return the points of a channel. A single time and value are one point; True and False are 1 and 0.

    Raises:
        TypeError: the name, a time, a value or the unit has another type.
        ConfigError: numbers of times and values differ, there are none, or a time is not in s since 1970.
    """
    if type(channel) is not str:
        raise TypeError(f"The name of a channel is a str, not {channel!r}.")
    if not channel.strip() or len(channel) > MAX_NAME_CHARS:
        raise ConfigError(
            f"The name of a channel is a string of 1 to {MAX_NAME_CHARS} characters, not {channel!r}."
        )
    if units is not None and not isinstance(units, str):
        raise TypeError(f"units of channel {channel!r} must be a str such as 'mbar', not {units!r}.")
    if units is not None and len(units) > MAX_UNIT_CHARS:
        raise ConfigError(
            f"units of channel {channel!r} have at most {MAX_UNIT_CHARS} characters, not {len(units)}."
        )
    times, numbers = _numbers(channel, "timestamps", timestamps), _numbers(channel, "values", values)
    if len(times) != len(numbers):
        raise ConfigError(
            f"Channel {channel!r} has {len(times)} timestamps and {len(numbers)} values. Nothing was sent."
        )
    if not len(times):
        raise ConfigError(f"Channel {channel!r} has no points. Nothing was sent.")
    wrong = ~((times >= 0.0) & (times <= MAX_TIME_S))
    if wrong.any():
        first = float(times[wrong][0])
        unit = " Is it in milliseconds? Divide it by 1000." if MAX_TIME_S < first <= MAX_TIME_MS else ""
        raise ConfigError(
            f"Channel {channel!r}: the timestamp {first:g} is not in seconds since 1970 (UTC), at most the year "
            f"2100.{unit} Nothing was sent."
        )
    return ChannelPoints(times, numbers, units)


def _numbers(channel: str, name: str, given: Any) -> F64:
    if isinstance(given, np.ndarray):
        array = given
    elif isinstance(given, str | bytes) or (isinstance(given, Iterable) and not hasattr(given, "__len__")):
        raise _no_numbers(channel, name, given)
    elif hasattr(given, "__len__") and not hasattr(given, "__array__"):
        array = np.array([math.nan if one is None else one for one in given])
    else:
        array = np.asarray(math.nan if given is None else given)
    if array.dtype.kind not in "fiub" or array.ndim > 1:
        raise _no_numbers(channel, name, given)
    return np.atleast_1d(array).astype(np.float64)


def _no_numbers(channel: str, name: str, given: Any) -> TypeError:
    return TypeError(
        f"{name} of channel {channel!r} must be a number, or a list or one-dimensional array of numbers, not "
        f"{str(given)[:80]!r} ({type(given).__name__}). For states such as 'open' send numbers, such as 1 and 0. "
        "Nothing was sent."
    )


def check_count(channels: Mapping[str, ChannelPoints]) -> None:
    """Raise ConfigError if there are more points than a chunk may have."""
    count = sum(len(points.times) for points in channels.values())
    if count > MAX_CHUNK_POINTS:
        raise ConfigError(
            f"{count} points are more than the {MAX_CHUNK_POINTS} of a chunk. Push them in parts, or pass an iterable "
            "of parts to run(). Nothing was sent."
        )


def text_of(data_id: str, index: int, channels: Mapping[str, ChannelPoints], *, several: bool) -> bytes:
    """Return the JSON body for a chunk of one channel, or of ``several``."""
    head: dict[str, Any] = {"data_id": data_id, "chunk_index": index}
    if several:
        body = {**head, "channels": {name: _fields(points) for name, points in channels.items()}}
    else:
        ((name, points),) = channels.items()
        body = {**head, "channel_name": name, **_fields(points)}
    return json.dumps(body, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def _fields(points: ChannelPoints) -> dict[str, Any]:
    values: list[float | None] = points.values.tolist()
    if not np.isfinite(points.values).all():
        values = [value if value is not None and math.isfinite(value) else None for value in values]
    fields: dict[str, Any] = {"timestamps": points.times.tolist(), "values": values}
    return fields if points.units is None else {**fields, "units": points.units}


def rows_of_text(text: bytes) -> Frames:
    """Return the text as rows (N, 1, ROW) of uint8, padded with blanks."""
    rows = np.full(-(-len(text) // ROW) * ROW, ord(" "), dtype=np.uint8)
    rows[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    return rows.reshape(-1, 1, ROW)


def text_of_shard(shard: bytes, dims: Dims) -> tuple[bytes, bool]:
    """Return the text in a shard of :func:`rows_of_text`, and whether it has several channels.

    Raises:
        ShardError: the bytes are no such shard.
    """
    text = decode_shard(shard, dims).tobytes().rstrip()
    head = _HEAD.match(text)
    if head is None:
        raise ShardError("The chunk holds no points of signals.")
    return text, head[1] == b"channels"


def addressed(text: bytes, data_id: str) -> bytes:
    """Return the text of a chunk with the id ``data_id``: a stream that began while the server was unreachable has
    another id on the server than in the spool."""
    return _DATA_ID.sub(lambda _found: b'{"data_id":' + json.dumps(data_id).encode(), text, count=1)
