"""Requests about samples, tags and projects, and searches for streams."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web
from multidict import MultiMapping
from yarl import URL

from atomstream.protocol import (
    ENTRIES_PATH,
    PROJECT_SAMPLES_PATH,
    PROJECTS_PATH,
    SAMPLES_PATH,
    SINGLE_FRAMES_PATH,
    TAGS_PATH,
    TRACKING_PATH,
)
from atomstream.server.catalogue.catalogue import NameTakenError, TooManyNamesError
from atomstream.server.catalogue.database import Project, Sample, iso_now
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.context import ServerContext, context_of
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of, require_all_projects
from atomstream.server.http.path_prefix import prefix_of
from atomstream.server.http.requests import UuidText, checked_name, number, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right
from atomstream.server.signals.entries import matching, page, wants_signals
from atomstream.server.streams.registry import checked_id, unknown_stream

routes = web.RouteTableDef()


class NewName(msgspec.Struct, frozen=True):
    """The body that creates a sample or a tag."""

    name: str


class NewProject(msgspec.Struct, frozen=True):
    """The body that creates a project. With ``id`` a lab can use the id of another system."""

    name: str
    id: UuidText | None = None


class TrackingSample(msgspec.Struct, frozen=True):
    """The body that puts a sample into a project."""

    physical_sample_id: UuidText
    set_active: bool = True


@routes.get(SAMPLES_PATH)
@access(Right.READ)
async def list_samples(request: web.Request) -> web.Response:
    """``GET /physical_samples/``; with ``physical_sample_id`` only these."""
    samples = await context_of(request).catalogue.samples(principal_of(request).projects)
    wanted = _ids(request.query, "physical_sample_id")
    return json_reply([sample for sample in samples if not wanted or sample["id"] in wanted])


@routes.get(PROJECT_SAMPLES_PATH)
@access(Right.READ, browser=False)
async def list_project_samples(request: web.Request) -> web.Response:
    """``GET /projects/{project_id}/physical_samples``: the samples that are tracked in a project."""
    project_id = request.match_info["project_id"].lower()
    catalogue, principal = context_of(request).catalogue, principal_of(request)
    if not principal.sees(project_id) or not await catalogue.find(Project, [project_id]):
        raise unknown_project(project_id)
    samples = await catalogue.samples(principal.projects)
    return json_reply(
        [one for one in samples if any(project["id"] == project_id for project in one["projects"])]
    )


def unknown_project(project_id: str) -> HttpError:
    """The answer for a project that does not exist, or is not visible."""
    return HttpError(404, f"No project {project_id[:64]!r} is known here; GET /projects/ lists them.")


@routes.post(SAMPLES_PATH)
@access(Right.WRITE, browser=False)
async def create_sample(request: web.Request) -> web.Response:
    """``POST /physical_samples/``; 409 with the id of the existing sample if the name is taken.

    A sample of somebody who sees only some projects is put into these: otherwise it would not be visible to them. If
    it exists in other projects only, the answer is the same as for a new one.
    """
    name = checked_name((await read_json(request, NewName)).name, "sample")
    sample_id, known = await sample_named(context_of(request), principal_of(request).projects, name)
    if known:
        raise HttpError(409, {"physical_sample_id": sample_id})
    return json_reply({"id": sample_id})


async def sample_named(
    context: ServerContext, projects: frozenset[str] | None, name: str
) -> tuple[str, bool]:
    """The id of the sample with this name, which is made if there is none, and whether it was visible already.

    ``projects`` are those that the request sees, None: all.
    """
    catalogue = context.catalogue
    try:
        sample_id = await catalogue.add_sample(name)
    except TooManyNamesError as error:
        raise HttpError(403, str(error)) from None
    except NameTakenError as taken:
        sample_id = taken.existing_id
        if await catalogue.sees_sample(sample_id, projects):
            return sample_id, True
    for project_id in await catalogue.find(Project, sorted(projects or ())):
        await catalogue.track(project_id, sample_id, active=False)
    return sample_id, False


@routes.get(TAGS_PATH)
@access(Right.READ, browser=False)
async def list_tags(request: web.Request) -> web.Response:
    """``GET /tags/``."""
    return json_reply(await context_of(request).catalogue.tags(principal_of(request).projects))


@routes.post(TAGS_PATH)
@access(Right.WRITE, browser=False)
async def create_tag(request: web.Request) -> web.Response:
    """``POST /tags/``; 400 if the name is taken.

    For somebody who sees only some projects it is the same tag as that of others, as if it was new.
    """
    name = checked_name((await read_json(request, NewName)).name, "tag")
    catalogue, projects = context_of(request).catalogue, principal_of(request).projects
    try:
        return json_reply({"id": await catalogue.add_tag(name)})
    except TooManyNamesError as error:
        raise HttpError(403, str(error)) from None
    except NameTakenError as taken:
        if projects is not None and all(
            tag["id"] != taken.existing_id for tag in await catalogue.tags(projects)
        ):
            return json_reply({"id": taken.existing_id})
        raise HttpError(400, f"There is already a tag named {name!r}; GET /tags/ lists its id.") from None


@routes.get(PROJECTS_PATH)
@access(Right.READ)
async def list_projects(request: web.Request) -> web.Response:
    """``GET /projects/``."""
    return json_reply(await context_of(request).catalogue.projects(principal_of(request).projects))


@routes.post(PROJECTS_PATH)
@access(Right.WRITE, browser=False)
async def create_project(request: web.Request) -> web.Response:
    """``POST /projects/``; 409 with the id of the existing project if the name or the id is taken."""
    wanted = await read_json(request, NewProject)
    require_all_projects(request, "Only who sees all projects can make one")
    try:
        added = await context_of(request).catalogue.add_project(
            checked_name(wanted.name, "project"), wanted.id
        )
        return json_reply({"id": added})
    except TooManyNamesError as error:
        raise HttpError(403, str(error)) from None
    except NameTakenError as taken:
        raise HttpError(409, {"project_id": taken.existing_id}) from None


@routes.post(TRACKING_PATH)
@access(Right.WRITE, browser=False)
async def track_sample(request: web.Request) -> web.Response:
    """``POST /projects/{project_id}/configuration/tracking_samples``."""
    project_id = request.match_info["project_id"].lower()
    wanted = await read_json(request, TrackingSample)
    catalogue, principal = context_of(request).catalogue, principal_of(request)
    if not principal.sees(project_id) or not await catalogue.find(Project, [project_id]):
        raise unknown_project(project_id)
    sample_id = wanted.physical_sample_id.lower()
    known = await catalogue.find(Sample, [sample_id])
    if not known or not await catalogue.sees_sample(sample_id, principal.projects):
        raise HttpError(404, f"No physical sample {wanted.physical_sample_id!r} is known here.")
    await catalogue.track(project_id, sample_id, active=wanted.set_active)
    return json_reply({"project_id": project_id, "physical_sample_id": wanted.physical_sample_id})


# Searches for streams.

Query = MultiMapping[str]

MAX_KEYWORDS = 32
MAX_PAGE = 5000


@routes.get(ENTRIES_PATH)
@access(Right.READ)
async def list_entries(request: web.Request) -> web.Response:
    """``GET /data_entries/`` with any of the protocol's filters.

    It has streams of frames; with ``data_type=tool_state`` also, or only, those of signals. With ``limit`` it returns
    one page; the header ``Link`` then has the address of the next one, if there may be one.
    """
    context, visible = context_of(request), principal_of(request).projects
    wanted = replace(read_filter(request.query), visible=visible)
    if not wants_signals(wanted):
        find = await context.streams_table.search(wanted)
        return await context.readers.facts.run(request, lambda: _list_reply(request, wanted, find()))
    # Two lists become one: the page is cut from both together, because its last stream may be in either of them.
    find = await context.streams_table.search(replace(wanted, limit=None, after=None))
    signals = context.tool_signals.all()

    def both() -> web.Response:
        return _list_reply(request, wanted, page([*find(), *matching(signals, wanted)], wanted))

    return await context.readers.facts.run(request, both)


def _list_reply(request: web.Request, wanted: EntryFilter, entries: list[dict[str, Any]]) -> web.Response:
    reply = json_reply(entries)
    if wanted.limit is not None and len(entries) == wanted.limit:
        following = URL(prefix_of(request) + ENTRIES_PATH).with_query(request.query)
        following = following.update_query(after=entries[-1]["data_id"])
        reply.headers["Link"] = f'<{following}>; rel="next"'
    return reply


def read_filter(query: Query) -> EntryFilter:
    """The filter in a query string. Parameters of the hosted service without a meaning here are ignored.

    Raises:
        HttpError: 400 for an invalid number or time, or too many keywords.
    """
    keywords = tuple(dict.fromkeys(_texts(query, "keywords")))
    if len(keywords) > MAX_KEYWORDS:
        raise HttpError(
            400, f"At most {MAX_KEYWORDS} different keywords are looked for; there are {len(keywords)}."
        )
    limit = number(query.get("limit"), "limit", 1, MAX_PAGE)
    return EntryFilter(
        limit=None if limit is None else int(limit),
        after=query.get("after", "").lower() or None,
        keywords=keywords,
        data_ids=_ids(query, "data_ids"),
        sample_ids=_ids(query, "physical_sample_ids"),
        project_ids=_ids(query, "project_ids"),
        data_types=_texts(query, "data_type"),
        statuses=tuple(status for status in _texts(query, "status") if status != "all"),
        growth_length=(_number(query, "growth_length_min"), _number(query, "growth_length_max")),
        uploaded=(_time(query, "upload_datetime_min"), _time(query, "upload_datetime_max")),
        updated=(_time(query, "last_updated_min"), _time(query, "last_updated_max")),
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
        raise HttpError(400, f"{name} must be a number of seconds; {text[:64]!r} is not one.")
    return number


def _time(query: Query, name: str) -> str | None:
    text = query.get(name, "")
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return iso_now(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise HttpError(400, f"{name} must be a time in ISO 8601; {text[:64]!r} is not one.") from None


@routes.get(SINGLE_FRAMES_PATH)
@access(Right.READ, browser=False)
async def single_frames(request: web.Request) -> web.Response:
    """``GET /data_entries/video_single_frames/{data_id}``: always empty: no frames are extracted,
    and any stored frame can be loaded by its number (:mod:`.hosted_files`)."""
    data_id = checked_id(request.match_info["data_id"])
    if not await context_of(request).streams_table.known([data_id]):
        raise unknown_stream(data_id)
    return json_reply({"frames": []})
