"""The format of a shard: sizes, types, index and per-frame data. Used by encoding and decoding."""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import google_crc32c
import msgpack
import numpy as np
import numpy.typing as npt

from atomstream.errors import ShardError
from atomstream.records import FrameMeta

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap

Fetch: TypeAlias = Callable[[int, int], Buffer]
"""(offset, nbytes) -> these bytes of a shard that is not in memory, for example of a file."""

Dims: TypeAlias = tuple[int, int, int]

DtypeName: TypeAlias = Literal["uint8", "uint16"]

Index: TypeAlias = npt.NDArray[np.uint64]
"""Shape (N, 2): offset and nbytes of each inner chunk; both are ``ABSENT`` if there is none."""

ABSENT: Final = 2**64 - 1
"""Offset and nbytes of an inner chunk that does not exist (the Zarr specification demands this value)."""

ENTRY_BYTES: Final = 16
"""Bytes of one index entry."""

CRC_BYTES: Final = 4
"""Bytes of the CRC-32C after the index."""

META_BYTES_PER_FRAME: Final = 64
"""The most bytes of per-frame data for one frame."""

META_MAGIC: Final = 0x184D2A5A
"""One of the sixteen magic numbers of skippable frames (RFC 8878, section 3.1.2)."""

_META_HEAD = struct.Struct("<II")

DTYPES: Final[dict[str, np.dtype[Any]]] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}


def index_nbytes(n_frames: int) -> int:
    """Bytes of the index of a shard of ``n_frames``, including its checksum."""
    return n_frames * ENTRY_BYTES + CRC_BYTES


def frame_nbytes(dims: Dims, dtype: DtypeName) -> int:
    """Decoded bytes of one frame."""
    return dims[1] * dims[2] * DTYPES[dtype].itemsize


def slice_bound(n_frames: int, nbytes_per_frame: int) -> int:
    """Upper limit of the bytes of an encoded slice of this many frames (ZSTD_COMPRESSBOUND)."""
    return n_frames * (nbytes_per_frame + (nbytes_per_frame >> 8) + 1024)


def encoded_bound(n_frames: int, nbytes_per_frame: int) -> int:
    """Upper limit of the bytes of a shard of this many frames, including index and per-frame data."""
    overhead = n_frames * (ENTRY_BYTES + META_BYTES_PER_FRAME) + CRC_BYTES + 1024
    return slice_bound(n_frames, nbytes_per_frame) + overhead


def dtype_name(frames: npt.NDArray[Any]) -> DtypeName:
    """``"uint8"`` or ``"uint16"``, by the size of a pixel."""
    return "uint8" if frames.dtype.itemsize == 1 else "uint16"


def contiguous_index(start: int, lengths: Sequence[int]) -> Index:
    """The index of inner chunks with these lengths in bytes that follow one another, from byte ``start`` on."""
    sizes = np.array(lengths, dtype=np.uint64)
    ends = np.cumsum(sizes, dtype=np.uint64) + np.uint64(start)
    return np.stack([ends - sizes, sizes], axis=1)


def pack_index(index: Index) -> bytes:
    """The index as bytes with its CRC-32C: the end of a shard."""
    table = np.ascontiguousarray(index, dtype="<u8").tobytes()
    return table + struct.pack("<I", google_crc32c.value(table))


def pad_index(index: Index, chunk_size: int) -> Index:
    """``index`` with absent entries up to ``chunk_size``: in a Zarr array all shards have indices of the same size."""
    padded = np.full((chunk_size, 2), ABSENT, dtype=np.uint64)
    padded[: len(index)] = index
    return padded


def parse_index(tail: Buffer, n_frames: int, body_nbytes: int) -> Index:
    """Read and check the index of a shard.

    ``tail`` is the last ``index_nbytes(n_frames)`` bytes; ``body_nbytes`` is the number of bytes before them.

    Raises:
        ShardError: wrong length or checksum, or an entry refers to bytes outside of the shard.
    """
    raw = bytes(tail)
    if len(raw) != index_nbytes(n_frames):
        raise ShardError(f"The shard is too short for an index of {n_frames} frames.")
    table, (expected,) = raw[:-CRC_BYTES], struct.unpack("<I", raw[-CRC_BYTES:])
    if google_crc32c.value(table) != expected:
        raise ShardError(f"The index of the shard ({n_frames} frames) does not match its CRC-32C.")
    index = np.frombuffer(table, dtype="<u8").reshape(n_frames, 2).astype(np.uint64)
    _check_bounds(index, body_nbytes)
    return index


def _check_bounds(index: Index, body_nbytes: int) -> None:
    absent = index == ABSENT
    if (absent[:, 0] != absent[:, 1]).any():
        raise ShardError("An index entry of the shard is incomplete.")
    offset, nbytes = index[~absent[:, 0]].T
    limit = np.uint64(body_nbytes)
    # Without an addition, because offset + nbytes may overflow.
    if (
        (offset > limit) | (nbytes > limit) | (nbytes > limit - np.minimum(offset, limit)) | (nbytes == 0)
    ).any():
        raise ShardError("An index entry of the shard points outside of it.")


def pack_meta(meta: FrameMeta) -> bytes:
    """Times, ids and angles of the frames, as msgpack in a zstd skippable frame: the start of a shard."""
    fields = {"t": meta.times_ms, "i": meta.ids, "a": meta.angles_deg}
    body: bytes = msgpack.packb({key: list(value) for key, value in fields.items() if value is not None})
    return _META_HEAD.pack(META_MAGIC, len(body)) + body


def read_meta(fetch: Fetch, body_nbytes: int, n_frames: int) -> FrameMeta:
    """The :class:`FrameMeta` at the start of a shard of ``n_frames``. It is empty if the shard has none.

    ``body_nbytes`` is the number of bytes before the index.

    Raises:
        ShardError: the data is present but malformed.
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
    if type(value) not in (int, float):  # neither bool nor a number as text
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
