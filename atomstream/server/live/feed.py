"""The newest messages of a stream in memory, and the notification of its readers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import msgspec
from msgspec import UNSET

from atomstream.results import Plain, unpacked
from atomstream.server.live.messages import BatchMessage, FeedMessage, NumberedMessage

RECENT: Final = 256
"""Newest messages of a stream that stay in memory."""
RECENT_BYTES: Final = 8 << 20
"""Most bytes of per-frame values in them; older messages are read from the disk."""


class Message:
    """One numbered message. Its encodings with all columns are made once for all readers."""

    def __init__(self, record: NumberedMessage) -> None:
        self.record = record
        self.nbytes = _nbytes(record)
        self._encoded: dict[str, bytes] = {}

    def encoded(self, kind: str, columns: frozenset[str] | None) -> bytes:
        """The message as ``"msgpack"`` or ``"json"``, with only these per-frame ``columns`` if given."""
        if columns is not None or not isinstance(self.record, BatchMessage):
            return encode(kind, only(self.record, columns))
        if kind not in self._encoded:
            self._encoded[kind] = encode(kind, self.record)
        return self._encoded[kind]


def _nbytes(record: NumberedMessage) -> int:
    if not isinstance(record, BatchMessage):
        return 0
    parts = [record.columns, record.lines]
    profile = 0 if record.profile is UNSET else len(record.profile)
    return profile + sum(len(raw) for part in parts if part is not UNSET for raw in part.values())


def only(message: NumberedMessage, columns: frozenset[str] | None) -> NumberedMessage:
    """The message with only these columns."""
    if columns is None or not isinstance(message, BatchMessage) or message.columns is UNSET:
        return message
    kept = {name: raw for name, raw in message.columns.items() if name in columns}
    return msgspec.structs.replace(message, columns=kept)


def encode(kind: str, message: FeedMessage) -> bytes:
    """Encode a message as ``"msgpack"``, or for browsers as ``"json"`` with lists in place of packed numbers."""
    if kind == "msgpack":
        return msgspec.msgpack.encode(message)
    return msgspec.json.encode(readable(message) if isinstance(message, BatchMessage) else message)


def readable(batch: BatchMessage) -> Plain:
    """The batch as a map with lists in place of bytes. Numbers have seven digits, the precision of float32."""
    present = msgspec.structs.asdict(batch).items()
    out = {"type": "batch", **{name: value for name, value in present if value is not UNSET}}
    if "columns" in out:
        out["columns"] = {name: _listed(name, raw) for name, raw in out["columns"].items()}
    if "profile" in out:
        out["profile"] = _listed("profile", out["profile"])
    if "lines" in out:
        out["lines"] = {name: _listed(name, raw) for name, raw in out["lines"].items()}
    return out


def _listed(name: str, raw: bytes) -> list[float]:
    values = unpacked(name, raw)
    digits = "%.12g" if values.dtype.itemsize == 8 else "%.7g"
    return [float(digits % value) for value in values.tolist()]  # NaN becomes null in JSON


class Feed:
    """The newest messages of one stream. Used in the server's loop."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.closed = False
        self._recent: OrderedDict[int, Message] = OrderedDict()
        self._nbytes = 0
        self._changed = asyncio.Event()

    def publish(self, record: NumberedMessage) -> None:
        """Add a message, which has a number, and wake all readers."""
        assert record.seq is not UNSET
        self.seq = record.seq
        message = self._recent[self.seq] = Message(record)
        self._nbytes += message.nbytes
        while len(self._recent) > RECENT or (self._nbytes > RECENT_BYTES and len(self._recent) > 1):
            self._nbytes -= self._recent.popitem(last=False)[1].nbytes
        self.notify()

    def recent(self, seq: int) -> Message | None:
        """The message of that number, None if it is not in memory any more."""
        return self._recent.get(seq)

    def notify(self) -> None:
        """Wake all readers."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def changed(self) -> asyncio.Event:
        """Set at the next change. Get it before you look at the state, so that no change is missed."""
        return self._changed

    def close(self) -> None:
        """End all readers: the server stops."""
        self.closed = True
        self.notify()
