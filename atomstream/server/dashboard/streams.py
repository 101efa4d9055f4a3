"""``GET /dashboard/streams/{id}``: what a stream's page shows beside the results: what it is, backlog, clock, disk."""

from __future__ import annotations

import asyncio
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
from atomstream.server.http.responses import json_reply
from atomstream.server.routes.analysis import views_why
from atomstream.server.streams.signals import ChunkStored, StatusChanged

# How the chunks of each stream come in: how late, how fast, and when the disk will be full at that rate.

KEPT = 64

RECENT_S = 60.0

SILENT_S = 30.0
"""A stream of which nothing comes for so long fills no disk."""


@dataclass(frozen=True, slots=True)
class ChunkArrival:
    """One chunk: when it was stored (monotonic s), how long after its last frame (s), its frames and bytes."""

    at_s: float
    late_s: float
    n_frames: int
    nbytes: int
    clock_offset_ms: float | None
    clock_uncertainty_ms: float | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """The recent past of a stream. Rates are over the time between chunks, None until there are two.

    ``late_s`` is how long after its last frame's exposure the newest chunk was stored; ``late_growth`` by how
    many seconds that grew each second: above 0 the link carries less than the camera makes.
    """

    late_s: float
    late_growth: float | None
    frames_per_s: float | None
    bytes_per_s: float | None
    silent_s: float
    clock_offset_ms: float | None
    clock_uncertainty_ms: float | None


class Arrivals:
    """Notes chunks as they are stored; knows nothing from before the server's start."""

    def __init__(
        self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._of: defaultdict[str, deque[ChunkArrival]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._coming: set[str] = set()
        self._stopped: set[str] = set()

    async def note(self, stored: ChunkStored) -> None:
        """Listen to :attr:`Events.chunk_stored`. A repeat tells nothing new."""
        if stored.committed.repeated:
            return
        ticket = stored.ticket
        if ticket.data_id not in self._stopped:
            self._coming.add(ticket.data_id)
        self._of[ticket.data_id].append(
            ChunkArrival(
                at_s=self._monotonic(),
                late_s=self._wall() - ticket.end_unix_ms / 1000.0,
                n_frames=stored.committed.n_frames,
                nbytes=stored.committed.nbytes,
                clock_offset_ms=ticket.clock_offset_ms,
                clock_uncertainty_ms=ticket.clock_uncertainty_ms,
            )
        )

    async def follow(self, changed: StatusChanged) -> None:
        """Listen to :attr:`Events.status_changed`: of a stream that is not active nothing is expected."""
        if changed.status == "stream_active":
            self._stopped.discard(changed.data_id)
        else:  # a late chunk of an ended stream may still come, and is told of after that
            self._stopped.add(changed.data_id)
            self._coming.discard(changed.data_id)

    def bytes_per_s(self) -> float:
        """What all streams that are coming in write to the disk lately, taken together."""
        paces = {data_id: self.pace(data_id) for data_id in self._coming}
        self._coming = {data_id for data_id, pace in paces.items() if pace and pace.silent_s <= SILENT_S}
        return sum(pace.bytes_per_s or 0.0 for k, pace in paces.items() if pace and k in self._coming)

    def pace(self, data_id: str) -> Throughput | None:
        """How a stream has come in lately; None where nothing came since the server's start."""
        if data_id not in self._of:
            return None
        now, newest = self._monotonic(), self._of[data_id][-1]
        recent = [one for one in self._of[data_id] if newest.at_s - one.at_s <= RECENT_S]
        took_s = newest.at_s - recent[0].at_s
        later, known = recent[1:], took_s > 0
        return Throughput(
            late_s=newest.late_s,
            late_growth=(newest.late_s - recent[0].late_s) / took_s if known else None,
            frames_per_s=sum(one.n_frames for one in later) / took_s if known else None,
            bytes_per_s=sum(one.nbytes for one in later) / took_s if known else None,
            silent_s=now - newest.at_s,
            clock_offset_ms=newest.clock_offset_ms,
            clock_uncertainty_ms=newest.clock_uncertainty_ms,
        )


ARRIVALS = web.AppKey("dashboard_arrivals", Arrivals)

MAX_RANGES = 20


async def stream_info(request: web.Request) -> web.Response:
    """The stream, its chunks, and how they come in; times in s, ``server_unix_ms`` for the reader's clock."""
    house, data_id = context_of(request), request.match_info["data_id"]
    archive, about = await house.streams.archive(data_id), await house.streams.about(data_id)
    stored = await asyncio.to_thread(_stored, archive)
    arrivals = request.app[ARRIVALS]
    return json_reply(
        {
            **_described(about),
            **stored,
            "pace": arrivals.pace(data_id),
            "views_why": views_why(await house.live.desk(data_id)),
            "disk_full_in_s": _full_in_s(stored["disk_free_bytes"], arrivals.bytes_per_s()),
            "server_unix_ms": time.time() * 1000.0,
        }
    )


def _described(about: StreamMetadata) -> dict[str, Any]:
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
    }


def _stored(archive: StreamArchive) -> dict[str, Any]:
    chunks, gone = archive.chunks(), archive.missing_ranges()
    return {
        "n_frames": archive.n_frames(),
        "frames_stored": sum(chunks.values()),
        "chunks_stored": len(chunks),
        "chunks_missing": sum(last - first + 1 for first, last in gone),
        "missing": [f"{first}-{last}" if last > first else str(first) for first, last in gone[:MAX_RANGES]],
        "lost": str(archive.about.get("lost") or ""),
        "zarr_path": str(archive.folder / "frames.zarr"),
        "disk_free_bytes": shutil.disk_usage(archive.folder).free,
    }


def _full_in_s(free: int, bytes_per_s: float) -> float | None:
    return free / bytes_per_s if bytes_per_s else None
