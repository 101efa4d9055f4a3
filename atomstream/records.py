"""The data types of the client: frozen dataclasses without methods that change them.

A camera's frames are a :class:`Chunk`, which is encoded as a :class:`Shard`. The server confirms it with a
:class:`Receipt`. A chunk that could not be delivered is a :class:`Loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

Frames: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Frames of shape (N, H, W)."""

Piece: TypeAlias = bytes | memoryview
"""A contiguous part of a shard. Shards are lists of pieces, so that 40 MB need not be copied to join them."""

ChunkState: TypeAlias = Literal["pending", "stored", "quarantined", "dropped", "purged"]
"""State of an accepted chunk; each chunk is in exactly one state."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The parameters of a stream, which are set when it is created.

    ``fps`` is in frames per second, ``rpm`` in rotations per minute (0: stationary), ``chunk_size`` in frames.
    """

    data_id: str
    fps: float
    rpm: float
    chunk_size: int
    name: str = ""
    announced: bool = False
    """True for an atomstream server (it sends ``Atomstream: 1``). Others get no frame times, uint16 or losses."""
    kind: Literal["frames", "signals"] = "frames"
    """``signals``: the bytes of a chunk are the JSON text of points, not pixels (docs/decisions/0017-signals.md)."""

    @property
    def is_rotating(self) -> bool:
        """True if the substrate rotates; the upload states it."""
        return self.rpm != 0.0


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Capture time of a chunk's first frame, in UTC milliseconds of the reference clock.

    ``clock_offset_ms`` was added to ``start_ms``. It is None if the caller gave the time, which is sent unchanged,
    or if the reference clock was not measured.
    """

    start_ms: float
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """Data of the single frames of a chunk; each field is None or has N entries.

    ``times_ms`` are UTC milliseconds, ``ids`` the camera's frame counter, ``angles_deg`` the substrate's angle.
    """

    times_ms: tuple[float, ...] | None = None
    ids: tuple[int, ...] | None = None
    angles_deg: tuple[float, ...] | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.times_ms, self.ids, self.angles_deg))


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Consecutive frames of one stream: ``frames`` is C-contiguous (N, H, W), uint8 or uint16."""

    data_id: str
    index: int
    frames: Frames
    timestamp: Timestamp
    meta: FrameMeta = field(default_factory=FrameMeta)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardInfo:
    """The description of a shard, without its bytes.

    It is the same object for a shard in memory, a record in the spool and a pending upload.
    """

    data_id: str
    index: int
    dims: tuple[int, int, int]
    """(N, H, W): frames, rows and columns."""
    dtype: Literal["uint8", "uint16"]
    timestamp: Timestamp
    nbytes: int
    """Size of the encoded shard in bytes."""
    crc32c: int
    """CRC-32C of the encoded shard."""
    digest: bytes
    """Digest of the frames; it does not depend on the compression level."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return self.dims[0]

    @property
    def raw_nbytes(self) -> int:
        """Size of the decoded frames in bytes."""
        n_frames, height, width = self.dims
        return n_frames * height * width * (2 if self.dtype == "uint16" else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """One chunk encoded as a Zarr v3 shard; ``pieces`` joined are its bytes."""

    info: ShardInfo
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Confirmation that the server stored a chunk; ``crc32c`` is the server's checksum of the body, or None."""

    data_id: str
    index: int
    nbytes: int
    crc32c: int | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A chunk index that will not be delivered, and the reason."""

    index: int
    reason: str


class ChunkCounts(TypedDict):
    """Number of chunks of a stream in each state.

    ``chunks_spooled`` counts every accepted chunk; it equals ``chunks_uploaded + chunks_not_uploaded``, and
    ``chunks_not_uploaded`` equals ``chunks_failed + chunks_dropped + chunks_purged + chunks_pending``.
    """

    chunks_spooled: int
    chunks_uploaded: int
    chunks_dropped: int
    chunks_failed: int
    chunks_purged: int
    chunks_not_uploaded: int
    chunks_pending: int


class StreamReport(ChunkCounts):
    """The result of :meth:`finalize`: the number of chunks in each state, and which are lost."""

    drained: bool
    closed: bool
    lost: list[tuple[int, str]]


class ClockStatus(TypedDict):
    """Offset of the server's clock from this computer's: reference UTC = host UTC + ``offset_ms``."""

    offset_ms: float
    uncertainty_ms: float
    measured_at_unix_ms: float


Json: TypeAlias = dict[str, Any] | list[Any] | str | float | int | bool | None
