"""``GET /dashboard/streams/{id}/growths``: the growths with which a stream is compared, and the best one of them.

They are ended streams of the same sample; without a sample, or if it has no other growth, those of the same recipe: the
attribute ``recipe`` of the stream. The best one is the one whose growth rate is known best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from atomstream.errors import StreamError
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.metadata import ENDED_STATUSES, StreamMetadata, read_about_file
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.context import context_of
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import json_reply
from atomstream.server.live.growth_summary import GrowthSummary, SummaryReader
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

SUMMARIES: Final = web.AppKey("dashboard_summaries", SummaryReader)
MOST: Final = 12
"""Largest number of growths, the newest ones, with which one is compared."""
LOOKED_AT: Final = 300
"""Number of newest streams that are searched for those of the same recipe."""
OFFERED: Final = 40
"""Growths that can be chosen if neither sample nor recipe shows which ones belong together."""
BEST: Final = (
    "whose growth rate is known best (smallest relative error in a segment of 5 or more oscillations)"
)


class Comparable(msgspec.Struct, frozen=True):
    """One growth with which another may be compared; ``length_s`` in s, ``made`` in ISO 8601."""

    data_id: str
    name: str
    made: str
    length_s: float
    summary: GrowthSummary | None


class Comparables(msgspec.Struct, frozen=True):
    """``rule`` states which growths these are, ``best`` is the id of the best one and ``best_rule`` why it is.

    ``alike`` is False if neither sample nor recipe shows which growths belong together: they are then offered, but make
    no band.
    """

    rule: str
    growths: list[Comparable]
    alike: bool
    best: str | None
    best_rule: str


async def comparables(request: web.Request, data_id: str) -> Comparables:
    """The growths with which the stream is compared."""
    context = context_of(request)
    about = await context.streams.about(data_id)
    visible = principal_of(request).projects
    summaries = request.app[SUMMARIES]
    folder = context.settings.streams_dir

    async def listed(**wanted: Any) -> list[dict[str, Any]]:
        find = await context.streams_table.search(
            EntryFilter(statuses=ENDED_STATUSES, visible=visible, **wanted)
        )
        found: list[dict[str, Any]] = await context.readers.facts.run(request, find)
        return [entry for entry in found if entry["data_id"] != data_id]

    async def chosen(entries: list[dict[str, Any]], rule: str, *, alike: bool) -> Comparables:
        return await context.readers.facts.run(request, _with_best, entries, folder, summaries, rule, alike)

    if about.sample is not None:
        same = await listed(sample_ids=(about.sample.id,), limit=MOST + 1)
        if same:
            return await chosen(same[:MOST], f"of the same sample, {about.sample.name}", alike=True)
    newest = await listed(limit=LOOKED_AT)
    recipe = about.attributes.get("recipe")
    if recipe:
        same = await context.readers.facts.run(request, _of_recipe, newest, folder, recipe)
        if same:
            return await chosen(same[:MOST], f"of the same recipe, {recipe}", alike=True)
    return await chosen(newest[:OFFERED], _why_none(about), alike=False)


def _why_none(about: StreamMetadata) -> str:
    without = "has no other ended growth" if about.sample else "is not set"
    recipe = "none has the same recipe" if about.attributes.get("recipe") else "no recipe is set"
    return f"of any sample: the sample of this stream {without}, and {recipe} (attribute recipe)"


def _of_recipe(entries: list[dict[str, Any]], folder: Path, recipe: Any) -> list[dict[str, Any]]:
    found = []
    for entry in entries:
        check_wanted()
        try:
            attributes = read_about_file(folder / entry["data_id"]).get("attributes")
        except (StreamError, OSError):
            continue
        if isinstance(attributes, dict) and attributes.get("recipe") == recipe:
            found.append(entry)
    return found


def _with_best(
    entries: list[dict[str, Any]], folder: Path, summaries: SummaryReader, rule: str, alike: bool
) -> Comparables:
    growths = [
        Comparable(
            entry["data_id"],
            entry["raw_name"],
            entry["upload_datetime"],
            entry["growth_length"],
            summaries.read(folder / entry["data_id"]),
        )
        for entry in entries
    ]
    if not alike or not growths:
        return Comparables(rule, growths, alike, None, "")
    known = [one for one in growths if one.summary is not None and one.summary.relative_error is not None]
    if not known:
        return Comparables(rule, growths, alike, growths[0].data_id, "the newest one, as none has a rate")
    best = min(known, key=_error)
    return Comparables(rule, growths, alike, best.data_id, f"the one {BEST}")


def _error(growth: Comparable) -> float:
    assert growth.summary is not None
    return growth.summary.relative_error or 0.0


@routes.get("/dashboard/streams/{data_id}/growths")
@access(Right.READ)
async def list_growths(request: web.Request) -> web.Response:
    """The reply is :class:`Comparables`."""
    return json_reply(await comparables(request, request.match_info["data_id"]))
