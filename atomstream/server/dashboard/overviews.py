"""What lists of streams show beside the catalogue: rate, layers and thickness, and a small picture of each one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np
from aiohttp import web

from atomstream.records import Frames
from atomstream.server.archive.metadata import ENDED_STATUSES
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.catalogue.streams_table import EntryFilter
from atomstream.server.context import context_of
from atomstream.server.dashboard.growths import SUMMARIES
from atomstream.server.dashboard.images import Picture, binned
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.requests import checked_ids
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.live.growth_summary import GrowthSummary
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

MOST_IDS: Final = 100
WIDTH: Final = 96
"""Width of a small picture in px, at most."""
KEPT: Final = 512
"""Small pictures in memory, about 7 kB each."""
BRIGHTEST: Final = 99.7
"""Percentile of the pixels that is white in a small picture: most of a RHEED picture is dark."""


class Thumbnails:
    """Small pictures, by stream and frame; thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, archive: StreamArchive, *, ended: bool) -> bytes | None:
        """A frame as :class:`Picture` bytes: the middle one of an ended stream, else the newest; None: no frame."""
        runs = archive.frame_runs()
        if not len(runs):
            return None
        rank = len(runs) // 2 if ended else len(runs) - 1
        frame = archive.thinned.nearest(int(runs.frames(np.array([rank], dtype=np.int64))[0]))
        if frame is None:
            return None
        key = (archive.folder.name, frame)
        with self._lock:
            known = self._kept.get(key)
        if known is not None:
            return known
        frames = archive.frames(frame, frame + 1)
        if not frames.size:
            return None
        made = small_picture(frame, frames[0]).to_bytes()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return made


THUMBNAILS: Final = web.AppKey("dashboard_thumbnails", Thumbnails)


def small_picture(frame: int, raw: Frames) -> Picture:
    """Reduce ``raw`` (H, W) to a width of ``WIDTH``, with the brightest pixels white."""
    small = binned(raw, max(1, -(-raw.shape[1] // WIDTH))).astype(np.float32)
    level = max(1.0, float(np.percentile(small, BRIGHTEST)))
    pixels = np.minimum(small * np.float32(255.0 / level), 255.0).astype(np.uint8)
    return Picture(frame, float("nan"), pixels, (raw.shape[0], raw.shape[1]), round(level))


@routes.get("/dashboard/streams/{data_id}/thumbnail")
@access(Right.READ)
async def thumbnail(request: web.Request) -> web.Response:
    """``GET /dashboard/streams/{id}/thumbnail``: a small picture, as :class:`Picture` bytes; 404 without frames."""
    context, data_id = context_of(request), request.match_info["data_id"]
    archive, about = await context.streams.archive(data_id), await context.streams.about(data_id)
    thumbnails = request.app[THUMBNAILS]
    ended = about.status in ENDED_STATUSES
    made = await context.readers.pictures.run(request, lambda: thumbnails.get(archive, ended=ended))
    if made is None:
        raise HttpError(404, "This stream has no frames, or they were removed.")
    return web.Response(
        body=made,
        content_type="application/octet-stream",
        headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"},
    )


@routes.get("/dashboard/summaries")
@access(Right.READ)
async def summaries(request: web.Request) -> web.Response:
    """Query: ``data_ids`` (repeated). The reply maps each visible one that has results to its summary."""
    wanted = checked_ids(request.query, "data_ids", MOST_IDS)
    return json_reply(await summaries_of(request, wanted) if wanted else {})


async def summaries_of(request: web.Request, data_ids: tuple[str, ...]) -> dict[str, GrowthSummary]:
    """The summaries of the visible streams among these."""
    context = context_of(request)
    visible = principal_of(request).projects
    find = await context.streams_table.search(EntryFilter(data_ids=data_ids, visible=visible))
    entries: list[dict[str, Any]] = await context.readers.facts.run(request, find)
    found: dict[str, GrowthSummary] = {}
    analysing, ended = context.results.analysing(), []
    for entry in entries:
        data_id = entry["data_id"]
        if entry["pipeline_status"] in ENDED_STATUSES and data_id not in analysing:
            ended.append(data_id)
            continue
        try:
            found[data_id] = (await context.results.of(data_id)).summary()
        except HttpError:  # it was deleted, it is damaged, or too many are open
            continue
    folder, reader = context.settings.streams_dir, request.app[SUMMARIES]

    def read() -> dict[str, GrowthSummary | None]:
        return {data_id: reader.read(folder / data_id) for data_id in ended}

    read_ones = await context.readers.facts.run(request, read)
    return found | {data_id: one for data_id, one in read_ones.items() if one is not None}
