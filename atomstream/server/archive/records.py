"""Records of the archive: the claims of an upload, the result of a commit, a chunk's times, the geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from atomstream import protocol
from atomstream.errors import ShardError
from atomstream.frame_counter import frame_numbers
from atomstream.records import FrameMeta
from atomstream.shard import Dims, DtypeName, frame_nbytes


@dataclass(frozen=True, slots=True)
class UploadClaims:
    """What the client stated about a chunk in its request for an upload URL; the URL carries it, signed.

    ``dims`` is (N, H, W) of this chunk; times are UTC milliseconds, with the clock offset already added.
    """

    data_id: str
    index: int
    dims: Dims
    dtype: DtypeName
    chunk_size: int
    fps: float
    start_unix_ms: float
    end_unix_ms: float
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float | None = None

    def check(self) -> None:
        """Check the ranges of all values, before the body is read.

        Raises:
            ShardError: names the value that is out of range, and what is allowed.
        """
        n, height, width = self.dims
        self._within("index", self.index, 0, protocol.MAX_CHUNK_INDEX)
        self._within("chunk_size", self.chunk_size, 1, protocol.MAX_CHUNK_SIZE)
        self._within("number of frames", n, 1, self.chunk_size)
        self._within("frame height", height, 1, protocol.MAX_SHARD_BYTES)
        self._within("frame width", width, 1, protocol.MAX_SHARD_BYTES)
        if self.dtype not in ("uint8", "uint16"):
            raise ShardError(f"Chunk {self.index}: frames of {self.dtype!r}; allowed are uint8 and uint16.")
        raw = n * frame_nbytes(self.dims, self.dtype)
        self._within("size in bytes when decoded", raw, 1, protocol.MAX_SHARD_BYTES)
        self._within("fps", self.fps, protocol.MIN_FPS, protocol.MAX_FPS)
        for name in ("start_unix_ms", "end_unix_ms", "clock_offset_ms", "clock_uncertainty_ms"):
            if not math.isfinite(getattr(self, name) or 0.0):
                raise ShardError(f"Chunk {self.index}: its {name} is not a finite number.")

    def stamps(self, meta: FrameMeta) -> ChunkTimes:
        """The chunk's times as stored in the archive; ``meta`` is the per-frame data from its body."""
        offset, uncertainty = (
            None if value is None else float(value)
            for value in (self.clock_offset_ms, self.clock_uncertainty_ms)
        )
        times = float(self.fps), float(self.start_unix_ms), float(self.end_unix_ms)
        return ChunkTimes(self.dims, *times, offset, uncertainty, meta)

    def _within(self, what: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:  # False for NaN
            raise ShardError(f"Chunk {self.index}: its {what} is {value}; allowed is {low:g} .. {high:g}.")


@dataclass(frozen=True, slots=True)
class ChunkTimes:
    """Times and per-frame data of a stored chunk; ``dims`` is (N, H, W), times are UTC milliseconds."""

    dims: Dims
    fps: float
    start_unix_ms: float
    end_unix_ms: float
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float | None = None
    meta: FrameMeta = field(default_factory=FrameMeta)

    def times_unix_ms(self) -> npt.NDArray[np.float64]:
        """Capture time of each of the N frames: as sent by the client, else from ``start_unix_ms`` and ``fps``.

        In the second case the frame counter, if it is known, leaves room for the frames that the camera dropped.
        """
        if self.meta.times_ms is not None:
            return np.asarray(self.meta.times_ms, dtype=np.float64)
        ids = self.meta.ids
        number = np.arange(self.dims[0]) if ids is None else frame_numbers(ids, self.fps)
        return np.asarray(self.start_unix_ms + number * (1000.0 / self.fps), dtype=np.float64)

    def end_of_last_frame_ms(self) -> float:
        """When the last frame was complete, UTC ms. ``end_unix_ms`` is earlier if the camera dropped frames."""
        return float(self.times_unix_ms()[-1]) + 1000.0 / self.fps


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A chunk that is durable and readable; ``repeated`` if an equal one was stored before.

    ``known``: the earlier one was in the index already. A chunk that is repeated and not known was stored by an earlier
    attempt that failed after that, or by another server: it is new to the analysis here. ``nbytes`` and ``crc32c`` are
    those of the received body; ``stamps`` are the stored ones, for a repeat those of the first upload.
    """

    index: int
    n_frames: int
    nbytes: int
    crc32c: int
    repeated: bool
    stamps: ChunkTimes
    known: bool = False


@dataclass(frozen=True, slots=True)
class Geometry:
    """Chunk size, frame shape and dtype of a stream, set by its first stored chunk."""

    chunk_size: int
    height: int
    width: int
    dtype: DtypeName

    @property
    def is_possible(self) -> bool:
        """Whether a stream may have it: all values in the ranges of the protocol. False for values of other types."""
        sizes = (self.chunk_size, self.height, self.width)
        if any(type(size) is not int or size < 1 for size in sizes) or self.dtype not in ("uint8", "uint16"):
            return False
        frame = self.height * self.width * (2 if self.dtype == "uint16" else 1)
        return self.chunk_size <= protocol.MAX_CHUNK_SIZE and frame <= protocol.MAX_SHARD_BYTES

    @classmethod
    def of(cls, claims: UploadClaims) -> Geometry:
        """The geometry in an upload's claims."""
        return cls(claims.chunk_size, claims.dims[1], claims.dims[2], claims.dtype)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {self.dtype} in chunks of {self.chunk_size} frames"
