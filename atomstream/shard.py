"""Chunk <-> bytes of a Zarr v3 shard; pure, and used by both ends.

A shard is the outer chunk (N, H, W) of a ``sharding_indexed`` array whose inner chunks are single frames
(1, H, W), coded ``bytes`` (little endian) then ``zstd``; the index of N pairs (offset, nbytes), uint64
little endian, and its CRC-32C stand at the end. Per-frame times, ids and angles travel in front, in a zstd
skippable frame of msgpack, which every Zarr reader passes over because it goes by the index.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import google_crc32c
import msgpack
import numpy as np
import numpy.typing as npt
import zstandard

from atomstream.compressors import FrameCompressor
from atomstream.errors import ShardError
from atomstream.records import Chunk, FrameMeta, Frames, Piece, Shard

Buffer: TypeAlias = bytes | bytearray | memoryview | mmap.mmap
Fetch: TypeAlias = Callable[[int, int], Buffer]
"""(offset, nbytes) -> those bytes of a shard that is not in memory, such as a file's."""
Dims: TypeAlias = tuple[int, int, int]
DtypeName: TypeAlias = Literal["uint8", "uint16"]
Index: TypeAlias = npt.NDArray[np.uint64]
"""Shape (N, 2): offset and nbytes of each inner chunk; ``ABSENT`` twice where there is none."""

ABSENT: Final = 2**64 - 1
ENTRY_BYTES: Final = 16
CRC_BYTES: Final = 4
META_MAGIC: Final = 0x184D2A5A
"""One of the sixteen skippable-frame magics of RFC 8878, section 3.1.2."""
_META_HEAD = struct.Struct("<II")
_META_BYTES_PER_FRAME: Final = 64
_WINDOW_LIMIT: Final = 1 << 27
_CRC_STEP: Final = 1 << 20
"""Bytes between two chances for other threads: the checksum holds the GIL, 0.1 ms a MiB."""
_DTYPES: Final[dict[str, np.dtype[Any]]] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2")}


def index_nbytes(n_frames: int) -> int:
    """Bytes of the index of a shard of ``n_frames``, its checksum included."""
    return n_frames * ENTRY_BYTES + CRC_BYTES


def frame_nbytes(dims: Dims, dtype: DtypeName) -> int:
    """Decoded bytes of one frame."""
    return dims[1] * dims[2] * _DTYPES[dtype].itemsize


def encoded_bound(n_frames: int, nbytes_per_frame: int) -> int:
    """The most bytes that a shard of so many frames can have (ZSTD_COMPRESSBOUND and the frame's ends)."""
    beside = n_frames * (ENTRY_BYTES + _META_BYTES_PER_FRAME) + CRC_BYTES + 1024
    return run_bound(n_frames, nbytes_per_frame) + beside


@dataclass(frozen=True, slots=True)
class Run:
    """Compressed frames one after the other: their bytes, each one's length, each one's content checksum."""

    piece: Piece
    lengths: tuple[int, ...]
    checksums: tuple[bytes, ...]

    @classmethod
    def pack(cls, bodies: Iterable[bytes], memory: memoryview) -> Run:
        """Copy ``bodies`` to the start of ``memory``, which must have room for them."""
        at, lengths, checksums = 0, [], []
        for body in bodies:
            memory[at : at + len(body)] = body
            at += len(body)
            lengths.append(len(body))
            # The last four bytes of a zstd frame with a checksum are xxh64 of its content (RFC 8878, 3.1.1).
            checksums.append(body[-4:])
        return cls(memory[:at], tuple(lengths), tuple(checksums))


