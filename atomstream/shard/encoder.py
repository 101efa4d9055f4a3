"""Chunks become shards: runs of compressed frames, put together with their index, checksum and digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from atomstream.records import Chunk, Frames, Piece, Shard, ShardInfo
from atomstream.shard.checksum import Crc32c, crc32c_of
from atomstream.shard.format import DTYPES, dtype_name, lay_out, pack_index, pack_meta, slice_bound
from atomstream.shard.zstd import FrameCompressor
from atomstream.system.scheduling import CoopYield


@dataclass(frozen=True, slots=True)
class EncodedSlice:
    """Compressed frames one after the other: their bytes with the sum, each one's length and content checksum."""

    piece: Piece
    sum: Crc32c
    lengths: tuple[int, ...]
    checksums: tuple[bytes, ...]

    @classmethod
    def pack(cls, bodies: Iterable[bytes], memory: memoryview) -> EncodedSlice:
        """Copy ``bodies`` to the start of ``memory``, which must have room for them.

        Between two of them the core is left now and then: an event loop that woke up with the encoders on its core
        was held until the timer's tick, for up to 4.6 ms (1.9 to 2.6 so, measured with 1024x1024).
        """
        at, crc, lengths, checksums, coop = 0, 0, [], [], CoopYield()
        for body in bodies:
            coop.yield_if_due()
            memory[at : at + len(body)] = body
            # Between two frames, for it holds the GIL: over a whole shard at once others would wait for long.
            crc = google_crc32c.extend(crc, body)
            at += len(body)
            lengths.append(len(body))
            # The last four bytes of a zstd frame with a checksum are xxh64 of its content (RFC 8878, 3.1.1).
            checksums.append(body[-4:])
        return cls(memory[:at], Crc32c(crc, at), tuple(lengths), tuple(checksums))


class ShardEncoder:
    """Turns chunks into shards. Holds zstd contexts: use one encoder a thread.

    ``level`` is zstd's (see :mod:`atomstream.shard.zstd`). Each inner frame carries its content checksum; the
    N checksums make the digest.
    """

    def __init__(self, level: int = 1) -> None:
        self._compressor = FrameCompressor(level)

    def encode(self, chunk: Chunk, *, with_meta: bool = True) -> Shard:
        """Encode ``chunk`` at once; ``with_meta`` False leaves out what the hosted service does not know."""
        n, *_ = chunk.frames.shape
        memory = np.empty(slice_bound(n, chunk.frames.nbytes // n), dtype=np.uint8)
        return assemble(chunk, [self.compress(chunk.frames, memory.data)], with_meta=with_meta)

    def compress(self, frames: Frames, memory: memoryview) -> EncodedSlice:
        """The inner chunks of some frames, which are read in place, one at a time, with the GIL released.

        ``memory`` has :func:`slice_bound` bytes; as many as the frames need are touched.
        """
        return EncodedSlice.pack(self._compressor.compress(frame_views(little_endian(frames))), memory)

    def digest(self, frames: Frames) -> bytes:
        """The digest that a shard of ``frames`` (N, H, W) has, whatever their strides; holds one frame at a time."""
        n, *_ = frames.shape
        ends = [self._compressor.checksum(frame_bytes(frames[k])) for k in range(n)]
        return _digest(frames, ends)


def assemble(chunk: Chunk, runs: Sequence[EncodedSlice], *, with_meta: bool = True) -> Shard:
    """The shard of ``chunk`` from the runs of its compressed frames, in their order."""
    head = [pack_meta(chunk.meta)] if with_meta and chunk.meta else []
    lengths = [length for run in runs for length in run.lengths]
    index = pack_index(lay_out(sum(map(len, head)), lengths))
    pieces: tuple[Piece, ...] = (*head, *(run.piece for run in runs), index)
    total = reduce(Crc32c.then, (_sum_of(head), *(run.sum for run in runs), _sum_of([index])))
    n, height, width = chunk.frames.shape
    info = ShardInfo(
        data_id=chunk.data_id,
        index=chunk.index,
        dims=(n, height, width),
        dtype=dtype_name(chunk.frames),
        timestamp=chunk.timestamp,
        nbytes=total.nbytes,
        crc32c=total.crc32c,
        digest=_digest(chunk.frames, [end for run in runs for end in run.checksums]),
    )
    return Shard(info, pieces)


def frame_bytes(frame: npt.NDArray[Any]) -> memoryview:
    """One frame (H, W) as flat little-endian bytes; copied only where its layout asks for it."""
    flat = np.ascontiguousarray(frame, dtype=DTYPES[dtype_name(frame)])
    return memoryview(flat.data).cast("B")


def little_endian(frames: Frames) -> Frames:
    """``frames`` as the shard's ``bytes`` codec wants them; no copy on nearly every machine."""
    return frames.astype(DTYPES[dtype_name(frames)], copy=False)


def frame_views(frames: Frames) -> list[memoryview]:
    """One flat byte view for each frame of a C-contiguous (N, H, W) array."""
    size = frames.nbytes // len(frames)
    whole = memoryview(frames.data).cast("B")
    return [whole[k * size : (k + 1) * size] for k in range(len(frames))]


def _sum_of(pieces: Sequence[Piece]) -> Crc32c:
    return Crc32c(crc32c_of(pieces), sum(map(len, pieces)))


def _digest(frames: Frames, checksums: Sequence[bytes]) -> bytes:
    # Of the frames' content checksums, so it depends on the frames alone and costs no second pass over them.
    about = f"{frames.shape}{frames.dtype.itemsize}".encode()
    return hashlib.blake2b(about + b"".join(checksums), digest_size=16).digest()
