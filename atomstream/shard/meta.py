"""Per-frame times, ids and angles in front of a shard, in a zstd skippable frame of msgpack."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any, Final

import msgpack

from atomstream.errors import ShardError
from atomstream.records import FrameMeta
from atomstream.shard.layout import META_BYTES_PER_FRAME, Fetch

META_MAGIC: Final = 0x184D2A5A
"""One of the sixteen skippable-frame magics of RFC 8878, section 3.1.2."""
_META_HEAD = struct.Struct("<II")


def pack_meta(meta: FrameMeta) -> bytes:
    """Per-frame times, ids and angles as a zstd skippable frame."""
    fields = {"t": meta.times_ms, "i": meta.ids, "a": meta.angles_deg}
    body: bytes = msgpack.packb({key: list(value) for key, value in fields.items() if value is not None})
    return _META_HEAD.pack(META_MAGIC, len(body)) + body


def read_meta(fetch: Fetch, body_nbytes: int, n_frames: int) -> FrameMeta:
    """The :class:`FrameMeta` that a shard of ``n_frames`` carries in front; an empty one where it has none.

    ``body_nbytes`` counts the bytes before the index.

    Raises:
        ShardError: the frame is there but malformed.
    """
    if body_nbytes < _META_HEAD.size:
        return FrameMeta()
    magic, size = _META_HEAD.unpack(fetch(0, _META_HEAD.size))
    if magic != META_MAGIC:
        return FrameMeta()
    if size > 1024 + n_frames * META_BYTES_PER_FRAME or _META_HEAD.size + size > body_nbytes:
        raise ShardError("The per-frame data of the shard has an impossible length.")
    return _meta_from(bytes(fetch(_META_HEAD.size, size)), n_frames)


def _meta_from(body: bytes, n_frames: int) -> FrameMeta:
    try:
        fields = msgpack.unpackb(body, max_map_len=8, max_array_len=n_frames)
        return FrameMeta(
            times_ms=_column(fields.get("t"), _finite, n_frames),
            ids=_column(fields.get("i"), _int64, n_frames),
            angles_deg=_column(fields.get("a"), _number, n_frames),
        )
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise ShardError(f"The per-frame data of the shard can't be read: {error}.") from None


def _column(values: Any, kind: Callable[[Any], Any], n_frames: int) -> tuple[Any, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != n_frames:
        raise ValueError(f"expected {n_frames} entries")
    return tuple(map(kind, values))


def _number(value: Any) -> float:
    if type(value) not in (int, float):  # neither bool nor text that happens to spell a number
        raise ValueError("an entry is not a number")
    return float(value)


def _finite(value: Any) -> float:
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError("a time is not finite")
    return number


def _int64(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("an id is not a 64-bit whole number")
    return value
