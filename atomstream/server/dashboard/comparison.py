"""``GET /dashboard/streams/{id}/comparison``: a growth over an earlier one, and over what is normal for such ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiohttp import web

from atomstream.growth_comparison import (
    LEAST_GROWTHS,
    Axis,
    averaged,
    bridged,
    first_mark,
    layers_from,
    leaves_at,
    normal_band,
    plain,
)
from atomstream.results import F64, UNITS, Event
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.context import ServerContext, context_of, visible_in
from atomstream.server.dashboard.growths import comparables
from atomstream.server.dashboard.series import READER, checked_names, find_range, in_order, number
from atomstream.server.http.access import access
from atomstream.server.http.gate import principal_of
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right
from atomstream.server.streams.registry import checked_id

routes = web.RouteTableDef()

ALIGNED_ON: Final = {"mark": "the shutter opening", "layer": "layers", "start": "the first frame"}
OPENING: Final = ("shutter", "laser", "growth")
"""Kinds of marks that begin a growth."""
BEFORE_S: Final = 30.0
"""Time in s that is shown before the alignment."""
POINTS: Final = 4000
"""Most values that are read of one growth."""
COUNT: Final = "oscillations_counted"


@dataclass(frozen=True, slots=True)
class Source:
    """Where one growth is, and the time of its alignment in s (None: its first frame); ``note`` is a caveat."""

    data_id: str
    name: str
    group: Path
    n_frames: int
    zero_s: float | None
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One growth on the common axis: ascending positions, values and times, each (n,)."""

    source: Source
    position: F64
    values: F64
    time_s: F64

    def on(self, axis: Axis, what: F64) -> F64:
        """``what`` in each step of the axis, (count,)."""
        inside = (self.position >= axis.low) & (self.position < axis.low + axis.count * axis.step)
        return bridged(averaged(self.position[inside], what[inside], axis))


@routes.get("/dashboard/streams/{data_id}/comparison")
@access(Right.READ)
async def comparison(request: web.Request) -> web.Response:
    """Query: ``with`` (id of the earlier growth, default the best one), ``name`` of a result, ``align`` (mark, layer or
    start), ``points``.

    The reply has ``x`` and for each step ``today``, ``ghost``, ``low`` and ``high`` of the normal band, and the times
    of both growths; null where there is nothing.
    """
    query, data_id = request.query, checked_id(request.match_info["data_id"])
    (name,) = checked_names([query.get("name", "growth_rate_ml_s")])
    align = query.get("align", "mark")
    if align not in ALIGNED_ON:
        raise HttpError(400, f"align must be one of {', '.join(ALIGNED_ON)}.")
    points = int(number(query, "points", 400, 10, 2000))
    context = context_of(request)
    known = await comparables(request, data_id)
    ghost_id = query.get("with") or known.best
    ghost_id = None if ghost_id is None else checked_id(ghost_id.lower())
    if ghost_id is not None:
        await _check_visible(request, ghost_id)
    today = await _source(context, data_id, align)
    ghost = None if ghost_id is None else await _source(context, ghost_id, align)
    alike = []
    for growth in known.growths if known.alike else ():
        try:
            alike.append(await _source(context, growth.data_id, align))
        except HttpError:  # it was deleted, or its files are damaged
            continue
    reader = request.app[READER]
    reply = await context.readers.series.run(
        request, _compared, reader, today, ghost, alike, name, align, points
    )
    rules = {"rule": known.rule, "best": known.best, "best_rule": known.best_rule}
    return json_reply({**reply, **rules, "aligned_on": ALIGNED_ON[align], "name": name})


async def _check_visible(request: web.Request, data_id: str) -> None:

    await visible_in(context_of(request))(principal_of(request), data_id)


async def _source(context: ServerContext, data_id: str, align: str) -> Source:
    archive, about = await context.streams.archive(data_id), await context.streams.about(data_id)
    zero_s, note = None, ""
    if align != "start":
        zero_s = opening_s((await context.results.of(data_id)).events())
        if zero_s is None:
            note = "aligned on its first frame, because no mark begins a segment"
    return Source(data_id, about.name, archive.folder / "frames.zarr", archive.n_frames(), zero_s, note)


