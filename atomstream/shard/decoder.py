"""Decoding of shards. The input is not trusted: everything is checked, and no more than one frame is decoded at a
time.
"""

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

_LEAST_WINDOW_LIMIT: Final = 1 << 23
_MOST_WINDOW_LIMIT: Final = 1 << 27
"""The largest zstd window that is accepted, in bytes, lies between these; RFC 8878 recommends the lower one."""

MOST_RATIO: Final = 1 << 15
"""Decoded bytes for one encoded byte: the shortest zstd block has 4 bytes and decodes to at most 128 KiB."""


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """The checked index and per-frame data of a shard. No frame is decoded yet."""

    dims: Dims
    dtype: DtypeName
    index: Index
    meta: FrameMeta

    @classmethod
    def read(cls, data: Buffer, dims: Dims, dtype: DtypeName = "uint8") -> ShardLayout:
        """Check the index and per-frame data of ``data``, the bytes of a whole shard.

        Raises:
            ShardError: the shard is invalid; the message names the error.
        """
        return cls.fetch(_from_memory(data), memoryview(data).nbytes, dims, dtype)

    @classmethod
    def fetch(
        cls, fetch: Fetch, nbytes: int, dims: Dims, dtype: DtypeName = "uint8", slots: int | None = None
    ) -> ShardLayout:
        """As :meth:`read`, for a shard of ``nbytes`` bytes in a file: only the necessary parts are fetched.

        ``slots`` is the number of index entries if the index was padded (in an archive: its ``chunk_size``).

        Raises:
            ShardError: the shard is invalid; the message names the error.
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
    """All frames of a shard as a new array of shape ``dims``. Absent frames are 0.

    Raises:
        ShardError: the bytes are not a valid shard of this shape. Nothing larger than this shape is ever decoded.
    """
    layout = ShardLayout.read(data, dims, dtype)
    frames: Frames = np.zeros(dims, dtype=DTYPES[dtype])
    for k, frame in iter_frames(data, layout):
        frames[k] = frame
    return frames


def iter_frames(
    data: Buffer | Fetch, layout: ShardLayout, only: range | None = None
) -> Iterator[tuple[int, Frames]]:
    """Decode frames one by one: yields (k, read-only array (H, W)) for each frame that is present.

    ``only`` selects frames. Whatever the shard declares, no more than H * W values are decoded per frame, and no more
    than about twice their bytes are read.

    Raises:
        ShardError: a frame is damaged, or its decoded size is not H * W.
    """
    fetch = data if callable(data) else _from_memory(data)
    size = frame_nbytes(layout.dims, layout.dtype)
    # A window larger than the frame would only take memory.
    window = min(_MOST_WINDOW_LIMIT, max(_LEAST_WINDOW_LIMIT, 1 << (size - 1).bit_length()))
    decompressor = zstandard.ZstdDecompressor(max_window_size=window)
    shape, dtype = layout.dims[1:], DTYPES[layout.dtype]
    wanted = range(len(layout.index)) if only is None else only
    for k, (offset, nbytes) in zip(wanted, layout.index[list(wanted)].tolist(), strict=True):
        if offset == ABSENT:
            continue
        if nbytes > longest_encoding(size):
            raise ShardError(f"Frame {k} of the shard has {nbytes} bytes encoded, {size} decoded.")
        if size > nbytes * MOST_RATIO:  # before anything is allocated for it
            raise ShardError(f"Frame {k} of the shard has {nbytes} bytes, too few for {size} decoded ones.")
        raw = _decode_frame(decompressor, memoryview(fetch(offset, nbytes)), size, k)
        yield k, np.ndarray(shape, dtype, raw)


def longest_encoding(size: int) -> int:
    """The most encoded bytes that are accepted for a frame of ``size`` bytes: endless empty blocks would be slow."""
    return 2 * size + 1024


def _decode_frame(decompressor: zstandard.ZstdDecompressor, piece: memoryview, size: int, k: int) -> bytes:
    try:
        # The decompressor ignores any limit and allocates the declared size, so check that size first.
        declared = zstandard.get_frame_parameters(piece).content_size
        if declared not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise ShardError(f"Frame {k} of the shard declares {declared} bytes; its shape needs {size}.")
        raw = decompressor.decompress(piece, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ShardError(f"Frame {k} of the shard can't be decoded: {error}.") from None
    if len(raw) != size:
        raise ShardError(f"Frame {k} of the shard has {len(raw)} bytes; its shape needs {size}.")
    return raw
