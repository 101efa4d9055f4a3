"""Chunk <-> bytes of a Zarr v3 shard; pure, and used by both ends.

A shard is the outer chunk (N, H, W) of a ``sharding_indexed`` array whose inner chunks are single frames
(1, H, W), coded ``bytes`` (little endian) then ``zstd``; the index of N pairs (offset, nbytes), uint64
little endian, and its CRC-32C stand at the end. Per-frame times, ids and angles travel in front, in a zstd
skippable frame of msgpack, which every Zarr reader passes over because it goes by the index.
"""

from __future__ import annotations

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
    dtype_name,
    encoded_bound,
    frame_nbytes,
    index_nbytes,
    pack_index,
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
    "crc32c_of",
    "decode_shard",
    "dtype_name",
    "encoded_bound",
    "frame_nbytes",
    "index_nbytes",
    "iter_frames",
    "pack_index",
    "pad_index",
    "parse_index",
    "slice_bound",
]
