"""Throughput of each stream: latency, rates, and when the disk will be full."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from atomstream.server.streams.signals import ChunkStored, Followed, StatusChanged

KEPT = 64
"""Number of recent chunks that are kept for each stream."""

RECENT_S = 60.0
"""Rates are averaged over at most this many seconds."""

SILENT_S = 30.0
"""A stream without a new chunk for this long is left out of the disk forecast."""


OVERDUE_S = 5.0
"""A stream is silent without a new chunk for twice the usual time, and at least for this long."""


@dataclass(frozen=True, slots=True)
class ChunkArrival:
    """One stored chunk: time of storing (monotonic s), delay after its last frame (s), frames and bytes."""

    at_s: float
    late_s: float
    n_frames: int
    nbytes: int
    clock_offset_ms: float | None
    clock_uncertainty_ms: float | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Recent throughput of a stream. Rates need two chunks; they are None before.

    ``late_s``: seconds from the exposure of the newest chunk's last frame until it was stored. ``late_growth``:
    its change in seconds per second; above 0 the link is slower than the camera. ``silent_s``: seconds since the
    newest chunk.
    """

    late_s: float
    late_growth: float | None
    frames_per_s: float | None
    bytes_per_s: float | None
    silent_s: float
    clock_offset_ms: float | None
    clock_uncertainty_ms: float | None


class ThroughputMonitor:
    """Records stored chunks since the server's start and computes each stream's throughput.

    ``is_alone`` is False if other servers receive chunks of the same streams. This one receives only some of them.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        *,
        is_alone: bool = True,
    ) -> None:
        self._is_alone = is_alone
        self._monotonic = monotonic
        self._wall = wall
        self._by_stream: defaultdict[str, deque[ChunkArrival]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._active: set[str] = set()
        self._stopped: set[str] = set()

    async def on_chunk_stored(self, stored: ChunkStored) -> None:
        """Handle :attr:`ServerSignals.chunk_stored`. Repeated uploads are ignored."""
        if stored.committed.repeated:
            return
        ticket = stored.ticket
        if ticket.data_id not in self._stopped:
            self._active.add(ticket.data_id)
        self._by_stream[ticket.data_id].append(
            ChunkArrival(
                at_s=self._monotonic(),
                late_s=self._wall() - stored.committed.stamps.end_of_last_frame_ms() / 1000.0,
                n_frames=stored.committed.n_frames,
                nbytes=stored.committed.nbytes,
                clock_offset_ms=ticket.clock_offset_ms,
                clock_uncertainty_ms=ticket.clock_uncertainty_ms,
            )
        )

    async def on_status_changed(self, changed: StatusChanged) -> None:
        """Handle :attr:`ServerSignals.status_changed`: only active streams count for the disk forecast."""
        if changed.status == "stream_active":
            self._stopped.discard(changed.data_id)
        else:  # late chunks of an ended stream may still arrive; they do not count
            self._stopped.add(changed.data_id)
            self._active.discard(changed.data_id)

    async def on_followed(self, followed: Followed) -> None:
        """Handle :attr:`ServerSignals.followed`: what this server received of the stream gives no rate and no delay."""
        if followed.indices:
            self._by_stream.pop(followed.data_id, None)

    async def on_deleted(self, data_id: str) -> None:
        """Handle :attr:`ServerSignals.deleted`: drop the stream."""
        self._by_stream.pop(data_id, None)
        self._active.discard(data_id)
        self._stopped.discard(data_id)

    def silent(self) -> set[str]:
        """Ids of the streams whose next chunk is overdue, by the time between the newest two.

        None while other servers receive chunks, too: the next chunk may have come to one of them.
        """
        if not self._is_alone:
            return set()
        now, found = self._monotonic(), set()
        for data_id, arrived in self._by_stream.items():
            usual_s = arrived[-1].at_s - arrived[-2].at_s if len(arrived) > 1 else 0.0
            if data_id not in self._stopped and now - arrived[-1].at_s > max(OVERDUE_S, 2.0 * usual_s):
                found.add(data_id)
        return found

    def bytes_per_s(self) -> float:
        """Bytes written per second, summed over all active streams."""
        recent = {data_id: self.throughput(data_id) for data_id in self._active}
        self._active = {data_id for data_id, one in recent.items() if one and one.silent_s <= SILENT_S}
        return sum(one.bytes_per_s or 0.0 for k, one in recent.items() if one and k in self._active)

    def throughput(self, data_id: str) -> Throughput | None:
        """Recent throughput of a stream; None if no chunk was stored since the server's start."""
        if data_id not in self._by_stream:
            return None
        now, newest = self._monotonic(), self._by_stream[data_id][-1]
        recent = [one for one in self._by_stream[data_id] if newest.at_s - one.at_s <= RECENT_S]
        elapsed_s = newest.at_s - recent[0].at_s
        later, has_rate = recent[1:], elapsed_s > 0
        return Throughput(
            late_s=newest.late_s,
            late_growth=(newest.late_s - recent[0].late_s) / elapsed_s if has_rate else None,
            frames_per_s=sum(one.n_frames for one in later) / elapsed_s if has_rate else None,
            bytes_per_s=sum(one.nbytes for one in later) / elapsed_s if has_rate else None,
            silent_s=now - newest.at_s,
            clock_offset_ms=newest.clock_offset_ms,
            clock_uncertainty_ms=newest.clock_uncertainty_ms,
        )


THROUGHPUT = web.AppKey("dashboard_throughput", ThroughputMonitor)
