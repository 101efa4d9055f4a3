"""``GET /dashboard/streams/{id}``: metadata, throughput, clock offset and disk forecast of a stream's page."""

from __future__ import annotations

import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of
from atomstream.server.dashboard.problems import stream_problems
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import json_reply
from atomstream.server.people.rights import Right
from atomstream.server.streams.signals import ChunkStored, StatusChanged

routes = web.RouteTableDef()

# Throughput of each stream: latency, rates, and when the disk will be full.

KEPT = 64
"""Number of recent chunks that are kept for each stream."""

RECENT_S = 60.0
"""Rates are averaged over at most this many seconds."""

SILENT_S = 30.0
"""A stream without a new chunk for this long is left out of the disk forecast."""


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


class Arrivals:
    """Records stored chunks since the server's start and computes each stream's throughput."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
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


ARRIVALS = web.AppKey("dashboard_arrivals", Arrivals)

MAX_RANGES = 20
"""At most this many ranges of missing chunks are listed."""


@routes.get("/dashboard/streams/{data_id}")
@access(Right.READ)
async def stream_info(request: web.Request) -> web.Response:
    """Metadata, stored chunks and throughput as JSON. Times in s; ``server_unix_ms`` is the server's clock."""
    context, data_id = context_of(request), request.match_info["data_id"]
    archive, about = await context.streams.archive(data_id), await context.streams.about(data_id)
    stored = await context.readers.facts.run(request, _stored, archive)
    arrivals, all_projects = request.app[ARRIVALS], principal_of(request).projects is None
    written = arrivals.bytes_per_s()  # of all streams: it would show that others run
    return json_reply(
        {
            **_description(about),
            **stored,
            "throughput": arrivals.throughput(data_id),
            "problems": [*filter(None, [context.disk.problem()]), *stream_problems(context, data_id)],
            "views_why": (await context.results.of(data_id)).why_no_views(),
            "disk_full_in_s": _full_in_s(stored["disk_free_bytes"], written) if all_projects else None,
            "right": principal_of(request).right.text,
            "server_unix_ms": time.time() * 1000.0,
        }
    )


def _description(about: StreamMetadata) -> dict[str, Any]:
    return {
        "data_id": about.data_id,
        "name": about.name,
        "status": about.status,
        "fps": about.fps,
        "rpm": about.rotations_per_min,
        "azimuth_label": about.azimuth_label,
        "made": about.made,
        "sample": about.sample.name if about.sample else None,
        "project": about.project.name if about.project else None,
        "tags": [tag.name for tag in about.tags],
        "geometry": msgspec.to_builtins(about.geometry) if about.geometry else None,
        "thinning": msgspec.to_builtins(about.thinning) if about.thinning else None,
    }


def _stored(archive: StreamArchive) -> dict[str, Any]:
    missing = archive.missing_ranges()
    return {
        "n_frames": archive.n_frames(),
        "frames_stored": archive.frames_stored(),
        "chunks_stored": len(archive.stored()),
        "chunks_missing": sum(last - first + 1 for first, last in missing),
        "missing": [
            f"{first}-{last}" if last > first else str(first) for first, last in missing[:MAX_RANGES]
        ],
        "lost": str(archive.about.get("lost") or ""),
        "zarr_path": str(archive.folder / "frames.zarr"),
        "disk_free_bytes": shutil.disk_usage(archive.folder).free,
    }


def _full_in_s(free: int, bytes_per_s: float) -> float | None:
    return free / bytes_per_s if bytes_per_s else None
