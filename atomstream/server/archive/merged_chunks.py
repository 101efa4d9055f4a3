"""One object with several consecutive chunks of a stream: a Zarr shard whose frames are those of all of them.

Objects of short chunks are many and small, so the chunks are joined into one object. Each frame is a zstd frame of its
own, so none is compressed again: the object has the contents of the chunks (per-frame data and frames) one after
another, then a directory, then one index for all frames, with which the object ends as every shard does. The directory
is a zstd skippable frame, which Zarr readers skip. It has the place and the trailer of each chunk, so that each chunk's
own shard can be cut out again, byte by byte.

A chunk that is added later is appended, and all others stay where they are: a reader that has read the index of the
version before reads the same frames at the same places.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import google_crc32c
import numpy as np

from atomstream.errors import ShardError
from atomstream.server.archive.records import Geometry
from atomstream.server.archive.shard_file import END_NBYTES, trailer_of
from atomstream.shard import ABSENT, Index, ShardLayout, frame_nbytes, index_nbytes, pack_index, parse_index

MAX_CHUNKS: Final = 1000
"""Most chunks in one object."""
MAX_FRAME_BYTES: Final = 128 << 20
"""Most decoded bytes of the frames of one object: it is read and written whole, in one request."""
_HEAD: Final = struct.Struct("<II4sIIQ")
_ENTRY: Final = struct.Struct(f"<QQ{END_NBYTES}s")
_MAGIC: Final = 0x184D2A5C  # the skippable magic after that of a trailer (RFC 8878, 3.1.2)
_TAG: Final = b"ATM1"


@dataclass(frozen=True, slots=True)
class Grid:
    """``n_chunks`` chunks of ``chunk_size`` frames are in an object; 1: each chunk is one."""

    n_chunks: int
    chunk_size: int

    def object_of(self, chunk: int) -> int:
        """The number of the object of a chunk."""
        return chunk // self.n_chunks

    def chunks_of(self, number: int) -> range:
        """The chunks of an object."""
        return range(number * self.n_chunks, (number + 1) * self.n_chunks)

    @property
    def directory_nbytes(self) -> int:
        """Bytes of the directory."""
        return _HEAD.size + self.n_chunks * _ENTRY.size + 4

    @property
    def tail_nbytes(self) -> int:
        """Bytes of the directory and the index: the end of an object."""
        return self.directory_nbytes + index_nbytes(self.n_chunks * self.chunk_size)


def grid_for(geometry: Geometry, fps: float, object_s: float) -> Grid:
    """Objects of at least ``object_s`` seconds, if the chunks have less than half of that; else each chunk is one."""
    chunk_s = geometry.chunk_size / fps
    frame = frame_nbytes((1, geometry.height, geometry.width), geometry.dtype)
    most = min(MAX_CHUNKS, MAX_FRAME_BYTES // (geometry.chunk_size * frame))
    if chunk_s >= object_s / 2 or most < 2:
        return Grid(1, geometry.chunk_size)
    return Grid(min(most, math.ceil(object_s / chunk_s - 1e-9)), geometry.chunk_size)


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk in an object: its content has ``nbytes`` from ``offset`` on; :attr:`end` follows it in its own shard."""

    offset: int
    nbytes: int
    trailer: bytes
    index: Index
    """Of its own shard, (chunk_size, 2): offsets count from the chunk's first byte."""

    @property
    def end(self) -> bytes:
        """The bytes after the content: trailer and index."""
        return self.trailer + pack_index(self.index)


