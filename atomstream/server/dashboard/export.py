"""``GET /dashboard/streams/{id}/results.csv``: all results of a stream, one row per frame; row 2 holds the units."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from atomstream.results import UNITS
from atomstream.server.archive.column import COLUMN_CHUNK
from atomstream.server.archive.downsampling import (
    ColumnReader,
    column_attributes,
    column_dimension,
    column_files,
)
from atomstream.server.context import context_of
from atomstream.server.dashboard.series import READER, number
from atomstream.server.http.access import access
from atomstream.server.http.responses import send_pieces
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

FIRST = {"frame": "1", "time": "s"}
_LEAVE_OUT = frozenset({"time", "time_seconds"})
_ATTRIBUTE_UNIT = re.compile(r"[\x20-\x7eµÅ°]{1,32}")


@routes.get("/dashboard/streams/{data_id}/results.csv")
@access(Right.READ)
async def results_csv(request: web.Request) -> web.StreamResponse:
    """Query ``step``: export every n-th frame only. Frames that were never received have an empty time.

    A stretch of 16,384 frames none of which was received has no rows.
    """
    step = int(number(request.query, "step", 1, 1, 1_000_000))
    data_id, streams = request.match_info["data_id"], context_of(request).streams
    archive = await streams.archive(data_id)
    reply = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            # The id only: the stream's name is free text, which may not be valid as a file name.
            "Content-Disposition": f'attachment; filename="atomstream-{data_id}.csv"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
    )
    pieces = csv_pieces(request.app[READER], archive.folder / "frames.zarr", archive.n_frames(), step)
    tables = context_of(request).readers.tables

    async def encoded() -> AsyncIterator[bytes]:
        while piece := await tables.run(request, next, pieces, ""):
            yield piece.encode()

    return await send_pieces(request, reply, encoded())


def csv_pieces(reader: ColumnReader, group: Path, n_frames: int, step: int) -> Iterator[str]:
    """The CSV text in pieces, so that memory does not grow with the stream's length."""
    names = result_names(group)
    units = [unit_of(group / name, name) for name in names]
    yield _lines([[*FIRST, *names], [*FIRST.values(), *units]])
    for file in column_files(group / "time"):
        start = file * COLUMN_CHUNK
        stop = min(n_frames, start + COLUMN_CHUNK)
        picks = np.arange(-(-start // step) * step, stop, step)
        if len(picks):
            yield _rows(reader, group, ["time", *names], start, stop, picks)


def result_names(group: Path) -> list[str]:
    """Names of the per-frame result arrays: the standard ones in their order, then those of user regions."""
    names = {path.parent.name for path in group.glob("*/zarr.json")} - _LEAVE_OUT
    per_frame = {name for name in names if column_dimension(group / name) == "time"}
    known = [name for name in UNITS if name in per_frame]
    return [*known, *sorted(per_frame - set(known))]


def unit_of(column: Path, name: str) -> str:
    """Unit of a column: from the array's attributes, or else from the table of standard units."""
    unit = column_attributes(column).get("units")
    valid = isinstance(unit, str) and _ATTRIBUTE_UNIT.fullmatch(unit)
    return str(unit) if valid else UNITS.get(name, "")


def _rows(
    reader: ColumnReader, group: Path, names: list[str], start: int, stop: int, picks: np.ndarray[Any, Any]
) -> str:
    columns = [reader.values(group / name, start, stop)[picks - start] for name in names]
    table = zip(picks.tolist(), *(column.tolist() for column in columns), strict=True)
    return _lines([frame, *(_cell(value) for value in values)] for frame, *values in table)


def _cell(value: float) -> str:
    return "" if value != value else f"{value:.9g}"  # only NaN differs from itself


def _lines(rows: Any) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()
