"""Requests for results: status of the analysis, time series and azimuths in the protocol's form, the waterfall."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
from aiohttp import web

from atomstream.errors import ConfigError
from atomstream.protocol import (
    ANALYSIS_PATH,
    AZIMUTH_PATH,
    AZIMUTHS_PATH,
    PROFILES_PATH,
    REANALYSE_PATH,
    TIMESERIES_PATH,
)
from atomstream.server.context import context_of, results_of
from atomstream.server.http.access import access
from atomstream.server.http.requests import number, read_json
from atomstream.server.http.responses import HttpError, json_reply, refuse
from atomstream.server.live.annotation_records import AzimuthChanges
from atomstream.server.live.messages import AzimuthView
from atomstream.server.live.stored_results import StoredResults
from atomstream.server.live.timeseries import SeriesQuery
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

THINNED: Final = (
    "Frames of this stream were removed by the rules of retention. Its results are kept as they are, because an "
    "analysis of the frames that are left would be worse."
)

MAX_LAST_N = 10_000_000


@routes.get(TIMESERIES_PATH)
@access(Right.READ)
async def timeseries(request: web.Request) -> web.Response:
    """``GET /rheed/timeseries/{data_id}/``."""
    results, query = await results_of(request), read_query(request)
    read = results.series_reader(query)
    return await context_of(request).readers.series.run(
        request, lambda: json_reply({"series_by_angle": read()})
    )


def read_query(request: web.Request) -> SeriesQuery:
    """The query parameters of a time series; raises HttpError 400 for invalid numbers."""
    query = request.query
    last_n = number(query.get("last_n"), "last_n", 1, MAX_LAST_N)
    given = [name for value in query.getall("property_names", ()) for name in value.split(",") if name]
    return SeriesQuery(
        last_n=None if last_n is None else int(last_n),
        elapsed_s=number(query.get("elapsed_seconds"), "elapsed_seconds", 0.0, 1e9),
        properties=tuple(dict.fromkeys(given)),
        low_level=query.get("include_low_level_features", "").lower() in {"1", "true", "yes"},
    )


@routes.get(AZIMUTHS_PATH)
@access(Right.READ)
async def list_azimuths(request: web.Request) -> web.Response:
    """``GET /rheed/{data_id}/azimuths``."""
    return json_reply(await (await results_of(request)).azimuths())


@routes.patch(AZIMUTH_PATH)
@access(Right.WRITE)
async def change_azimuth(request: web.Request) -> web.Response:
    """``PATCH /rheed/{data_id}/azimuths/{view_id}``: change its label, or whether the time series contain it."""
    results, wanted = await results_of(request), await read_json(request, AzimuthChanges)
    view_id = request.match_info["view_id"]
    if await _view(results, view_id) is None:
        raise HttpError(404, f"Stream {results.metadata.data_id} has no view {view_id[:64]!r}.")
    try:
        await results.label_azimuth(view_id, wanted)
    except ConfigError as error:
        raise HttpError(409, f"{error}. Nothing was changed.") from None
    return json_reply(await _view(results, view_id))


async def _view(results: StoredResults, view_id: str) -> AzimuthView | None:
    return next((view for view in await results.azimuths() if view.view_id == view_id), None)


@routes.get(ANALYSIS_PATH)
@access(Right.READ)
async def analysis(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/analysis``: status of the analysis."""
    return json_reply(await (await results_of(request)).status())


@routes.post(REANALYSE_PATH)
@access(Right.WRITE)
async def reanalyse(request: web.Request) -> web.Response:
    """``POST /rheed/stream/{data_id}/reanalyse``: analyse a finished stream again."""
    results = await results_of(request)
    if not results.has_frames:
        return refuse(409, "No chunk of this stream is stored yet, so there is nothing to analyse.")
    if results.is_thinned:
        return refuse(409, THINNED)
    if not results.reanalyse():
        return refuse(409, "This stream is being analysed; try again when the analysis has ended.")
    return json_reply(await results.status(), status=202)


@routes.get(PROFILES_PATH)
@access(Right.READ)
async def profiles(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/profiles``: the waterfall of a line, as float32 rows; none before the first."""
    results, line = await results_of(request), request.query.get("line", "streaks")
    waterfall = results.waterfall(line)
    if waterfall is None and line != "streaks" and all(line != one.name for one in results.regions().regions):
        raise HttpError(404, f"This stream has no line {line[:64]!r}.")
    rows = await asyncio.to_thread(waterfall.rows) if waterfall is not None else np.empty((0, 0))
    headers = {
        "Atomstream-Rows": str(rows.shape[0]),
        "Atomstream-Columns": str(rows.shape[1]),
        "Atomstream-Start-S": repr(waterfall.start_s if waterfall is not None else 0.0),
        "Atomstream-Step-S": repr(waterfall.step_s if waterfall is not None else 0.0),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    body = rows.astype("<f4").tobytes()
    return web.Response(body=body, headers=headers, content_type="application/octet-stream")
