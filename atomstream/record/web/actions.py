"""HTTP handlers of the capture page: list sources, and run the actions of the recorder. They check and convert the
request; the recorder does the work."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, Final, TypeVar

from aiohttp import web

from atomstream.cameras import CameraSettings, Region, Transforms
from atomstream.record.capture import CapturePlan
from atomstream.record.recorder import Recorder
from atomstream.record.recording import RecordingRequest
from atomstream.record.source_search import find_sources
from atomstream.record.web.sessions import RefusedError, json_reply, read_body

RECORDER: Final = web.AppKey("recorder", Recorder)

routes = web.RouteTableDef()

T = TypeVar("T", str, float)


@routes.get("/record/sources")
async def sources(request: web.Request) -> web.Response:
    """``GET /record/sources``: the sources on this computer. The search calls the camera drivers, which may take
    seconds."""
    found, not_searched = await find_sources()
    return json_reply({"sources": [one._asdict() for one in found], "not_searched": not_searched})


@routes.post("/record/source")
async def open_source(request: web.Request) -> web.Response:
    """``POST /record/source``: open a camera with its settings and changes of frames; replies when it runs."""
    await request.app[RECORDER].open_source(_plan(await read_body(request)))
    return json_reply({})


@routes.post("/record/start")
async def start(request: web.Request) -> web.Response:
    """``POST /record/start {"name", "sample", "rpm", "azimuth", "before_s"}``: begin to record."""
    body = await read_body(request)
    await request.app[RECORDER].record(
        RecordingRequest(
            name=_text(body, "name") or "",
            sample=_text(body, "sample"),
            rpm=_number(body, "rpm") or 0.0,
            azimuth=_text(body, "azimuth"),
            before_s=_number(body, "before_s") or 0.0,
        )
    )
    return json_reply({})


@routes.post("/record/pause")
async def pause(request: web.Request) -> web.Response:
    """``POST /record/pause``: leave frames out."""
    await request.app[RECORDER].pause()
    return json_reply({})


@routes.post("/record/resume")
async def go_on(request: web.Request) -> web.Response:
    """``POST /record/resume``: record frames again."""
    await request.app[RECORDER].go_on()
    return json_reply({})


@routes.post("/record/stop")
async def stop(request: web.Request) -> web.Response:
    """``POST /record/stop``: end the recording; it is then saved."""
    await request.app[RECORDER].stop()
    return json_reply({})


@routes.post("/record/marks")
async def mark(request: web.Request) -> web.Response:
    """``POST /record/marks {"label", "time_ms"}``: set a mark."""
    body = await read_body(request)
    made = await request.app[RECORDER].mark(_text(body, "label") or "", "", _number(body, "time_ms"))
    return json_reply({"label": made.label, "kind": made.kind, "time_ms": made.time_ms})


def _plan(body: dict[str, Any]) -> CapturePlan:
    source = _text(body, "source")
    if source is None:
        raise RefusedError(400, "Choose a source.")
    crop = body.get("crop")
    if crop is not None and not (
        isinstance(crop, list)
        and len(crop) == 4
        and all(isinstance(one, int) for one in crop)
        and min(crop[:2]) >= 0
        and min(crop[2:]) >= 1
    ):
        raise RefusedError(400, "crop is x, y, width and height in whole pixels, width and height above 0.")
    direction, mode = _text(body, "flip"), _text(body, "bin_mode") or "mean"
    if direction not in {None, "horizontal", "vertical"} or mode not in {"mean", "sum"}:
        raise RefusedError(400, "flip is horizontal or vertical, and bin_mode is mean or sum.")
    return CapturePlan(
        source,
        CameraSettings(
            exposure_ms=_number(body, "exposure_ms"), gain=_number(body, "gain"), fps=_number(body, "fps")
        ),
        Transforms(
            region=None if crop is None else Region(*crop),
            bin_factor=round(_number(body, "bin_factor") or 1.0),
            bin_mode="sum" if mode == "sum" else "mean",
            degrees=round(_number(body, "rotate") or 0.0),
            direction=None
            if direction is None
            else "horizontal"
            if direction == "horizontal"
            else "vertical",
        ),
    )


def _text(body: dict[str, Any], name: str) -> str | None:
    """A text of the request without blanks around it; None if it is missing or empty."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise RefusedError(400, f"{name} must be a string.")
    return (value or "").strip() or None


def _number(body: dict[str, Any], name: str) -> float | None:
    """A finite number of the request; None if it is missing."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, bool) and isinstance(value, (int, float)):
        with suppress(OverflowError):  # an integer of hundreds of digits
            if math.isfinite(value):
                return float(value)
    raise RefusedError(400, f"{name} must be a number.")
