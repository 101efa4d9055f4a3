"""One stream of signals: its description, and its points in a log on the disk and in memory.

Under ``DIR/signals/``::

    <data_id>.json    the description
    <data_id>.log     the chunks, each one record; points are only added

A chunk is one record with all of its channels, so a repeated or interrupted request never stores a part of it. The
points of a channel may arrive in any order; they are sorted by time where they are read.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from atomstream.errors import ConflictError
from atomstream.mark_rules import MAX_RULES, MarkRule
from atomstream.server.archive.metadata import NamedId
from atomstream.server.http.responses import HttpError
from atomstream.server.signals.chunks import F64, MAX_CHANNELS, Points, StoredChannel
from atomstream.system.files import FileSystem
from atomstream.system.log_privacy import get_logger
from atomstream.system.record_log import Record, RecordLog, is_lost

log = get_logger("atomstream.server")

MAX_POINTS: Final = 5_000_000
"""Most points of one stream, all channels together: they are in memory while the stream is used, 16 bytes each."""
POINTS_OF_CHUNK: Final = 12
"""So many points count for each chunk of a channel beside its own: its number and checksum are in memory too."""


class SignalsAbout(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a stream of signals; times are ISO 8601 UTC."""

    data_id: str
    processed_data_id: str
    name: str
    made: str
    last_updated: str
    points_per_chunk: int
    synth_source_id: str | int | None = None
    status: Literal["stream_active", "success"] = "stream_active"
    project: NamedId | None = None
    sample: NamedId | None = None
    tags: tuple[NamedId, ...] = ()
    marks: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    """Rules for marks, see :mod:`atomstream.mark_rules`."""

    def rules(self) -> list[MarkRule]:
        """The rules for marks."""
        return [MarkRule.parse(text) for text in self.marks]


class _Channel:
    """The points of one channel in memory."""

    def __init__(self) -> None:
        self.units: str | None = None
        self.order = 0
        """A number that changes when earlier points get another position in the order of time."""
        # Arrays that grow: many chunks of one point each need no more memory than one chunk of many.
        self._times, self._values = array("d"), array("d")
        self._in_order = True

    def __len__(self) -> int:
        return len(self._times)

    def add(self, times: F64, values: F64) -> None:
        newest = self._times[-1] if self._times else -np.inf
        self._in_order = self._in_order and bool(times[0] >= newest) and not bool((np.diff(times) < 0).any())
        self._times.frombytes(times.tobytes())
        self._values.frombytes(values.tobytes())

    def points(self, start: int = 0, stop: int | None = None) -> Points:
        """The points at these places by time; of equal times, the one that arrived last is the last one."""
        if not self._in_order:
            times = np.array(self._times)
            order = np.argsort(times, kind="stable")
            self._times = array("d", times[order].tobytes())
            self._values = array("d", np.array(self._values)[order].tobytes())
            self._in_order = True
            self.order += 1
        return Points(np.array(self._times[start:stop]), np.array(self._values[start:stop]))


class SignalStream:
    """The points of one stream. Thread-safe; every method may block on the disk.

    Raises (opening): OSError: from the disk.
    """

    def __init__(self, path: Path, file_system: FileSystem) -> None:
        self._lock = threading.Lock()
        self._channels: dict[str, _Channel] = {}
        self._keys: dict[tuple[str, int], int] = {}
        self._count = 0
        self._log = RecordLog(path, file_system=file_system)
        try:
            for number in range(1, len(self._log) + 1):
                self._load(self._log.read(number))
        except BaseException:
            self._log.close()
            raise

    def _load(self, record: Record) -> None:
        if is_lost(record):
            return
        try:
            index = int(record["index"])
            channels = msgspec.convert(record["channels"], dict[str, StoredChannel])
        except (KeyError, TypeError, ValueError, msgspec.ValidationError):
            return
        self._keep(index, channels)

    def add(self, index: int, channels: Mapping[str, StoredChannel]) -> bool:
        """Store a chunk durably. Returns False if all of it was stored before: a repeat changes nothing.

        Raises:
            ConflictError: the index has other points in a channel, or the channel another unit; nothing was stored.
            HttpError: 413, too many channels or points; nothing was stored. OSError: from the disk.
        """
        with self._lock:
            while True:
                new = {
                    name: channel
                    for name, channel in channels.items()
                    if self._keys.get((name, index)) != channel.key
                }
                self._check(index, new)
                if not new:
                    return False
                if self._append(index, new):
                    self._keep(index, new)
                    return True

    def _append(self, index: int, new: Mapping[str, StoredChannel]) -> bool:
        """Store the new channels of a chunk durably; False if another server has stored some meanwhile: check again."""
        self._log.append(
            {"index": index, "channels": msgspec.to_builtins(new, builtin_types=(bytes,))}, durable=True
        )
        return True

    def _check(self, index: int, new: Mapping[str, StoredChannel]) -> None:
        for name, channel in new.items():
            if (name, index) in self._keys:
                raise ConflictError(
                    f"Chunk {index} of channel {name!r} is stored already, with other points. The stored ones are not "
                    "changed; use the next index.",
                    status=409,
                )
            known = self._channels.get(name)
            if (
                known is not None
                and None not in (known.units, channel.units)
                and known.units != channel.units
            ):
                raise ConflictError(
                    f"Channel {name!r} is in {known.units!r}, and chunk {index} is in {channel.units!r}. Nothing was "
                    "stored. Convert the values, or give the channel another name.",
                    status=409,
                )
        if len(self._channels.keys() | new.keys()) > MAX_CHANNELS:
            raise HttpError(413, f"A stream has at most {MAX_CHANNELS} channels. Nothing was stored.")
        count = sum(len(channel.times) // 8 + POINTS_OF_CHUNK for channel in new.values())
        if self._count + count > MAX_POINTS:
            raise HttpError(
                413,
                f"This stream is full: its points and {POINTS_OF_CHUNK} for each chunk of a channel are {self._count}, "
                f"and at most {MAX_POINTS} are stored. Initialize a new one. Nothing was stored.",
            )

    def _keep(self, index: int, channels: Mapping[str, StoredChannel]) -> None:
        for name, stored in channels.items():
            channel = self._channels.setdefault(name, _Channel())
            channel.units = channel.units if stored.units is None else stored.units
            times, values = np.frombuffer(stored.times, "<f8"), np.frombuffer(stored.values, "<f8")
            channel.add(times, values)
            self._count += len(times) + POINTS_OF_CHUNK
            self._keys[name, index] = stored.key

    def units(self) -> dict[str, str | None]:
        """The unit of each channel, None if it is not known, in the order of their first points."""
        with self._lock:
            return {name: channel.units for name, channel in self._channels.items()}

    def points(self) -> dict[str, Points]:
        """All points of each channel, by time."""
        with self._lock:
            return {name: channel.points() for name, channel in self._channels.items()}

    def lengths(self) -> dict[str, int]:
        """The number of points of each channel."""
        with self._lock:
            return {name: len(channel) for name, channel in self._channels.items()}

    def piece(self, name: str, start: int, stop: int) -> tuple[Points, int]:
        """The points of a channel at these places by time, and a number that changes when places change."""
        with self._lock:
            channel = self._channels[name]
            return channel.points(start, stop), channel.order

    def __len__(self) -> int:
        """The points of all channels, with those that count for chunks."""
        return self._count

    def close(self) -> None:
        """Close the file."""
        self._log.close()
