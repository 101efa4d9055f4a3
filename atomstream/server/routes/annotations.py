"""Requests about the user's annotations of a stream: events, regions and the calibration."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from atomstream.arguments import check_calibration, check_event
from atomstream.errors import ConfigError
from atomstream.mark_words import kind_of
from atomstream.protocol import (
    CALIBRATION_PATH,
    EVENT_KIND_PATTERN,
    EVENT_PATH,
    EVENTS_PATH,
    MAX_LABEL_CHARS,
    MAX_TIME_MS,
    MAX_UNIT_CHARS,
    REGIONS_PATH,
)
from atomstream.server.context import results_of
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.requests import UuidText, number, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.live.annotation_records import (
    CalibrationRecord,
    EventChangeEntry,
    EventState,
    NewMark,
    RegionRecord,
)
from atomstream.server.live.event_history import (
    CONTENT,
    EventChanges,
    EventConflictError,
    EventMissingError,
    as_event,
)
from atomstream.server.people.rights import Right
from atomstream.server.routes.analysis import THINNED

routes = web.RouteTableDef()

MAX_REGIONS = 64

Kind = Annotated[str, msgspec.Meta(pattern=f"^{EVENT_KIND_PATTERN}$")]

UnixMs = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_TIME_MS)]


Label = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARS)]

Unit = Annotated[str, msgspec.Meta(max_length=MAX_UNIT_CHARS)]


class NewEvent(msgspec.Struct, frozen=True):
    """The body that adds an event; ``time_ms_utc`` None means now. With an ``id`` a repeat has no effect.

    ``kind`` None: it follows from the words of ``label``. ``unit`` is that of ``value``.
    """

    label: Label = ""
    kind: Kind | None = None
    time_ms_utc: UnixMs | None = None
    value: float | None = None
    unit: Unit = ""
    id: UuidText | None = None


class CorrectedEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that corrects an event. What is absent stays; ``version`` is the one that is corrected.

    ``kind`` null: it follows from the words of the label. ``deleted`` false brings a deleted event back.
    """

    version: Annotated[int, msgspec.Meta(ge=1)]
    label: Label | UnsetType = UNSET
    kind: Kind | UnsetType | None = UNSET
    time_ms_utc: UnixMs | UnsetType = UNSET
    value: float | UnsetType | None = UNSET
    unit: Unit | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET


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
    kind = wanted.kind or kind_of(wanted.label)
    _check(kind, wanted.label, wanted.value)
    try:
        mark = NewMark(kind, wanted.label, wanted.time_ms_utc, wanted.value, wanted.unit, wanted.id)
        event = await results.mark(mark)
    except ConfigError as error:
        raise HttpError(409, str(error)) from None
    if results.mark_history(event.id)[-1].deleted:
        raise HttpError(410, f"The mark {event.label!r} was set, and was deleted since.")
    return json_reply(event)


def _check(kind: str, label: str, value: float | None) -> None:
    try:
        check_event(kind, label, value)
    except ConfigError as error:
        raise HttpError(400, f"{error} Nothing was changed.") from None


@routes.get(EVENT_PATH)
@access(Right.READ)
async def event_history(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/events/{event_id}``: an event of the user, and all that it was before."""
    results, event_id = await results_of(request), request.match_info["event_id"]
    history = results.mark_history(event_id)
    if not history:
        raise _no_event(event_id)
    return json_reply(_event_report(history, results.origin_unix_ms))


def _event_report(history: list[EventState], origin_ms: float | None) -> dict[str, Any]:
    newest = history[-1]
    versions = [
        {
            **msgspec.to_builtins(as_event(one, origin_ms)),
            "deleted": one.deleted,
            "changed_unix_ms": one.changed_unix_ms if isinstance(one, EventChangeEntry) else None,
        }
        for one in history
    ]
    return {"event": as_event(newest, origin_ms), "deleted": newest.deleted, "history": versions}


@routes.patch(EVENT_PATH)
@access(Right.WRITE)
async def correct_event(request: web.Request) -> web.Response:
    """``PATCH /rheed/stream/{data_id}/events/{event_id}``: correct an event; 409 if ``version`` is not the newest."""
    wanted = await read_json(request, CorrectedEvent)
    given = {name: getattr(wanted, name) for name in wanted.__struct_fields__ if name != "version"}
    return await _corrected(request, wanted.version, given)


@routes.delete(EVENT_PATH)
@access(Right.WRITE)
async def delete_event(request: web.Request) -> web.Response:
    """``DELETE /rheed/stream/{data_id}/events/{event_id}?version=N``: the log keeps it; 409 if N is not the newest."""
    version = number(request.query.get("version"), "version", 1, 1 << 53)
    if version is None:
        raise HttpError(400, "Give the version of the mark that is to be deleted, as ?version=N.")
    return await _corrected(request, int(version), {"deleted": True})


async def _corrected(request: web.Request, version: int, given: dict[str, Any]) -> web.Response:
    results, data_id = await results_of(request), request.match_info["data_id"]
    event_id = request.match_info["event_id"]
    history = results.mark_history(event_id)
    if not history:
        raise _no_event(event_id)
    before, label = history[-1], given.get("label", UNSET)
    if given.get("kind", UNSET) is None:
        given["kind"] = kind_of(before.label if label is UNSET else label)
    changes = EventChanges(**given)
    after = changes.applied_to(before)
    _check(after.kind, after.label, after.value)
    if before.deleted and changes.deleted is UNSET:
        raise HttpError(
            410,
            f"The mark {before.label!r} was deleted meanwhile. Nothing was changed; set it again if it is needed.",
        )
    try:
        state = await results.correct_mark(event_id, version, changes)
    except EventMissingError:
        raise _no_event(event_id) from None
    except EventConflictError as conflict:
        raise HttpError(409, _conflict(conflict.current)) from None
    except ConfigError as error:
        raise HttpError(409, str(error)) from None
    if state is not before:
        await audit(request, _done(before, state), data_id)
    return json_reply(_event_report(results.mark_history(event_id), results.origin_unix_ms))


def _no_event(event_id: str) -> HttpError:
    return HttpError(
        404, f"The stream has no mark {event_id[:64]!r} of a user; those of the analysis can't be corrected."
    )


def _conflict(current: EventState) -> str:
    if current.deleted:
        return f"The mark {current.label!r} was deleted meanwhile by somebody else. Nothing was changed."
    value = "" if current.value is None else f", value {current.value:g} {current.unit}".rstrip()
    return (
        f"Somebody else has changed this mark meanwhile: it is now {current.label!r} ({current.kind}{value}). Nothing "
        f"was changed. To replace that by your own, correct version {current.version}."
    )


def _done(before: EventState, after: EventState) -> str:
    if after.deleted != before.deleted:
        return f"{'deleted' if after.deleted else 'restored'} the mark {before.label!r}"
    changed = [
        f"{name} from {getattr(before, name)!r} to {getattr(after, name)!r}"
        for name in CONTENT
        if getattr(before, name) != getattr(after, name)
    ]
    return f"changed the mark {before.label!r}: {', '.join(changed)}"


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
    try:
        await results.calibrate(calibration)
    except ConfigError as error:
        raise HttpError(409, f"{error}. Nothing was changed.") from None
    return json_reply(calibration)
