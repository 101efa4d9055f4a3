"""Free space for a recording, and how long it is enough at the present rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from atomstream.spool import SpoolStatus

RESERVE_S: Final = 6.0
"""A recording is stopped when the free space is enough for less than this time in s: the frames in memory must still
fit."""

RESERVE_BYTES: Final = 64 << 20
RESERVE_SHARE: Final = 0.1
"""Reserve: this number of bytes, or this share of the limit if that is less."""


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Room for records in bytes, by the limits and on the disk; ``disk_free_bytes`` is all that is free there."""

    room_bytes: int
    disk_free_bytes: int
    by_limit: bool
    """Whether the limit of the spool is reached before the disk is full."""
    limit_bytes: int
    """The limit of the spool."""

    def seconds_left(self, bytes_per_s: float) -> float | None:
        """How long the space is enough at this rate, in s; None without a rate."""
        return self.room_bytes / bytes_per_s if bytes_per_s > 0 else None

    def is_short(self, bytes_per_s: float) -> bool:
        """Whether a recording must be stopped now to save what it has."""
        reserve = min(RESERVE_BYTES, RESERVE_SHARE * self.limit_bytes)
        return self.room_bytes < reserve + RESERVE_S * bytes_per_s


def disk_space(status: SpoolStatus) -> DiskSpace:
    """The room that the status of a spool states."""
    below_limit = status["max_bytes"] - status["bytes"]
    on_disk = status["free_bytes"] - status["min_free_bytes"]
    return DiskSpace(
        room_bytes=max(0, min(below_limit, on_disk)),
        disk_free_bytes=max(0, status["free_bytes"]),
        by_limit=below_limit < on_disk,
        limit_bytes=status["max_bytes"],
    )