class ShardEncoder:
    """Turns chunks into shards. Holds zstd contexts: use one encoder a thread.

    ``level`` is zstd's (see :mod:`atomstream.compressors`). Each inner frame carries its content checksum; the
    N checksums make the digest.
    """

    def __init__(self, level: int = 1) -> None:
        self._compressor = FrameCompressor(level)

    def encode(self, chunk: Chunk, *, with_meta: bool = True) -> Shard:
        """Encode ``chunk`` at once; ``with_meta`` False leaves out what the hosted service does not know."""
        n, *_ = chunk.frames.shape
        memory = np.empty(run_bound(n, chunk.frames.nbytes // n), dtype=np.uint8)
        return assemble(chunk, [self.compress(chunk.frames, memory.data)], with_meta=with_meta)

    def compress(self, frames: Frames, memory: memoryview) -> Run:
        """The inner chunks of some frames, which are read in place, one at a time, with the GIL released.

        ``memory`` has :func:`run_bound` bytes; as many as the frames need are touched.
        """
        return Run.pack(self._compressor.compress(frame_views(little_endian(frames))), memory)

    def digest(self, frames: Frames) -> bytes:
        """The digest that a shard of ``frames`` (N, H, W) has, whatever their strides; holds one frame at a time."""
        n, *_ = frames.shape
        ends = [self._compressor.checksum(frame_bytes(frames[k])) for k in range(n)]
        return _digest(frames, ends)


def run_bound(n_frames: int, nbytes_per_frame: int) -> int:
    """The most bytes that a run of so many frames can have (ZSTD_COMPRESSBOUND)."""
    return n_frames * (nbytes_per_frame + (nbytes_per_frame >> 8) + 1024)


def assemble(chunk: Chunk, runs: Sequence[Run], *, with_meta: bool = True) -> Shard:
    """The shard of ``chunk`` from the runs of its compressed frames, in their order."""
    head = [pack_meta(chunk.meta)] if with_meta and chunk.meta else []
    lengths = [length for run in runs for length in run.lengths]
    index = pack_index(_lay_out(sum(map(len, head)), lengths))
    pieces: tuple[Piece, ...] = (*head, *(run.piece for run in runs), index)
    n, height, width = chunk.frames.shape
    return Shard(
        data_id=chunk.data_id,
        index=chunk.index,
        pieces=pieces,
        nbytes=sum(map(len, pieces)),
        crc32c=crc32c_of(pieces),
        dims=(n, height, width),
        dtype=dtype_name(chunk.frames),
        stamp=chunk.stamp,
        digest=_digest(chunk.frames, [end for run in runs for end in run.checksums]),
        raw_nbytes=chunk.frames.nbytes,
    )


def frame_bytes(frame: npt.NDArray[Any]) -> memoryview:
    """One frame (H, W) as flat little-endian bytes; copied only where its layout asks for it."""
    flat = np.ascontiguousarray(frame, dtype=_DTYPES[dtype_name(frame)])
    return memoryview(flat.data).cast("B")


def dtype_name(frames: npt.NDArray[Any]) -> DtypeName:
    """``"uint8"`` or ``"uint16"``."""
    return "uint8" if frames.dtype.itemsize == 1 else "uint16"


def little_endian(frames: Frames) -> Frames:
    """``frames`` as the shard's ``bytes`` codec wants them; no copy on nearly every machine."""
    return frames.astype(_DTYPES[dtype_name(frames)], copy=False)


def frame_views(frames: Frames) -> list[memoryview]:
    """One flat byte view for each frame of a C-contiguous (N, H, W) array."""
    size = frames.nbytes // len(frames)
    whole = memoryview(frames.data).cast("B")
    return [whole[k * size : (k + 1) * size] for k in range(len(frames))]


def _lay_out(start: int, lengths: Sequence[int]) -> Index:
    sizes = np.array(lengths, dtype=np.uint64)
    ends = np.cumsum(sizes, dtype=np.uint64) + np.uint64(start)
    return np.stack([ends - sizes, sizes], axis=1)


def _digest(frames: Frames, checksums: Sequence[bytes]) -> bytes:
    # Of the frames' content checksums, so it depends on the frames alone and costs no second pass over them.
    about = f"{frames.shape}{frames.dtype.itemsize}".encode()
    return hashlib.blake2b(about + b"".join(checksums), digest_size=16).digest()


def crc32c_of(pieces: Iterable[Piece]) -> int:
    """The CRC-32C of the pieces' bytes joined."""
    crc = 0
    for piece in pieces:
        for part in cut(piece, _CRC_STEP):
            # It takes bytes and arrays, but no memoryview.
            crc = google_crc32c.extend(
                crc, part if isinstance(part, bytes) else np.frombuffer(part, dtype=np.uint8)
            )
    return crc


def cut(piece: Piece, nbytes: int) -> Iterator[Piece]:
    """The piece itself, or views of its parts of at most ``nbytes``."""
    if len(piece) <= nbytes:
        yield piece
        return
    view = memoryview(piece)
    for at in range(0, len(view), nbytes):
        yield view[at : at + nbytes]


def pack_index(index: Index) -> bytes:
    """The index's bytes and their CRC-32C, as they end a shard."""
    table = np.ascontiguousarray(index, dtype="<u8").tobytes()
    return table + struct.pack("<I", google_crc32c.value(table))


def pad_index(index: Index, chunk_size: int) -> Index:
    """``index`` with absent entries up to ``chunk_size``, as a regular Zarr array wants each shard's."""
    padded = np.full((chunk_size, 2), ABSENT, dtype=np.uint64)
    padded[: len(index)] = index
    return padded


def parse_index(tail: Buffer, n_frames: int, body_nbytes: int) -> Index:
    """Read and check the index of a shard.

    ``tail`` is the last ``index_nbytes(n_frames)`` bytes; ``body_nbytes`` counts the bytes before them.

    Raises:
        ShardError: wrong length or checksum, or an entry that points outside of the shard's body.
    """
    raw = bytes(tail)
    if len(raw) != index_nbytes(n_frames):
        raise ShardError(f"The shard is too short for an index of {n_frames} frames.")
    table, (stated,) = raw[:-CRC_BYTES], struct.unpack("<I", raw[-CRC_BYTES:])
    if google_crc32c.value(table) != stated:
        raise ShardError(f"The index of the shard ({n_frames} frames) does not match its CRC-32C.")
    index = np.frombuffer(table, dtype="<u8").reshape(n_frames, 2).astype(np.uint64)
    _check_bounds(index, body_nbytes)
    return index


def _check_bounds(index: Index, body_nbytes: int) -> None:
    absent = index == ABSENT
    if (absent[:, 0] != absent[:, 1]).any():
        raise ShardError("An index entry of the shard is half absent.")
    offset, nbytes = index[~absent[:, 0]].T
    limit = np.uint64(body_nbytes)
    # Compared without adding, for offset + nbytes may wrap around.
    if (
        (offset > limit) | (nbytes > limit) | (nbytes > limit - np.minimum(offset, limit)) | (nbytes == 0)
    ).any():
        raise ShardError("An index entry of the shard points outside of it.")


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
    if size > 1024 + n_frames * _META_BYTES_PER_FRAME or _META_HEAD.size + size > body_nbytes:
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
    frames: Frames = np.zeros(dims, dtype=_DTYPES[dtype])
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
        yield k, np.frombuffer(raw, dtype=_DTYPES[layout.dtype]).reshape(layout.dims[1:])


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
