"""Requests for results: status of the analysis, time series and azimuths in the protocol's form, the waterfall."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from aiohttp import web

from atomstream.index_ranges import IndexSet
from atomstream.protocol import (
    ANALYSIS_PATH,
    AZIMUTH_PATH,
    AZIMUTHS_PATH,
    PROFILES_PATH,
    REANALYSE_PATH,
    TIMESERIES_PATH,
)
from atomstream.results import unit_of
from atomstream.server.context import results_of
from atomstream.server.http.access import Access, access
from atomstream.server.http.requests import number, read_json
from atomstream.server.http.responses import HttpError, json_reply, refuse
from atomstream.server.live.stream_results import StreamResults
from atomstream.server.live.timeseries import SeriesQuery, azimuths, series_by_angle
from atomstream.server.live.view_tracks import why_no_views

routes = web.RouteTableDef()

MAX_LAST_N = 10_000_000


class AzimuthChange(msgspec.Struct, frozen=True):
    """The body that changes a view. Fields that are left out stay unchanged."""

    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    label: Annotated[str, msgspec.Meta(max_length=256)] | msgspec.UnsetType | None = msgspec.UNSET


@routes.get(TIMESERIES_PATH)
@access(Access.BROWSER)
async def timeseries(request: web.Request) -> web.Response:
    """``GET /rheed/timeseries/{data_id}/``."""
    results, query = await results_of(request), read_query(request)
    about, labels = results.about, results.inputs.labels()

    def encoded() -> bytes:
        series = series_by_angle(results.store, query, about.rotations_per_min, about.azimuth_label, labels)
        return msgspec.json.encode({"series_by_angle": series})

    return json_body(await asyncio.to_thread(encoded))


def json_body(body: bytes) -> web.Response:
    """A reply whose JSON is already encoded."""
    reply = json_reply(None)
    reply.body = body
    return reply


def read_query(request: web.Request) -> SeriesQuery:
    """The query parameters of a time series; raises HttpError 400 for invalid numbers."""
    query = request.query
    last_n = number(query.get("last_n"), "last_n", 1, MAX_LAST_N)
    names = [name for value in query.getall("property_names", ()) for name in value.split(",") if name]
    return SeriesQuery(
        last_n=None if last_n is None else int(last_n),
        elapsed_s=number(query.get("elapsed_seconds"), "elapsed_seconds", 0.0, 1e9),
        properties=tuple(names),
        low_level=query.get("include_low_level_features", "").lower() in {"1", "true", "yes"},
    )


@routes.get(AZIMUTHS_PATH)
@access(Access.BROWSER)
async def list_azimuths(request: web.Request) -> web.Response:
    """``GET /rheed/{data_id}/azimuths``."""
    results = await results_of(request)
    about = results.about
    views = await asyncio.to_thread(
        azimuths,
        results.store,
        about.data_id,
        about.rotations_per_min,
        about.azimuth_label,
        results.inputs.labels(),
    )
    return json_reply(views)


@routes.patch(AZIMUTH_PATH)
@access(Access.BROWSER)
async def change_azimuth(request: web.Request) -> web.Response:
    """``PATCH /rheed/{data_id}/azimuths/{view_id}``: change its label, or whether the time series contain it."""
    results, wanted = await results_of(request), await read_json(request, AzimuthChange)
    view_id, about = request.match_info["view_id"], results.about

    def views() -> dict[str, Any]:
        listed = azimuths(
            results.store,
            about.data_id,
            about.rotations_per_min,
            about.azimuth_label,
            results.inputs.labels(),
        )
        return {view["view_id"]: view for view in listed}

    if view_id not in await asyncio.to_thread(views):
        raise HttpError(404, f"Stream {about.data_id} has no view {view_id[:64]!r}.")
    changes = {
        name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not msgspec.UNSET
    }
    await results.say({"what": "azimuth", "view_id": view_id, "said": changes})
    return json_reply((await asyncio.to_thread(views))[view_id])


@routes.get(ANALYSIS_PATH)
@access(Access.BROWSER)
async def analysis(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/analysis``: status of the analysis."""
    return json_reply(await analysis_status(await results_of(request)))


