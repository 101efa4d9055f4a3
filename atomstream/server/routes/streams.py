"""Requests about a whole stream: creation, links to samples and tags, stored chunks, end."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

from atomstream.index_ranges import IndexSet
from atomstream.protocol import (
    ANNOUNCED,
    ANNOUNCEMENT,
    CHUNKS_PATH,
    END_PATH,
    LOST_HEADER,
    MAX_CHUNK_INDEX,
    MAX_FPS,
    MAX_LOST,
    MAX_NAME_CHARS,
    MAX_RPM,
    MIN_FPS,
    SAMPLE_LINKS_PATH,
    STREAMS_PATH,
    TAG_LINKS_PATH,
)
from atomstream.server.archive.metadata import NamedId, StreamMetadata
from atomstream.server.catalogue.catalogue import Named
from atomstream.server.catalogue.database import Project, Sample, Tag, iso_now
from atomstream.server.context import ServerContext, context_of, project_of
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.gate import principal_of
from atomstream.server.http.requests import UuidText, checked_name, read_bounded, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Principal, Right
from atomstream.server.ports.placement import Notice
from atomstream.server.routes.annotations import CalibrationBody
from atomstream.server.settings import MAX_JSON_BYTES
from atomstream.server.signals.stream import SignalsAbout
from atomstream.server.streams.registry import checked_id, unknown_stream

routes = web.RouteTableDef()

MAX_LINKED = 10_000
MAX_TAGS = 256
"""Tags of one stream: each change of the stream writes all of them."""
About = TypeVar("About", StreamMetadata, SignalsAbout)


class NewStream(msgspec.Struct, frozen=True):
    """The body that creates a stream."""

    data_item_name: str
    rotations_per_min: Annotated[float, msgspec.Meta(ge=0.0, le=MAX_RPM)]
    fps_capture_rate: Annotated[float, msgspec.Meta(ge=MIN_FPS, le=MAX_FPS)]
    rotational_period: Annotated[float, msgspec.Meta(gt=0.0, le=1e12)] | None = None
    project_id: UuidText | None = None
    azimuth_label: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)] | None = None
    calibration: CalibrationBody | None = None
    """An extension of this server: the analysis uses it from the first chunk on, for results in nm/s and Å."""


class SampleLink(msgspec.Struct, frozen=True):
    """The body that links streams to a sample."""

    data_ids: Annotated[list[UuidText], msgspec.Meta(max_length=MAX_LINKED)]
    physical_sample_id: UuidText


class TagLink(msgspec.Struct, frozen=True):
    """The body that puts tags on streams."""

    data_ids: Annotated[list[UuidText], msgspec.Meta(max_length=MAX_LINKED)]
    tag_ids: Annotated[list[UuidText], msgspec.Meta(max_length=MAX_TAGS)]


@routes.post(STREAMS_PATH)
@access(Right.WRITE, browser=False)
async def create_stream(request: web.Request) -> web.Response:
    """``POST /rheed/stream/``: create a stream. The reply is its ``data_id`` as a JSON string."""
    wanted = await read_json(request, NewStream)
    name = checked_name(wanted.data_item_name, "stream")
    calibration = None if wanted.calibration is None else wanted.calibration.checked()
    context = context_of(request)
    project = await project_of_new(context, principal_of(request), wanted.project_id)
    now = iso_now()
    about = StreamMetadata(
        data_id=str(uuid.uuid4()),
        name=name,
        fps=wanted.fps_capture_rate,
        rotations_per_min=wanted.rotations_per_min,
        rotational_period=wanted.rotational_period,
        azimuth_label=wanted.azimuth_label,
        project=project,
        made=now,
        last_updated=now,
    )
    await context.streams.create(about)
    await context.lifecycle.begin(about.data_id)
    if calibration is not None:
        await (await context.results.of(about.data_id)).calibrate(calibration)
    return json_reply(about.data_id, headers={ANNOUNCEMENT: ANNOUNCED})


@routes.post(SAMPLE_LINKS_PATH)
@access(Right.WRITE, browser=False)
async def link_sample(request: web.Request) -> web.Response:
    """``POST /data_entries/physical_sample``."""
    context, wanted = context_of(request), await read_json(request, SampleLink, most=MAX_JSON_BYTES)
    principal = principal_of(request)
    if not await context.catalogue.sees_sample(wanted.physical_sample_id.lower(), principal.projects):
        raise unknown_name("physical sample", wanted.physical_sample_id)
    (sample,) = await named_ids(context, Sample, [wanted.physical_sample_id], "physical sample")
    for data_id in await known_streams(context, principal, wanted.data_ids):
        if context.tool_signals.known([data_id]):
            await context.tool_signals.revise(
                data_id, lambda about: msgspec.structs.replace(about, sample=sample, last_updated=iso_now())
            )
        else:
            await context.streams.change(data_id, sample=sample)
            context.beside_frames.note(data_id)
    return json_reply({"data_ids": wanted.data_ids, "physical_sample_id": sample.id})


@routes.post(TAG_LINKS_PATH)
@access(Right.WRITE, browser=False)
async def link_tags(request: web.Request) -> web.Response:
    """``POST /tags/data-items/``: add tags; existing tags stay."""
    context, wanted = context_of(request), await read_json(request, TagLink, most=MAX_JSON_BYTES)
    tags = await named_ids(context, Tag, wanted.tag_ids, "tag")
    for data_id in await known_streams(context, principal_of(request), wanted.data_ids):
        if context.tool_signals.known([data_id]):
            await context.tool_signals.revise(data_id, lambda about: add_tags(about, tags))
        else:
            await context.streams.revise(data_id, lambda about: add_tags(about, tags))
    return json_reply({"data_ids": wanted.data_ids, "tag_ids": wanted.tag_ids})


def add_tags(about: About, tags: Iterable[NamedId]) -> About:
    """``about`` with ``tags`` added, each once.

    Raises:
        HttpError: 409, it would have more than ``MAX_TAGS``.
    """
    by_id = {tag.id: tag for tag in (*about.tags, *tags)}
    if len(by_id) > MAX_TAGS:
        raise HttpError(
            409,
            f"Stream {about.data_id} would have {len(by_id)} tags; at most {MAX_TAGS} are allowed. It was not changed.",
        )
    return msgspec.structs.replace(about, tags=tuple(by_id.values()))


async def named_ids(context: ServerContext, kind: type[Named], ids: list[str], what: str) -> list[NamedId]:
    """All ``ids`` with their names; raises HttpError 404 for the first unknown one."""
    wanted = [one.lower() for one in ids]
    rows = await context.catalogue.find(kind, wanted)
    for one in wanted:
        if one not in rows:
            raise unknown_name(what, one)
    return [NamedId(id=one, name=rows[one].name) for one in wanted]


def unknown_name(what: str, one: str) -> HttpError:
    """The error for an id of a sample, tag or project that does not exist, or that this key may not see."""
    return HttpError(404, f"No {what} {one.lower()!r} is known here; nothing was changed.")


async def project_of_new(
    context: ServerContext, principal: Principal, project_id: str | None
) -> NamedId | None:
    """:func:`project_for` a new stream: without a project, that of somebody who sees one project only."""
    if not project_id and principal.projects is not None and len(principal.projects) == 1:
        (project_id,) = principal.projects
    return await project_for(context, principal, project_id)


async def project_for(context: ServerContext, principal: Principal, project_id: str | None) -> NamedId | None:
    """The project that a stream is put into, which ``principal`` must see.

    Raises:
        HttpError: 404 there is no such project; 403 somebody who sees only some projects named none.
    """
    if not project_id:
        if principal.projects is not None:
            raise HttpError(
                403, f"{principal.name} sees only some projects: give the id of one of them (project_id)."
            )
        return None
    if not principal.sees(project_id.lower()):
        raise unknown_name("project", project_id)
    (found,) = await named_ids(context, Project, [project_id], "project")
    return found


async def known_streams(context: ServerContext, principal: Principal, data_ids: list[str]) -> list[str]:
    """``data_ids`` in lower case; raises HttpError 404 if one is not a stream, or not visible for ``principal``."""
    wanted = [one.lower() for one in data_ids]
    existing = await context.streams_table.known(wanted)
    for one in set(wanted) - existing:
        await context.tool_signals.find(one)
    existing |= context.tool_signals.known(wanted)
    for one in wanted:
        if one not in existing or not await _is_visible(context, principal, one):
            raise unknown_stream(one)
    return wanted


async def _is_visible(context: ServerContext, principal: Principal, data_id: str) -> bool:
    return principal.projects is None or principal.sees(await project_of(context, data_id))


@routes.post(END_PATH)
@access(Right.WRITE)
async def end_stream(request: web.Request) -> web.Response:
    """``POST /rheed/stream/{data_id}/end``: end the stream; ``Atomstream-Lost`` lists the lost chunks."""
    data_id = checked_id(request.match_info["data_id"])
    await read_bounded(request)
    lost = parse_lost(request.headers.get(LOST_HEADER, ""))
    status = await context_of(request).lifecycle.end(data_id, lost)
    await context_of(request).announce(Notice(data_id=data_id, kind="end"))
    await audit(request, "ended", data_id)
    return json_reply({"data_id": data_id, "pipeline_status": status})


@routes.get(CHUNKS_PATH)
@access(Right.READ, browser=False)
async def stored_chunks(request: web.Request) -> web.Response:
    """``GET /rheed/stream/{data_id}/chunks``: the stored indices, ``{"stored": "0-5,9"}``.

    For a client that was killed after an upload was answered and before its journal noted it.
    """
    context = context_of(request)
    archive = await context.streams.archive(checked_id(request.match_info["data_id"]))

    def reply() -> web.Response:
        archive.follow(all_chunks=True)
        return json_reply({"stored": str(archive.stored())})

    return await context.readers.facts.run(request, reply)


def parse_lost(text: str) -> IndexSet:
    """The indices in ``"3-5,9"``.

    Raises:
        HttpError: 400 if it is not of that form, out of range, or has more than ``MAX_LOST`` indices.
    """
    try:
        return IndexSet.parse(text, max_index=MAX_CHUNK_INDEX, max_count=MAX_LOST)
    except ValueError as error:
        raise HttpError(400, f"{LOST_HEADER} {error}.") from None