class MergedObject:
    """What an object contains: a :class:`Part` for each chunk, by its place (0 to n_chunks - 1)."""

    def __init__(self, grid: Grid, parts: Mapping[int, Part], content_nbytes: int) -> None:
        self.grid = grid
        self.parts = dict(parts)
        self.content_nbytes = content_nbytes
        """The position of the directory."""

    @classmethod
    def read(cls, tail: bytes, grid: Grid, name: str) -> MergedObject:
        """Read the last ``grid.tail_nbytes`` of an object.

        Raises:
            ShardError: it is damaged; ``name`` names it.
        """
        directory, index_tail = tail[: grid.directory_nbytes], tail[grid.directory_nbytes :]
        if len(tail) != grid.tail_nbytes or google_crc32c.value(directory[:-4]) != int.from_bytes(
            directory[-4:], "little"
        ):
            raise ShardError(f"{name} has no valid directory of its chunks: it is damaged.")
        magic, size, tag, n_chunks, chunk_size, content = _HEAD.unpack_from(directory)
        if (magic, size, tag) != (_MAGIC, len(directory) - 8, _TAG) or (n_chunks, chunk_size) != (
            grid.n_chunks,
            grid.chunk_size,
        ):
            raise ShardError(f"{name} was written by another version of atomstream, or for another stream.")
        index = parse_index(index_tail, n_chunks * chunk_size, content)
        parts = {}
        for place in range(n_chunks):
            offset, nbytes, trailer = _ENTRY.unpack_from(directory, _HEAD.size + place * _ENTRY.size)
            if offset == ABSENT:
                continue
            own = index[place * chunk_size : (place + 1) * chunk_size].copy()
            there = own[:, 0] != ABSENT
            own[there, 0] -= np.uint64(offset)
            placed = own[there]  # an offset below the chunk's has become a large number
            if offset + nbytes > content or (placed > nbytes).any() or (placed.sum(axis=1) > nbytes).any():
                raise ShardError(f"{name} has impossible places of its chunks.")
            parts[place] = Part(offset, nbytes, trailer, own)
        return cls(grid, parts, content)

    def shard(self, place: int, content: bytes) -> bytes:
        """The own shard of a chunk, from its content."""
        return content + self.parts[place].end

    def _tail(self) -> bytes:
        grid = self.grid
        table = np.full((grid.n_chunks * grid.chunk_size, 2), ABSENT, dtype=np.uint64)
        entries = []
        for place in range(grid.n_chunks):
            part = self.parts.get(place)
            if part is None:
                entries.append(_ENTRY.pack(ABSENT, ABSENT, bytes(END_NBYTES)))
                continue
            own = part.index.copy()
            own[own[:, 0] != ABSENT, 0] += np.uint64(part.offset)
            table[place * grid.chunk_size : (place + 1) * grid.chunk_size] = own
            entries.append(_ENTRY.pack(part.offset, part.nbytes, part.trailer))
        head = _HEAD.pack(
            _MAGIC, grid.directory_nbytes - 8, _TAG, grid.n_chunks, grid.chunk_size, self.content_nbytes
        )
        directory = head + b"".join(entries)
        check: int = google_crc32c.value(directory)
        return directory + check.to_bytes(4, "little") + pack_index(table)


def merged(
    grid: Grid, shards: Mapping[int, bytes], before: tuple[MergedObject, bytes] | None = None
) -> list[bytes]:
    """The bytes of an object with these shards, by their place; with ``before`` they are appended to that object.

    The shards must be whole (:func:`is_whole`).
    """
    parts = dict(before[0].parts) if before is not None else {}
    pieces = [] if before is None else [before[1][: before[0].content_nbytes]]
    position = sum(map(len, pieces))
    end = index_nbytes(grid.chunk_size)
    for place, shard in sorted(shards.items()):
        nbytes = len(shard) - end - END_NBYTES
        index = parse_index(shard[-end:], grid.chunk_size, nbytes + END_NBYTES)
        parts[place] = Part(position, nbytes, shard[nbytes : nbytes + END_NBYTES], index)
        pieces.append(shard[:nbytes])
        position += nbytes
    return [*pieces, MergedObject(grid, parts, position)._tail()]


def is_whole(shard: bytes, geometry: Geometry) -> bool:
    """Whether a stored shard is as it was received, by its checksums."""
    slots = geometry.chunk_size

    def fetch(offset: int, nbytes: int) -> bytes:
        return shard[offset : offset + nbytes]

    try:
        trailer = trailer_of(fetch, len(shard), "the shard", geometry.dtype, slots)
        layout = ShardLayout.fetch(fetch, len(shard), trailer.stamps.dims, geometry.dtype, slots)
    except ShardError:
        return False
    if trailer.stamps.dims[1:] != (geometry.height, geometry.width):
        return False
    nbytes = len(shard) - index_nbytes(slots) - END_NBYTES
    crc = google_crc32c.value(shard[:nbytes])
    return bool(google_crc32c.extend(crc, pack_index(layout.index)) == trailer.crc32c)