def opening_s(events: Iterable[Event]) -> float | None:
    """The time of the user's mark that begins the first segment, in s; None if there is none."""
    marks = [(event.at_s, event.kind, "") for event in events if event.by == "user"]
    times = [time_s for kind in OPENING if (time_s := first_mark(marks, kind)) is not None]
    return min(times, default=None)


def _compared(
    reader: ColumnReader,
    today: Source,
    ghost: Source | None,
    alike: list[Source],
    name: str,
    align: str,
    points: int,
) -> dict[str, Any]:
    tracks: dict[str, Track] = {}
    for source in (today, *([] if ghost is None else [ghost]), *alike):
        check_wanted()
        if source.data_id not in tracks:
            tracks[source.data_id] = read_track(reader, source, name, align)
    own = tracks[today.data_id]
    other = None if ghost is None else tracks[ghost.data_id]
    notes = [f"{one.source.name}: {one.source.note}" for one in (own, other) if one and one.source.note]
    reply: dict[str, Any] = {
        "unit": UNITS.get(name, ""),
        "x_unit": "layers" if align == "layer" else "s",
        "ghost_id": None if ghost is None else ghost.data_id,
        "ghost_name": None if ghost is None else ghost.name,
        "notes": notes,
        "left": None,
        "band_of": 0,
        "band_why": "",
    }
    try:
        shown = [one.position for one in (own, other) if one]
        # A count grows with each fit: narrower steps would mostly be empty.
        least = max(map(_jump, shown)) if align == "layer" else 0.0
        axis = Axis.over(shown, most=points, least=least)
    except ValueError:
        return {**reply, "x": [], "band_why": "there is nothing to compare yet"}
    values, times = own.on(axis, own.values), own.on(axis, own.time_s)
    reply |= {"x": plain(axis.centres), "today": plain(values), "time": plain(times, 9)}
    if other is not None:
        ghost_values, ghost_times = other.on(axis, other.values), other.on(axis, other.time_s)
        reply |= {"ghost": plain(ghost_values), "ghost_time": plain(ghost_times, 9)}
    of_band = [tracks[one.data_id] for one in alike if len(tracks[one.data_id].position)]
    reply["band_of"] = len(of_band)
    if len(of_band) < LEAST_GROWTHS:
        reply["band_why"] = f"what is normal needs {LEAST_GROWTHS} ended growths; there are {len(of_band)}"
        return reply
    band = normal_band(np.stack([one.on(axis, one.values) for one in of_band]))
    reply |= {"low": plain(band.low), "high": plain(band.high)}
    step = leaves_at(values, band)
    if step is not None:
        at = float(times[step])
        reply["left"] = {"x": float(axis.centres[step]), "time_s": at if math.isfinite(at) else None}
    return reply


def _jump(position: F64) -> float:
    """The median of the steps by which a position grows; 0 if it does not."""
    steps = np.diff(position)
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0


def read_track(reader: ColumnReader, source: Source, name: str, align: str, points: int = POINTS) -> Track:
    """One result of a growth on the axis that ``align`` names. Blocks."""
    group = source.group
    found = find_range(reader, group, source.n_frames, (-math.inf, math.inf, None), points)
    files, start, stop, size = found.files, found.start, found.stop, found.size
    order = in_order(found.times)
    time_s = found.times[order]
    values = reader.buckets(group / name, start, stop, size, files).mean[order]
    if not len(time_s):
        return Track(source, time_s, values, time_s)
    zero_s = float(time_s[0]) if source.zero_s is None else source.zero_s
    if align == "layer":
        counts = reader.buckets(group / COUNT, start, stop, size, files).high[order]
        position = layers_from(counts)
        before = position[np.isfinite(position) & (time_s < zero_s)]
        position = position - (float(before[-1]) if len(before) else 0.0)
        kept = np.isfinite(position) & (time_s >= zero_s)
    else:
        position = time_s - zero_s
        kept = position >= -BEFORE_S
    return Track(source, position[kept], values[kept], time_s[kept])
