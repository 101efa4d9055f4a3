"""Requests in which a user says something of a stream: events and regions."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from aiohttp import web

from atomstream.config import MAX_RPM
from atomstream.errors import ConfigError
from atomstream.server.bodies import read_json
from atomstream.server.live.plain import column_name
from atomstream.server.replies import RefusedError, json_reply
from atomstream.server.routes.ids import UuidText
from atomstream.server.routes.live_results import desk_of

MAX_REGIONS = 64
Kind = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
UnixMs = Annotated[float, msgspec.Meta(ge=0.0, le=253402300799999.0)]


class NewEvent(msgspec.Struct, frozen=True):
    """The body that marks an event."""

    label: Annotated[str, msgspec.Meta(max_length=200)] = ""
    kind: Kind = "note"
    time_ms_utc: UnixMs | None = None
    value: float | None = None
    id: UuidText | None = None


class BoxBody(msgspec.Struct, frozen=True, tag_field="type", tag="box"):
    """A box: centre and size in px."""

    name: str
    x: float
    y: float
    width: float
    height: float
    tracked: bool = False


class LineBody(msgspec.Struct, frozen=True, tag_field="type", tag="line"):
    """A line from (x0, y0) to (x1, y1), averaged over ``width`` px."""

    name: str
    x0: float
    y0: float
    x1: float
    y1: float
    width: float = 1.0


class RegionsBody(msgspec.Struct, frozen=True):
    """The body that replaces the regions."""

    regions: Annotated[list[BoxBody | LineBody], msgspec.Meta(max_length=MAX_REGIONS)]


async def list_events(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/events``: the user's and the analysis', by time."""
    desk = await desk_of(request)
    events = [*desk.store.events, *desk.inputs.events(desk.archive.origin_unix_ms)]
    return json_reply(sorted(events, key=lambda event: event["time_ms_utc"] or 0.0))


async def mark_event(request: web.Request) -> web.Response:
    """``POST /rheed/stream/{data_id}/events``."""
    desk, wanted = await desk_of(request), await read_json(request, NewEvent)
    if wanted.kind == "rotation" and not (wanted.value is not None and 0.0 <= wanted.value <= MAX_RPM):
        raise RefusedError(400, f"A change of rotation has its rpm as `value`, from 0 to {MAX_RPM:g}.")
    if wanted.value is not None and not math.isfinite(wanted.value):
        raise RefusedError(400, "The value of an event must be a finite number.")
    event = await desk.mark(wanted.kind, wanted.label, wanted.time_ms_utc, wanted.value, wanted.id)
    return json_reply(event)


async def get_regions(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/regions``."""
    desk = await desk_of(request)
    regions = desk.inputs.last("regions", [])
    boxes = [region["name"] for region in regions if region["type"] == "box"]
    return json_reply(
        {
            "regions": regions,
            "found": desk.found,
            "columns": {name: column_name(f"region:{name}") for name in boxes},
            "progress": desk.feed.progress,
        }
    )


async def put_regions(request: web.Request) -> web.Response:
    """``PUT /rheed/stream/{data_id}/regions``: replaces them all."""
    desk, wanted = await desk_of(request), await read_json(request, RegionsBody)
    plain: list[dict[str, Any]] = [msgspec.to_builtins(region) for region in wanted.regions]
    try:
        await desk.set_regions(plain)
    except ConfigError as error:
        raise RefusedError(400, f"{error}. Nothing was changed.") from None
    return await get_regions(request)
