"""Further reading of the hosted service's client: changepoints, series, steps and places of a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from aiohttp import web

from atomstream.protocol import CHANGEPOINTS_PATH, SAMPLE_PLACES_PATH, SAMPLE_SERIES_PATH, SAMPLE_STEPS_PATH
from atomstream.results import Event
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.catalogue.database import Sample
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.live.messages import AngleSeries
from atomstream.server.live.timeseries import MAX_POINTS, PROPERTIES, SeriesQuery
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

MAX_STREAMS: Final = 100
"""Streams of one reply."""
CHANGES: Final = frozenset({"change", "growth_stopped", "growth_began", "rate_changed", "fractional_order"})
"""Events of the analysis that are changes of the sample. Others are about the picture: its light, gaps, rotation."""


@routes.get(CHANGEPOINTS_PATH)
@access(Right.READ, browser=False)
async def changepoints(request: web.Request) -> web.Response:
    """``GET /changepoints/?data_ids=...``: changes of the sample that the analysis has found.

    Streams that are not visible are left out. Only the newest analysis is stored, whatever ``latest_only`` says.
    """
    wanted = tuple(dict.fromkeys(text.lower() for text in request.query.getall("data_ids", ()) if text))
    if not wanted or len(wanted) > MAX_STREAMS:
        raise HttpError(
            400, f"data_ids must be given once to {MAX_STREAMS} times; it is given {len(wanted)} times."
        )
    found = []
    for data_id in await _visible_streams(request, EntryFilter(data_ids=wanted)):
        results = await context_of(request).results.of(data_id)
        found += [_changepoint(data_id, event) for event in results.events() if is_change(event)]
    return json_reply({"changepoints": found})


def is_change(event: Event) -> bool:
    """Whether an event is a change of the sample that the analysis has found."""
    return event.by == "analysis" and event.kind in CHANGES and event.time_s is not None


def _changepoint(data_id: str, event: Event) -> dict[str, Any]:
    return {
        "id": event.id or f"{data_id}:{event.kind}:{event.time_s}",
        "data_id": data_id,
        "data_modality": "rheed",
        "property_name": event.kind,
        "severity": "critical",
        "score": event.value,
        "window_start_elapsed": event.time_s,
        "window_end_elapsed": event.time_s,
        "detection_method": "intensity_profile",
        "detail": event.label,
        "label_category": event.kind,
    }


@routes.get(SAMPLE_SERIES_PATH)
@access(Right.READ, browser=False)
async def sample_series(request: web.Request) -> web.Response:
    """``GET /physical_samples/{sample_id}/timeseries/``: results of all streams of a sample, on one time axis.

    There are at most 20,000 points of a property, shared out over the streams, of which the newest 100 are read.
    """
    context, sample_id = context_of(request), await _visible_sample(request)
    names = tuple(dict.fromkeys(name for name in request.query.getall("property_names", ()) if name))
    streams = await _visible_streams(request, EntryFilter(sample_ids=(sample_id,), limit=MAX_STREAMS))
    query = SeriesQuery(properties=names, most=max(1, MAX_POINTS // max(1, len(streams))))
    readers = {data_id: (await context.results.of(data_id)).series_reader(query) for data_id in streams}
    return await context.readers.series.run(
        request, lambda: json_reply({"properties": _properties(readers, names or PROPERTIES)})
    )


@routes.get(SAMPLE_STEPS_PATH)
@access(Right.READ, browser=False)
async def process_steps(request: web.Request) -> web.Response:
    """``GET /physical_samples/{sample_id}/process_steps``: none: this server divides no sample into steps."""
    await _visible_sample(request)
    return json_reply({"steps": []})


@routes.get(SAMPLE_PLACES_PATH)
@access(Right.READ, browser=False)
async def spatial_annotations(request: web.Request) -> web.Response:
    """``GET /physical_samples/{sample_id}/annotations/``: none, because RHEED measures no places of a sample."""
    await _visible_sample(request)
    return json_reply([])


async def _visible_sample(request: web.Request) -> str:
    """Return the id of the sample in the path; raises HttpError 404 if it is not known, or not visible."""
    context, sample_id = context_of(request), request.match_info["sample_id"].lower()
    known = await context.catalogue.find(Sample, [sample_id])
    if not known or not await context.catalogue.sees_sample(sample_id, principal_of(request).projects):
        raise HttpError(404, f"No physical sample {sample_id[:64]!r} is known here.")
    return sample_id


def _properties(
    readers: dict[str, Callable[[], list[AngleSeries]]], names: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Return the values of each property that has any, by their time. Blocks."""
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    sources: dict[str, list[str]] = {name: [] for name in names}
    for data_id, read in readers.items():
        check_wanted()
        for series in read():
            for point in series.series:
                at = point["unix_timestamp_ms"]
                for name in names:
                    value = point.get(name)
                    if isinstance(value, int | float) and isinstance(at, int | float):
                        points[name].append((at / 1000.0, value))
                        if sources[name][-1:] != [data_id]:
                            sources[name].append(data_id)
    first = min((time for found in points.values() for time, _ in found), default=0.0)
    return [
        {
            "property_name": name,
            "unix_times": [time for time, _ in found],
            "real_time_seconds": [time - first for time, _ in found],
            "property_values": [value for _, value in found],
            "constituent_data_ids": sources[name],
            "result_id": None,
            "last_updated": None,
            "generating_dbos_workflow_id": None,
        }
        for name, found in ((name, sorted(found)) for name, found in points.items())
        if found
    ]


async def _visible_streams(request: web.Request, wanted: EntryFilter) -> list[str]:
    """Return the ids of the streams of frames that match, as far as they are visible, newest first."""

    context = context_of(request)
    find = await context.streams_table.search(replace(wanted, visible=principal_of(request).projects))
    entries = await context.readers.facts.run(request, find)
    return [str(entry["data_id"]) for entry in entries]
