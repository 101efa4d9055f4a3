"""``GET /dashboard/streams/{id}/series``: results over a time range, reduced to the width of a chart."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from aiohttp import web
from multidict import MultiMapping

from atomstream.results import UNITS
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.downsampling import F64, FINE, ColumnReader, column_files, fitting
from atomstream.server.context import context_of
from atomstream.server.http import requests
from atomstream.server.http.access import access
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

READER = web.AppKey("dashboard_reader", ColumnReader)
MAX_POINTS = 4000
MAX_NAMES = 72
"""All boxes of a stream (at most 64), and some results beside them."""
DIGITS = 7
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@routes.get("/dashboard/streams/{data_id}/series")
@access(Right.READ)
async def series(request: web.Request) -> web.Response:
    """Query: ``name`` (repeated), ``points``, and ``from``/``to`` or ``last`` (stream time in s).

    The reply has at most ``points`` buckets of ``bucket`` frames: ``t`` (s) and for each name ``mean``, ``low``,
    ``high``; null where nothing was measured.
    """
    query, context = request.query, context_of(request)
    names = checked_names(query.getall("name", ()))
    points = int(number(query, "points", 1000, 2, MAX_POINTS))
    archive = await context.streams.archive(request.match_info["data_id"])
    group, n_frames = archive.folder / "frames.zarr", archive.n_frames()
    span = span_of(query)
    reader = request.app[READER]
    return await context.readers.series.run(
        request, lambda: json_reply(_collect(reader, group, n_frames, names, span, points))
    )


def span_of(query: MultiMapping[str]) -> tuple[float, float, float | None]:
    """The requested first and last second, and the number of last seconds if that was given instead."""
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
    found = find_range(reader, group, n_frames, span, points)
    files, start, stop, size = found.files, found.start, found.stop, found.size
    order, ends = in_order(found.times), found.ends
    columns: dict[str, Any] = {}
    for name in names:
        sums = reader.buckets(group / name, start, stop, size, files)
        columns[name] = {"unit": UNITS.get(name, ""), "mean": brief(sums.mean[order])}
        if size > 1:
            columns[name] |= {"low": brief(sums.low[order]), "high": brief(sums.high[order])}
    return {
        "from_frame": _frame(files, start),
        "to_frame": _frame(files, stop - 1) + 1 if stop > start else _frame(files, start),
        "n_frames": n_frames,
        "bucket": size,
        "begin_s": found.begin_s if len(ends) and math.isfinite(ends[-1]) else None,
        "end_s": float(ends[-1]) if len(ends) and math.isfinite(ends[-1]) else None,
        "t": brief(found.times[order], 9),
        "series": columns,
    }


@dataclass(frozen=True, slots=True, eq=False)
class FoundRange:
    """Positions ``start`` to ``stop`` in the ``files`` of a column, in buckets of ``size`` values at ``times`` (B,) s.

    The range begins at or before ``first_s`` and ends at or after ``last_s``, which were asked for. ``ends`` are the
    latest times up to each bucket of ``FINE`` of the whole stream, which begins at ``begin_s``.
    """

    files: list[int]
    start: int
    stop: int
    size: int
    times: F64
    first_s: float
    last_s: float
    ends: F64
    begin_s: float


def find_range(
    reader: ColumnReader, group: Path, n_frames: int, span: tuple[float, float, float | None], points: int
) -> FoundRange:
    """The buckets, at most ``points``, that cover a range of :func:`span_of`. It blocks."""
    # All positions count only the files that exist, see ColumnReader.values.
    files = column_files(group / "time")
    n_values = _places(files, n_frames)
    clock, first_s, end_s = reader.buckets(group / "time", 0, n_values, FINE, files), span[0], span[1]
    ends = latest_so_far(clock.high)
    if span[2] is not None and len(ends):
        first_s = float(ends[-1]) - span[2]
    start, stop = frame_range(ends, n_values, first_s, end_s)
    size, start = fitting(start, stop, points)
    times = reader.buckets(group / "time", start, stop, size, files).mean
    begin_s = float(np.fmin.reduce(clock.low, initial=math.inf))
    return FoundRange(files, start, stop, size, times, first_s, end_s, ends, begin_s)


def _places(files: list[int], n_frames: int) -> int:
    """The number of values in these files of a column, for a stream of ``n_frames``."""
    if not files:
        return 0
    return (len(files) - 1) * COLUMN_CHUNK + min(max(0, n_frames - files[-1] * COLUMN_CHUNK), COLUMN_CHUNK)


def _frame(files: list[int], place: int) -> int:
    """The frame number of a position in these files."""
    slot, inside = divmod(place, COLUMN_CHUNK)
    return files[slot] * COLUMN_CHUNK + inside if slot < len(files) else place


def in_order(times: F64) -> npt.NDArray[np.intp]:
    """Indices of the finite ``times``, sorted by time.

    Buckets of frames that were never received have no time. Times may step back when the host's clock was set.
    """
    indices = np.flatnonzero(~np.isnan(times))
    return indices[np.argsort(times[indices], kind="stable")]


def latest_so_far(highest: F64) -> F64:
    """Running maximum of the times; gaps (NaN) keep the last value."""
    return np.asarray(np.maximum.accumulate(np.where(np.isnan(highest), -np.inf, highest)), dtype=np.float64)


def frame_range(ends: F64, n_frames: int, first_s: float, end_s: float) -> tuple[int, int]:
    """Frame range that covers ``first_s`` to ``end_s``, in whole buckets of ``FINE`` plus one at either end."""
    first = max(0, int(np.searchsorted(ends, first_s, side="left")) - 1)
    last = int(np.searchsorted(ends, end_s, side="right")) + 2
    return first * FINE, min(n_frames, last * FINE)


def checked_names(names: Any) -> list[str]:
    """``names`` without repeats, if each is a valid column name; raises HttpError 400."""
    wanted = list(dict.fromkeys(names))
    if len(wanted) > MAX_NAMES or not all(_NAME.fullmatch(name) for name in wanted):
        raise HttpError(
            400, f"name accepts at most {MAX_NAMES} names of results, such as specular_intensity."
        )
    return wanted


def number(query: MultiMapping[str], name: str, default: float, low: float, high: float) -> float:
    """A number of the query between ``low`` and ``high``; raises HttpError 400."""
    value = requests.number(query.get(name), name, low, high)
    return default if value is None else value


def brief(values: F64, digits: int = DIGITS) -> list[float]:
    """``values`` rounded to ``digits`` significant digits of the largest one, to keep the JSON small; NaN stays."""
    largest = float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))
    if largest == 0.0:
        return list(values.tolist())
    return list(np.round(values, digits - 1 - math.floor(math.log10(largest))).tolist())
