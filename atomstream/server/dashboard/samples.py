"""``GET /dashboard/samples/{id}``: all streams of a sample, each with one result over time, for the sample's page."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from atomstream.growth_comparison import plain
from atomstream.results import UNITS
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.catalogue.database import Sample
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.context import context_of
from atomstream.server.dashboard.comparison import Source, read_track
from atomstream.server.dashboard.overviews import summaries_of
from atomstream.server.dashboard.series import READER, checked_names
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right
from atomstream.server.streams.registry import checked_id

routes = web.RouteTableDef()

MOST: Final = 60
"""Streams of a sample that are shown: the newest ones."""
POINTS: Final = 300
"""Points of one stream."""


@routes.get("/dashboard/samples/{sample_id}")
@access(Right.READ)
async def sample(request: web.Request) -> web.Response:
    """Query: ``name`` of a result. Each stream has ``begin_unix_ms`` and, from there, ``t`` in s and ``values``."""
    context, sample_id = context_of(request), checked_id(request.match_info["sample_id"].lower())
    (name,) = checked_names([request.query.get("name", "growth_rate_ml_s")])
    visible = principal_of(request).projects
    known = await context.catalogue.find(Sample, [sample_id])
    if not known or not await context.catalogue.sees_sample(sample_id, visible):
        raise HttpError(404, f"No physical sample {sample_id!r} is known here.")
    find = await context.streams_table.search(
        EntryFilter(sample_ids=(sample_id,), visible=visible, limit=MOST + 1)
    )
    entries: list[dict[str, Any]] = await context.readers.facts.run(request, find)
    shown = entries[:MOST]
    found = await summaries_of(request, tuple(entry["data_id"] for entry in shown)) if shown else {}
    sources: dict[str, tuple[Source, float | None]] = {}
    for entry in shown:
        data_id = entry["data_id"]
        try:
            archive = await context.streams.archive(data_id)
        except HttpError:  # it was deleted meanwhile, or is damaged
            continue
        source = Source(
            data_id, entry["raw_name"], archive.folder / "frames.zarr", archive.n_frames(), None, ""
        )
        sources[data_id] = (source, archive.origin_unix_ms)
    reader = request.app[READER]
    series = await context.readers.series.run(request, _series, reader, sources, name)
    streams = [
        {
            "data_id": entry["data_id"],
            "name": entry["raw_name"],
            "status": entry["pipeline_status"],
            "made": entry["upload_datetime"],
            "length_s": entry["growth_length"],
            "summary": found.get(entry["data_id"]),
            **series[entry["data_id"]],
        }
        for entry in shown
        if entry["data_id"] in series
    ]
    return json_reply(
        {
            "id": sample_id,
            "name": known[sample_id].name,
            "quantity": name,
            "unit": UNITS.get(name, ""),
            "more": len(entries) > MOST,
            "streams": streams,
        }
    )


def _series(
    reader: ColumnReader, sources: dict[str, tuple[Source, float | None]], name: str
) -> dict[str, dict[str, Any]]:
    found = {}
    for data_id, (source, begin) in sources.items():
        check_wanted()
        track = read_track(reader, source, name, "start", POINTS)
        found[data_id] = {
            "begin_unix_ms": begin,
            "t": plain(track.time_s, 9),
            "values": plain(track.values),
        }
    return found
