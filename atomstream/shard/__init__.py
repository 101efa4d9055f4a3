"""Encoding of chunks as Zarr v3 shards, and decoding. Both client and server use it. No I/O.

A shard is the outer chunk (N, H, W) of a ``sharding_indexed`` array. Its inner chunks are single frames (1, H, W),
encoded with ``bytes`` (little endian) and then ``zstd``. The index is at the end: N pairs (offset, nbytes) of little
endian uint64, then their CRC-32C. Times, ids and angles of the frames are at the start, as msgpack in a zstd skippable
frame. Zarr readers ignore it, because they only read what the index refers to.
"""

from __future__ import annotations

from atomstream.shard.batch_decoder import decode_frames
from atomstream.shard.checksum import crc32c_of
from atomstream.shard.decoder import ShardLayout, decode_shard, iter_frames
from atomstream.shard.encoder import EncodedSlice, ShardEncoder, assemble
from atomstream.shard.format import (
    ABSENT,
    META_MAGIC,
    Buffer,
    Dims,
    DtypeName,
    Fetch,
    Index,
    contiguous_index,
    dtype_name,
    encoded_bound,
    frame_nbytes,
    index_nbytes,
    pack_index,
    pack_meta,
    pad_index,
    parse_index,
    slice_bound,
)

__all__ = [
    "ABSENT",
    "META_MAGIC",
    "Buffer",
    "Dims",
    "DtypeName",
    "EncodedSlice",
    "Fetch",
    "Index",
    "ShardEncoder",
    "ShardLayout",
    "assemble",
    "contiguous_index",
    "crc32c_of",
    "decode_frames",
    "decode_shard",
    "dtype_name",
    "encoded_bound",
    "frame_nbytes",
    "index_nbytes",
    "iter_frames",
    "pack_index",
    "pack_meta",
    "pad_index",
    "parse_index",
    "slice_bound",
]
