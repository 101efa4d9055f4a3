"""How the handles (file descriptors) of the process are shared out between connections, open streams and the rest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

UNLIMITED: Final = 1 << 14
"""Number of handles to share out where the system states no limit, as on Windows."""
PER_STREAM: Final = 4
"""Handles of an open stream: two logs, each open for reading and for writing."""


@dataclass(frozen=True, slots=True)
class HandleShares:
    """Most connections and most open streams of a server."""

    connections: int
    streams: int

    @classmethod
    def of(cls, handles: int, wanted_connections: int, wanted_streams: int) -> HandleShares:
        """Share out ``handles``: at most 5/8 of them to connections, 1/4 to open streams; the archive has the rest."""
        streams = min(wanted_streams, max(1, handles // 4 // PER_STREAM))
        return cls(min(wanted_connections, max(1, handles * 5 // 8)), streams)


def available_handles() -> int:
    """How many handles this process may have."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return int(soft)
    return UNLIMITED
