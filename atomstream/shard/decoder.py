"""Shards become frames again: checked, bounded, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import zstandard

from atomstream.errors import ShardError
from atomstream.records import FrameMeta, Frames
from atomstream.shard.format import (
    ABSENT,
    DTYPES,
    Buffer,
    Dims,
    DtypeName,
    Fetch,
    Index,
    frame_nbytes,
    index_nbytes,
    parse_index,
    read_meta,
)

_WINDOW_LIMIT: Final = 1 << 27


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """A checked shard of which nothing is decoded yet."""

    dims: Dims
    dtype: DtypeName
    index: Index
    meta: FrameMeta

    @classmethod
    def read(cls, data: Buffer, dims: Dims, dtype: DtypeName = "uint8") -> ShardLayout:
        """Check the index and per-frame data of ``data``, a whole shard.

        Raises:
            ShardError: what is wrong with it.
        """
        return cls.fetch(_from_memory(data), memoryview(data).nbytes, dims, dtype)

    @classmethod
    def fetch(
        cls, fetch: Fetch, nbytes: int, dims: Dims, dtype: DtypeName = "uint8", slots: int | None = None
    ) -> ShardLayout:
        """The same of a shard of ``nbytes`` that stays where it is: only the parts needed are fetched.

        ``slots`` counts the entries of its index where that was padded (an archive's ``chunk_size``).

        Raises:
            ShardError: what is wrong with it.
        """
        tail = index_nbytes(slots or dims[0])
        body = nbytes - tail
        if body < 0:
            raise ShardError(f"{nbytes} bytes are too few for a shard of {dims[0]} frames.")
        index = parse_index(fetch(body, tail), slots or dims[0], body)[: dims[0]]
        return cls(dims, dtype, index, read_meta(fetch, body, dims[0]))


def _from_memory(data: Buffer) -> Fetch:
    view = memoryview(data).cast("B")
    return lambda offset, nbytes: view[offset : offset + nbytes]


def decode_shard(data: Buffer, dims: Dims, dtype: DtypeName = "uint8") -> Frames:
    """All frames of a shard as a new array of shape ``dims``; absent ones read as 0.

    Raises:
        ShardError: the bytes are not a valid shard of that shape; nothing larger than it is ever decoded.
    """
    layout = ShardLayout.read(data, dims, dtype)
    frames: Frames = np.zeros(dims, dtype=DTYPES[dtype])
    for k, frame in iter_frames(data, layout):
        frames[k] = frame
    return frames


def iter_frames(
    data: Buffer | Fetch, layout: ShardLayout, only: range | None = None
) -> Iterator[tuple[int, Frames]]:
    """Decode one frame after the other: (k, read-only array (H, W)) for each that is present.

    ``only`` names the frames wanted. Whatever the shard says of itself, no more than H * W values are
    decoded for a frame and no more than about twice their bytes are read.

    Raises:
        ShardError: a frame is damaged, or decodes to another size than H * W.
    """
    fetch = data if callable(data) else _from_memory(data)
    size = frame_nbytes(layout.dims, layout.dtype)
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT)
    for k in only if only is not None else range(len(layout.index)):
        offset, nbytes = layout.index[k].tolist()
        if offset == ABSENT:
            continue
        if nbytes > 2 * size + 1024:  # empty blocks without end would decode to nothing, slowly
            raise ShardError(f"Frame {k} of the shard has {nbytes} bytes encoded, {size} decoded.")
        raw = _decode_frame(decompressor, memoryview(fetch(offset, nbytes)), size, k)
        yield k, np.frombuffer(raw, dtype=DTYPES[layout.dtype]).reshape(layout.dims[1:])


def _decode_frame(decompressor: zstandard.ZstdDecompressor, piece: memoryview, size: int, k: int) -> bytes:
    try:
        # A declared size is believed by the decompressor whatever limit it is given, so it is read first.
        declared = zstandard.get_frame_parameters(piece).content_size
        if declared not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise ShardError(f"Frame {k} of the shard declares {declared} bytes; its shape wants {size}.")
        raw = decompressor.decompress(piece, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ShardError(f"Frame {k} of the shard can't be decoded: {error}.") from None
    if len(raw) != size:
        raise ShardError(f"Frame {k} of the shard has {len(raw)} bytes; its shape wants {size}.")
    return raw