@routes.post(REANALYSE_PATH)
@access(Access.BROWSER)
async def reanalyse(request: web.Request) -> web.Response:
    """``POST /rheed/stream/{data_id}/reanalyse``: analyse a finished stream again."""
    results = await results_of(request)
    if not results.archive.stored():
        return refuse(409, "No chunk of this stream is stored yet, so there is nothing to analyse.")
    if not results.reanalyse():
        return refuse(409, "This stream is being analysed; try again when the analysis has ended.")
    return json_reply(await analysis_status(results), status=202)


async def analysis_status(results: StreamResults) -> dict[str, Any]:
    """The reply to ``GET .../analysis``."""
    store, about, archive, origin = (
        results.store,
        results.about,
        results.archive,
        results.archive.origin_unix_ms,
    )
    geometry = archive.geometry
    columns = await asyncio.to_thread(archive.results.names)
    events = [*store.events, *results.inputs.events(origin)]
    return {
        "data_id": about.data_id,
        "status": results.status,
        "why": "" if archive.stored() else "no chunk is stored yet",
        "seq": results.feed.seq,
        "origin_unix_ms": origin,
        "fps": about.fps,
        "rpm": about.rotations_per_min,
        "chunk_size": geometry.chunk_size if geometry else None,
        "height": geometry.height if geometry else None,
        "width": geometry.width if geometry else None,
        "dtype": geometry.dtype if geometry else None,
        "frames_stored": archive.n_frames(),
        "frames_analysed": store.analysed,
        "backlog_chunks": results.backlog,
        "progress": results.feed.progress,
        "reanalysis": results.reanalysis_pending,
        "missing": missing_chunks(results),
        "newest_unix_ms": store.made_unix_ms,
        **store.newest,
        "views_why": views_why(results),
        "events": sorted(events, key=lambda event: event["time_ms_utc"] or 0.0),
        "columns": {name: unit_of(name) for name in columns},
        "regions": results.inputs.last("regions", []),
        "calibration": results.inputs.last("calibration", {}),
    }


def views_why(results: StreamResults) -> str:
    """The reason why a rotating sample has no views; empty if it has some or does not rotate."""
    store, about = results.store, results.about
    refined = store.newest["values"].get("rotation_rpm", {}).get("value")
    rpm = about.rotations_per_min if refined is None else refined
    return why_no_views(about.fps, rpm, store.analysed, len(store.newest["views"]))


def missing_chunks(results: StreamResults) -> list[dict[str, Any]]:
    """Stored chunks that are missing in the results, by reason: ``[{"why", "chunks": "3-4, 7", "count"}]``."""
    why: dict[str, IndexSet] = {}
    for index, reason in sorted(results.missing.items()):
        why.setdefault(reason, IndexSet()).add(index)
    return [{"why": reason, "chunks": str(indices), "count": len(indices)} for reason, indices in why.items()]


@routes.get(PROFILES_PATH)
@access(Access.BROWSER)
async def profiles(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/profiles``: the waterfall of a line, as float32 rows."""
    results, line = await results_of(request), request.query.get("line", "streaks")
    waterfall = results.store.waterfalls.get(line)
    rows = await asyncio.to_thread(waterfall.rows) if waterfall is not None else None
    if waterfall is None or rows is None or not len(rows):
        raise HttpError(404, f"There is no profile of a line {line[:64]!r} yet.")
    headers = {
        "Atomstream-Rows": str(rows.shape[0]),
        "Atomstream-Columns": str(rows.shape[1]),
        "Atomstream-Start-S": repr(waterfall.start_s),
        "Atomstream-Step-S": repr(waterfall.step_s),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    body = rows.astype("<f4").tobytes()
    return web.Response(body=body, headers=headers, content_type="application/octet-stream")
