"""Requests that change or delete a whole stream: rename, move to another project or sample, delete."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from atomstream.arguments import MAX_ATTRIBUTES_BYTES, check_attributes
from atomstream.errors import ConfigError
from atomstream.protocol import STREAM_PATH
from atomstream.server.archive.metadata import NamedId, StreamMetadata, read_about
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.database import Sample
from atomstream.server.context import ServerContext, context_of
from atomstream.server.http.access import access
from atomstream.server.http.audit import audit
from atomstream.server.http.gate import principal_of
from atomstream.server.http.requests import UuidText, checked_name, read_json
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Principal, Right
from atomstream.server.ports.placement import Notice
from atomstream.server.routes.catalogue import sample_named
from atomstream.server.routes.streams import named_ids, project_for, unknown_name
from atomstream.server.streams.registry import checked_id
from atomstream.system.log_privacy import get_logger

routes = web.RouteTableDef()

log = get_logger("atomstream.server")


AttributeValue: TypeAlias = str | bool | int | float | list[str | bool | int | float] | None


class StreamChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body that changes a stream. What is absent stays.

    ``project_id`` null takes it out of its project, ``physical_sample_id`` null off its sample. ``sample_name`` in
    place of the sample's id makes the sample if there is none of that name.
    """

    name: str | UnsetType = UNSET
    project_id: UuidText | UnsetType | None = UNSET
    physical_sample_id: UuidText | UnsetType | None = UNSET
    sample_name: str | UnsetType = UNSET
    attributes: dict[str, AttributeValue] | UnsetType = UNSET
    """Added to the stream's attributes; a name that exists gets the new value, null removes it."""


@routes.patch(STREAM_PATH)
@access(Right.WRITE)
async def change_stream(request: web.Request) -> web.Response:
    """``PATCH /rheed/stream/{data_id}``: rename a stream, move it to another project or sample, or add attributes."""
    context, data_id = context_of(request), checked_id(request.match_info["data_id"])
    wanted = await read_json(request, StreamChanges, most=2 * MAX_ATTRIBUTES_BYTES)
    before = await context.streams.about(data_id)
    principal, fields = principal_of(request), dict[str, Any]()
    if wanted.name is not UNSET:
        fields["name"] = checked_name(wanted.name, "stream")
    if wanted.project_id is not UNSET:
        fields["project"] = await project_for(context, principal, wanted.project_id)
    if wanted.physical_sample_id is not UNSET or wanted.sample_name is not UNSET:
        fields["sample"] = await _sample_for(context, principal, wanted)
    if wanted.attributes is not UNSET:
        fields["attributes"] = _merged(before.attributes, wanted.attributes)
    if not fields:
        raise HttpError(
            400,
            "There is nothing to change: give name, project_id, physical_sample_id, sample_name or attributes.",
        )
    after = await context.streams.change(data_id, **fields)
    await asyncio.to_thread((await context.streams.archive(data_id)).flush_metadata)
    changes = _differences(before, after)
    for done in changes:
        await audit(request, done, data_id)
    if before.sample != after.sample:
        context.beside_frames.note(data_id)  # it has other signals, or none
    reply = {
        "data_id": data_id,
        "name": after.name,
        "project_id": after.project.id if after.project else None,
        "physical_sample_id": after.sample.id if after.sample else None,
        "changes": changes,
    }
    return json_reply(reply if wanted.attributes is UNSET else reply | {"attributes": after.attributes})


async def _sample_for(context: ServerContext, principal: Principal, wanted: StreamChanges) -> NamedId | None:
    """The sample that a stream is put on; None: on no sample. Raises HttpError 400 or 404."""
    sample_id = wanted.physical_sample_id
    if wanted.sample_name is not UNSET:
        if sample_id is not UNSET:
            raise HttpError(400, "Give either physical_sample_id or sample_name.")
        name = checked_name(wanted.sample_name, "sample")
        sample_id, _ = await sample_named(context, principal.projects, name)
    elif sample_id is UNSET or sample_id is None:
        return None
    elif not await context.catalogue.sees_sample(sample_id.lower(), principal.projects):
        raise unknown_name("physical sample", sample_id)
    (found,) = await named_ids(context, Sample, [sample_id], "physical sample")
    return found


def _merged(before: dict[str, Any], wanted: dict[str, AttributeValue]) -> dict[str, Any]:
    merged = {name: value for name, value in {**before, **wanted}.items() if value is not None}
    try:
        return check_attributes(merged)
    except (TypeError, ConfigError) as error:
        raise HttpError(400, str(error)) from None


def _differences(before: StreamMetadata, after: StreamMetadata) -> list[str]:
    done = []
    if before.name != after.name:
        done.append(f"renamed from {before.name!r} to {after.name!r}")
    if before.project != after.project:
        names = [one.name if one else "no project" for one in (before.project, after.project)]
        done.append(f"moved from {names[0]!r} to {names[1]!r}")
    if before.sample != after.sample:
        samples = [f"sample {one.name!r}" if one else "no sample" for one in (before.sample, after.sample)]
        done.append(f"moved from {samples[0]} to {samples[1]}")
    if before.attributes != after.attributes:
        done.append("changed its attributes")
    return done


@routes.delete(STREAM_PATH)
@access(Right.ADMIN)
async def delete_stream(request: web.Request) -> web.Response:
    """``DELETE /rheed/stream/{data_id}``: delete a stream for ever, with frames, results and marks.

    Uploads that run are answered with 410, and so is each later request about it. After 503 the request may be
    repeated until it is answered with 200 or 410: then all servers have been notified.
    """
    context, data_id = context_of(request), checked_id(request.match_info["data_id"])
    if data_id in context.streams.deleted and not (context.streams.folder / data_id).exists():
        # An earlier request has deleted it, and the bus may have been unreachable when the notice was to be sent.
        await context.announce(Notice(data_id=data_id, kind="deleted"))
    archive, name = await _open(context, data_id)
    project_id = None if data_id in context.streams.deleted else await context.streams.project_of(data_id)
    context.streams.refuse_deleted(data_id)
    await context.streams_table.require()
    await remove_stream(context, data_id, archive, project_id)
    await context.announce(Notice(data_id=data_id, kind="deleted"))
    await audit(request, f"deleted, named {name!r}", data_id)
    return json_reply({"data_id": data_id, "deleted": True})


async def remove_stream(
    context: ServerContext, data_id: str, archive: StreamArchive | None, project_id: str | None
) -> None:
    """Stop all work on a stream, move its files away and remove its row. ``archive`` as in
    ``StreamRegistry.delete``.
    """
    context.streams.deleted.add(data_id)
    context.streams.deleted_from[data_id] = project_id
    try:
        await context.ingest.stop_stream(data_id)
        await context.results.remove(data_id)
        await context.lifecycle.stop_timing(data_id)
        if archive is None:
            await context.streams.delete_stored(data_id)
        await context.streams.delete(data_id, archive)
    except BaseException:
        if (context.streams.folder / data_id).is_dir():  # it was not deleted, and goes on
            context.streams.deleted.discard(data_id)
            context.streams.deleted_from.pop(data_id, None)
            await context.lifecycle.begin(data_id)
        else:
            context.deletion.begin()
        raise
    context.deletion.begin()


async def _open(context: ServerContext, data_id: str) -> tuple[StreamArchive | None, str]:
    """The archive and name of a stream; None if its files are damaged, which is not a reason to keep it."""
    try:
        archive = await context.streams.archive(data_id)
        return archive, read_about(archive.description).name
    except HttpError as error:
        if error.status != 503:
            raise
        log.warning("stream %s, which is to be deleted, is damaged", data_id)
        return None, ""
