"""``GET /dashboard/streams/{id}``: metadata, throughput, clock offset and disk forecast of a stream's page."""

from __future__ import annotations

import shutil
import time
from typing import Any

import msgspec
from aiohttp import web

from atomstream.server.archive.metadata import StreamMetadata
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of
from atomstream.server.dashboard.problems import stream_problems
from atomstream.server.dashboard.throughput import THROUGHPUT
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import json_reply
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

MAX_RANGES = 20
"""At most this many ranges of missing chunks are listed."""


@routes.get("/dashboard/streams/{data_id}")
@access(Right.READ)
async def stream_info(request: web.Request) -> web.Response:
    """Metadata, stored chunks and throughput as JSON. Times in s; ``server_unix_ms`` is the server's clock."""
    context, data_id = context_of(request), request.match_info["data_id"]
    archive, about = await context.streams.archive(data_id), await context.streams.about(data_id)
    stored = await context.readers.facts.run(request, _stored, archive)
    results = await context.results.of(data_id)
    arrivals, all_projects = request.app[THROUGHPUT], principal_of(request).projects is None
    written = arrivals.bytes_per_s()  # the sum over all streams: it reveals that other streams run
    return json_reply(
        {
            **_description(about),
            **stored,
            "throughput": arrivals.throughput(data_id),
            "problems": [*filter(None, [context.disk.problem()]), *stream_problems(context, data_id)],
            "views_why": results.why_no_views(),
            "alarms": context.alarms.raised(data_id),
            "analysis": await results.analysis_progress(),
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
