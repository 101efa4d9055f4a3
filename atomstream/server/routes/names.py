"""Requests about samples, tags and projects."""

from __future__ import annotations

import msgspec
from aiohttp import web

from atomstream.server.bodies import read_json
from atomstream.server.catalogue import NameTakenError
from atomstream.server.house import house_of
from atomstream.server.models import Project, Sample
from atomstream.server.names import checked_name
from atomstream.server.replies import RefusedError, json_reply
from atomstream.server.routes.ids import UuidText


class NewName(msgspec.Struct, frozen=True):
    """The body that creates a sample or a tag."""

    name: str


class NewProject(msgspec.Struct, frozen=True):
    """The body that creates a project; ``id`` lets a lab keep the id that it has elsewhere."""

    name: str
    id: UuidText | None = None


class TrackingSample(msgspec.Struct, frozen=True):
    """The body that puts a sample into a project."""

    physical_sample_id: UuidText
    set_active: bool = True


async def list_samples(request: web.Request) -> web.Response:
    """``GET /physical_samples/``."""
    return json_reply(await house_of(request).catalogue.samples())


async def create_sample(request: web.Request) -> web.Response:
    """``POST /physical_samples/``; 409 with the existing one's id where the name is taken."""
    name = checked_name((await read_json(request, NewName)).name, "sample")
    try:
        return json_reply({"id": await house_of(request).catalogue.add_sample(name)})
    except NameTakenError as taken:
        raise RefusedError(409, {"physical_sample_id": taken.existing_id}) from None


async def list_tags(request: web.Request) -> web.Response:
    """``GET /tags/``."""
    return json_reply(await house_of(request).catalogue.tags())


async def create_tag(request: web.Request) -> web.Response:
    """``POST /tags/``; 400 where the name is taken."""
    name = checked_name((await read_json(request, NewName)).name, "tag")
    try:
        return json_reply({"id": await house_of(request).catalogue.add_tag(name)})
    except NameTakenError:
        raise RefusedError(400, f"There is a tag named {name!r} already; GET /tags/ has its id.") from None


async def list_projects(request: web.Request) -> web.Response:
    """``GET /projects/``."""
    return json_reply(await house_of(request).catalogue.projects())


async def create_project(request: web.Request) -> web.Response:
    """``POST /projects/``; 409 with the existing one's id where name or id are taken."""
    wanted = await read_json(request, NewProject)
    try:
        added = await house_of(request).catalogue.add_project(checked_name(wanted.name, "project"), wanted.id)
        return json_reply({"id": added})
    except NameTakenError as taken:
        raise RefusedError(409, {"project_id": taken.existing_id}) from None


async def track_sample(request: web.Request) -> web.Response:
    """``POST /projects/{project_id}/configuration/tracking_samples``."""
    project_id = request.match_info["project_id"].lower()
    wanted = await read_json(request, TrackingSample)
    catalogue = house_of(request).catalogue
    if not await catalogue.find(Project, [project_id]):
        raise RefusedError(404, f"No project {project_id[:64]!r} is known here; GET /projects/ lists them.")
    if not await catalogue.find(Sample, [wanted.physical_sample_id]):
        raise RefusedError(404, f"No physical sample {wanted.physical_sample_id!r} is known here.")
    await catalogue.track(project_id, wanted.physical_sample_id, active=wanted.set_active)
    return json_reply({"project_id": project_id, "physical_sample_id": wanted.physical_sample_id})
