"""Requests about the user's annotations of a stream: events, regions and the calibration."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from atomstream.arguments import check_calibration, check_event
from atomstream.errors import ConfigError
from atomstream.protocol import (
    CALIBRATION_PATH,
    EVENT_KIND_PATTERN,
    EVENTS_PATH,
    MAX_LABEL_CHARS,
    MAX_TIME_MS,
    REGIONS_PATH,
)
from atomstream.server.context import results_of
from atomstream.server.http.access import access
from atomstream.server.http.requests import UuidText, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.live.annotation_records import CalibrationRecord, RegionRecord
from atomstream.server.people.rights import Right
from atomstream.server.routes.analysis import THINNED

routes = web.RouteTableDef()

MAX_REGIONS = 64

Kind = Annotated[str, msgspec.Meta(pattern=f"^{EVENT_KIND_PATTERN}$")]

UnixMs = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_TIME_MS)]


class NewEvent(msgspec.Struct, frozen=True):
    """The body that adds an event; ``time_ms_utc`` None means now. With an ``id`` a repeat has no effect."""

    label: Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARS)] = ""
    kind: Kind = "note"
    time_ms_utc: UnixMs | None = None
    value: float | None = None
    id: UuidText | None = None


class RegionsBody(msgspec.Struct, frozen=True):
    """The body that replaces all regions."""

    regions: Annotated[list[RegionRecord], msgspec.Meta(max_length=MAX_REGIONS)]


@routes.get(EVENTS_PATH)
@access(Right.READ)
async def list_events(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/events``: those of the user and of the analysis, by time."""
    return json_reply((await results_of(request)).events())


@routes.post(EVENTS_PATH)
@access(Right.WRITE)
async def mark_event(request: web.Request) -> web.Response:
    """``POST /rheed/stream/{data_id}/events``."""
    results, wanted = await results_of(request), await read_json(request, NewEvent)
    try:
        check_event(wanted.kind, wanted.label, wanted.value)
    except ConfigError as error:
        raise HttpError(400, f"{error} Nothing was changed.") from None
    try:
        event = await results.mark(wanted.kind, wanted.label, wanted.time_ms_utc, wanted.value, wanted.id)
    except ConfigError as error:
        raise HttpError(409, str(error)) from None
    return json_reply(event)


@routes.get(REGIONS_PATH)
@access(Right.READ)
async def get_regions(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/regions``."""
    return json_reply((await results_of(request)).regions())


@routes.put(REGIONS_PATH)
@access(Right.WRITE)
async def put_regions(request: web.Request) -> web.Response:
    """``PUT /rheed/stream/{data_id}/regions``: replace all regions."""
    results, wanted = await results_of(request), await read_json(request, RegionsBody)
    try:
        await results.set_regions(wanted.regions)
    except ConfigError as error:
        raise HttpError(400, f"{error}. Nothing was changed.") from None
    return json_reply(results.regions())


# The calibration of a stream, set when the stream is created or later.


class CalibrationBody(CalibrationRecord, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body that replaces the calibration. A field that is left out is unknown."""

    def checked(self) -> CalibrationRecord:
        """The record of these values. Raises HttpError 400 for values outside of the limits."""
        try:
            check_calibration(msgspec.to_builtins(self))
        except ConfigError as error:
            raise HttpError(400, f"calibration: {error} Nothing was changed.") from None
        return CalibrationRecord(**msgspec.structs.asdict(self))


@routes.get(CALIBRATION_PATH)
@access(Right.READ)
async def get_calibration(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/calibration``."""
    return json_reply((await results_of(request)).calibration())


@routes.put(CALIBRATION_PATH)
@access(Right.WRITE)
async def put_calibration(request: web.Request) -> web.Response:
    """``PUT /rheed/stream/{data_id}/calibration``: valid from now on. A finished stream is analysed again with it."""
    results, wanted = await results_of(request), await read_json(request, CalibrationBody)
    calibration = wanted.checked()
    if results.is_thinned:
        raise HttpError(409, THINNED)
    await results.calibrate(calibration)
    return json_reply(calibration)
