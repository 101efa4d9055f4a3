"""``GET /dashboard/streams/{id}/series``: a stretch of some results, in as many points as a chart has pixels."""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web
from multidict import MultiMapping

from atomstream.results import UNITS
from atomstream.server.archive.downsampling import F64, FINE, ColumnReader, fitting
from atomstream.server.context import context_of
from atomstream.server.http.responses import HttpError, json_reply

READER = web.AppKey("dashboard_reader", ColumnReader)
MAX_POINTS = 4000
MAX_NAMES = 16
DIGITS = 7
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


async def series(request: web.Request) -> web.Response:
    """The query: ``name`` (repeated), ``points``, and ``from``/``to`` or ``last`` in s of the stream's time.

    The reply has, for at most ``points`` buckets of ``bucket`` frames each, ``t`` (s) and for each name ``mean``,
    ``low``, ``high``; null where nothing was measured.
    """
    query, house = request.query, context_of(request)
    names = checked_names(query.getall("name", ()))
    points = int(number(query, "points", 1000, 2, MAX_POINTS))
    archive = await house.streams.archive(request.match_info["data_id"])
    group, n_frames = archive.folder / "frames.zarr", archive.n_frames()
    span = _span(query)
    reply = await asyncio.to_thread(_collect, request.app[READER], group, n_frames, names, span, points)
    return json_reply(reply)


def _span(query: MultiMapping[str]) -> tuple[float, float, float | None]:
    """First and last second asked for, and the number of last seconds in their place."""
    last = number(query, "last", 60.0, 1e-3, 1e9) if "last" in query else None
    return (number(query, "from", -math.inf, -1e12, 1e12), number(query, "to", math.inf, -1e12, 1e12), last)


def _collect(
    reader: ColumnReader,
    group: Path,
    n_frames: int,
    names: list[str],
    span: tuple[float, float, float | None],
    points: int,
) -> dict[str, Any]:
    clock, first_s, end_s = reader.buckets(group / "time", 0, n_frames, FINE), span[0], span[1]
    ends = latest_so_far(clock.high)
    if span[2] is not None and len(ends):
        first_s = float(ends[-1]) - span[2]
    start, stop = frame_range(ends, n_frames, first_s, end_s)
    size, start = fitting(start, stop, points)
    times = reader.buckets(group / "time", start, stop, size).mean
    known = in_order(times)
    found = {}
    for name in names:
        sums = reader.buckets(group / name, start, stop, size)
        found[name] = {"unit": UNITS.get(name, ""), "mean": brief(sums.mean[known])}
        if size > 1:
            found[name] |= {"low": brief(sums.low[known]), "high": brief(sums.high[known])}
    return {
        "from_frame": start,
        "to_frame": stop,
        "n_frames": n_frames,
        "bucket": size,
        "begin_s": float(np.nanmin(clock.low)) if len(ends) and math.isfinite(ends[-1]) else None,
        "end_s": float(ends[-1]) if len(ends) and math.isfinite(ends[-1]) else None,
        "t": brief(times[known], 9),
        "series": found,
    }


def in_order(times: F64) -> npt.NDArray[np.intp]:
    """The places of ``times`` that have one, by rising time.

    A bucket of frames that never came has no time, so no place on the axis; and stamps of a host that was busy,
    or whose clock was set, may step back.
    """
    places = np.flatnonzero(~np.isnan(times))
    return places[np.argsort(times[places], kind="stable")]


def latest_so_far(highest: F64) -> F64:
    """For each bucket of the clock the latest time up to its end: rising, holes or not."""
    return np.asarray(np.maximum.accumulate(np.where(np.isnan(highest), -np.inf, highest)), dtype=np.float64)


def frame_range(ends: F64, n_frames: int, first_s: float, end_s: float) -> tuple[int, int]:
    """Frames that cover ``first_s`` .. ``end_s``, in whole buckets of ``FINE``, one more at either end."""
    first = max(0, int(np.searchsorted(ends, first_s, side="left")) - 1)
    last = int(np.searchsorted(ends, end_s, side="right")) + 2
    return first * FINE, min(n_frames, last * FINE)


def checked_names(names: Any) -> list[str]:
    """``names``, where each can name a column; raises RefusedError 400."""
    wanted = list(dict.fromkeys(names))
    if len(wanted) > MAX_NAMES or not all(_NAME.fullmatch(name) for name in wanted):
        raise HttpError(400, f"name takes at most {MAX_NAMES} names of results, such as specular_intensity.")
    return wanted


def number(query: MultiMapping[str], name: str, default: float, low: float, high: float) -> float:
    """A number of the query, between ``low`` and ``high``; raises RefusedError 400."""
    text = query.get(name, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise HttpError(400, f"{name} must be a number from {low:g} to {high:g}; {text[:32]!r} is none.")
    return value


def brief(values: F64, digits: int = DIGITS) -> list[float]:
    """``values`` rounded to ``digits`` of the largest one, for their text is what takes the time; NaN stays."""
    largest = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
    if largest == 0.0:
        return list(values.tolist())
    return list(np.round(values, digits - 1 - math.floor(math.log10(largest))).tolist())
