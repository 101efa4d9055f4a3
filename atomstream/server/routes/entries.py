"""Requests that look for streams."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from aiohttp import web
from multidict import MultiMapping

from atomstream.server.entries import EntryFilter
from atomstream.server.house import house_of
from atomstream.server.models import moment
from atomstream.server.replies import RefusedError, json_reply
from atomstream.server.streams import checked_id, unknown_stream

Query = MultiMapping[str]


async def list_entries(request: web.Request) -> web.Response:
    """``GET /data_entries/`` with any of the protocol's filters."""
    return json_reply(await house_of(request).entries.search(read_filter(request.query)))


def read_filter(query: Query) -> EntryFilter:
    """The filter that a query string means; parameters of the hosted service that mean nothing here are passed over.

    Raises:
        RefusedError: 400, a number or moment that is none.
    """
    return EntryFilter(
        keywords=_texts(query, "keywords"),
        data_ids=_ids(query, "data_ids"),
        sample_ids=_ids(query, "physical_sample_ids"),
        project_ids=_ids(query, "project_ids"),
        data_types=_texts(query, "data_type"),
        statuses=tuple(status for status in _texts(query, "status") if status != "all"),
        growth_length=(_number(query, "growth_length_min"), _number(query, "growth_length_max")),
        uploaded=(_moment(query, "upload_datetime_min"), _moment(query, "upload_datetime_max")),
        updated=(_moment(query, "last_updated_min"), _moment(query, "last_updated_max")),
    )


def _texts(query: Query, name: str) -> tuple[str, ...]:
    return tuple(filter(None, (value.strip() for value in query.getall(name, ()))))


def _ids(query: Query, name: str) -> tuple[str, ...]:
    return tuple(value.lower() for value in _texts(query, name))


def _number(query: Query, name: str) -> float | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise RefusedError(400, f"{name} must be a number of seconds; {text[:64]!r} is none.")
    return number


def _moment(query: Query, name: str) -> str | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return moment(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise RefusedError(400, f"{name} must be a moment in ISO 8601; {text[:64]!r} is none.") from None


async def single_frames(request: web.Request) -> web.Response:
    """``GET /data_entries/video_single_frames/{data_id}``: streams have no single frames taken out."""
    data_id = checked_id(request.match_info["data_id"])
    if not await house_of(request).entries.known([data_id]):
        raise unknown_stream(data_id)
    return json_reply({"frames": []})


async def no_image(request: web.Request) -> web.Response:
    """``GET /rheed/images/{data_id}/frames/{n}``: there are none, see :func:`single_frames`."""
    raise RefusedError(404, f"Stream {request.match_info['data_id'][:64]!r} has no single images here.")
