"""What travels through atomstream: plain, frozen values with no behaviour of their own.

A camera's arrays become a :class:`Chunk`; the encoder turns it into a :class:`Shard`; the server answers
with a :class:`Receipt`; what could not be delivered is a :class:`Loss`. Each has one owner at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

Frames: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Frames of shape (N, H, W)."""

Piece: TypeAlias = bytes | memoryview
"""A contiguous part of a shard; shards travel as pieces so that nothing joins 40 MB."""

ChunkState: TypeAlias = Literal["pending", "stored", "quarantined", "dropped", "purged"]
"""What became of an accepted chunk; each is in exactly one state (promise P9)."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """What a stream is, fixed when it is created.

    ``fps`` is in frames a second, ``rpm`` in rotations a minute (0: stationary), ``chunk_size`` in frames.
    """

    data_id: str
    fps: float
    rpm: float
    chunk_size: int
    name: str = ""
    announced: bool = False
    """Whether the server said ``Atomstream: 1``: only then frame times, uint16 and losses are sent."""

    @property
    def is_rotating(self) -> bool:
        """Whether the substrate rotates, which decides how the stream is classified."""
        return self.rpm != 0.0


@dataclass(frozen=True, slots=True)
class Timestamp:
    """When a chunk's first frame was captured, in reference UTC milliseconds.

    ``clock_offset_ms`` is None for a stamp that the caller gave (it is sent as given) and where no
    reference clock was measured; else it has already been added to ``start_ms``.
    """

    start_ms: float
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FrameMeta:
    """What is known of each single frame of a chunk; every field is None or has N entries.

    ``times_ms`` are UTC milliseconds, ``ids`` the camera's counter, ``angles_deg`` the manipulator's angle.
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
    """The server's word that a chunk is stored; ``crc32c`` is its checksum of the body, where it gave one."""

    data_id: str
    index: int
    nbytes: int
    crc32c: int | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A chunk index that will not be delivered, and why."""

    index: int
    reason: str


class StreamReport(TypedDict):
    """What :meth:`finalize` returns: the truth about what arrived.

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
    drained: bool
    closed: bool
    lost: list[tuple[int, str]]


class ClockStatus(TypedDict):
    """How this host's clock stands to the server's: add ``offset_ms`` to host UTC to get reference UTC."""

    offset_ms: float
    uncertainty_ms: float
    measured_at_unix_ms: float


Json: TypeAlias = dict[str, Any] | list[Any] | str | float | int | bool | None
