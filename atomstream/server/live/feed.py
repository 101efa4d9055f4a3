"""What readers of a stream follow: the newest messages at hand, and a bell that rings at each new one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import msgspec

from atomstream.results import Plain, unpacked

RECENT: Final = 256


class Message:
    """One numbered message. Its two encodings with all columns are made once, for all who read along."""

    def __init__(self, plain: Plain) -> None:
        self.plain = plain
        self._encoded: dict[str, bytes] = {}

    def encoded(self, kind: str, columns: frozenset[str] | None) -> bytes:
        """As ``"msgpack"`` or ``"json"``; only ``columns`` of the per-frame ones where given."""
        if columns is not None or "columns" not in self.plain:
            return encode(kind, only(self.plain, columns))
        if kind not in self._encoded:
            self._encoded[kind] = encode(kind, self.plain)
        return self._encoded[kind]


def only(message: Plain, columns: frozenset[str] | None) -> Plain:
    """The message with these columns alone."""
    if columns is None or "columns" not in message:
        return message
    kept = {name: raw for name, raw in message["columns"].items() if name in columns}
    return {**message, "columns": kept}


def encode(kind: str, message: Plain) -> bytes:
    """A message's bytes, as ``"msgpack"`` or, for browsers, as ``"json"`` with lists in place of packed numbers."""
    return msgspec.msgpack.encode(message) if kind == "msgpack" else msgspec.json.encode(readable(message))


def readable(message: Plain) -> Plain:
    """The message with lists for bytes; numbers to seven digits, which is what float32 has."""
    out = dict(message)
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
    """The newest messages of one stream. Belongs to the server's loop."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.progress: float | None = None
        self.closed = False
        self._recent: OrderedDict[int, Message] = OrderedDict()
        self._bell = asyncio.Event()

    def publish(self, plain: Plain) -> None:
        """A record was kept: tell all readers."""
        self.seq = plain["seq"]
        self._recent[self.seq] = Message(plain)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        self.ring()

    def recent(self, seq: int) -> Message | None:
        """The message of that number, where it is still at hand."""
        return self._recent.get(seq)

    def ring(self) -> None:
        """Wake all readers."""
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    @property
    def bell(self) -> asyncio.Event:
        """Set at the next news; take it before looking, so that nothing is missed in between."""
        return self._bell

    def close(self) -> None:
        """The server stops: readers go."""
        self.closed = True
        self.ring()
