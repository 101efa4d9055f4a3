"""``GET /dashboard/streams/{id}``: what a stream's page shows beside the results: what it is, backlog, clock, disk."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import Any

import msgspec
from aiohttp import web

from atomstream.server.about import StreamAbout
from atomstream.server.archive import StreamArchive
from atomstream.server.dashboard.arrivals import Arrivals
from atomstream.server.house import house_of
from atomstream.server.replies import json_reply
from atomstream.server.routes.live_results import views_why

ARRIVALS = web.AppKey("dashboard_arrivals", Arrivals)
MAX_RANGES = 20


async def stream_info(request: web.Request) -> web.Response:
    """The stream, its chunks, and how they come in; times in s, ``server_unix_ms`` for the reader's clock."""
    house, data_id = house_of(request), request.match_info["data_id"]
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


def _described(about: StreamAbout) -> dict[str, Any]:
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
