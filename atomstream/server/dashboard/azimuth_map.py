"""``GET /dashboard/streams/{id}/azimuth-map``: the profile along a line over the azimuth of a rotating sample."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from aiohttp import web

from atomstream.analysis import Line
from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.archive.frame_search import MAX_REACH
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of, results_of
from atomstream.server.dashboard.curves import region_line
from atomstream.server.dashboard.images import PictureSource, source_of
from atomstream.server.dashboard.series import READER, number
from atomstream.server.http.access import access
from atomstream.server.http.responses import HttpError
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

BINS: Final = 120
"""Most azimuths of a map: 3 degrees each. One frame is read for each."""
MAX_COLUMNS: Final = 1024
"""Longest profile that is sent; of a longer one neighbouring values are averaged."""


@routes.get("/dashboard/streams/{data_id}/azimuth-map")
@access(Right.READ)
async def azimuth_map(request: web.Request) -> web.Response:
    """Query: ``line`` as for ``/profile``, ``time`` in s: the map is of the last whole turn before it.

    The body has float32 rows, one for each of ``Atomstream-Rows`` azimuths of equal distance from 0 on, NaN where no
    frame was; each is the profile of one frame.
    """
    at = number(request.query, "time", math.inf, 0.0, math.inf)
    results = await results_of(request)
    line = region_line(results, request.query.get("line", "streaks"))
    metadata = results.metadata
    refined = results.newest()[0].get("rotation_rpm")
    rpm = abs(metadata.rotations_per_min if refined is None or refined.value is None else refined.value)
    per_turn = 60.0 * metadata.fps / rpm if rpm > 0 else math.inf
    if not 2.0 <= per_turn < MAX_REACH:
        raise HttpError(404, "The sample does not turn, or too fast or too slowly for this frame rate.")
    source, archive = await source_of(request), await context_of(request).streams.archive(metadata.data_id)
    reader = request.app[READER]
    pictures = context_of(request).readers.pictures
    rows = await pictures.run(request, lambda: _map(source, archive, reader, line, at, per_turn))
    headers = {
        "Atomstream-Rows": str(rows.shape[0]),
        "Atomstream-Columns": str(rows.shape[1]),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    body = rows.astype("<f4").tobytes()
    return web.Response(body=body, headers=headers, content_type="application/octet-stream")


def frames_by_azimuth(
    last: int, azimuths_deg: npt.NDArray[np.floating[Any]], per_turn: float, bins: int
) -> dict[int, int]:
    """The frame nearest to the middle of each of ``bins`` bins of azimuth, in the turn that ends with ``last``.

    ``azimuths_deg`` (n,): measured azimuths of the n frames up to ``last``; where they are not known (NaN), frame 0 is
    at 0 degrees and a turn takes ``per_turn`` frames. Bins without a frame are left out.
    """
    numbers = np.arange(last - len(azimuths_deg) + 1, last + 1)
    nominal = 360.0 * np.mod(numbers / per_turn, 1.0)
    azimuths = np.mod(np.where(np.isfinite(azimuths_deg), azimuths_deg, nominal), 360.0)
    places = azimuths / 360.0 * bins
    chosen = np.minimum(places.astype(np.int64), bins - 1)
    off = np.abs(places - chosen - 0.5)
    found: dict[int, int] = {}
    for index in np.argsort(-off, kind="stable").tolist():  # the nearest one of a bin comes last
        found[int(chosen[index])] = int(numbers[index])
    return found


def _map(
    source: PictureSource,
    archive: StreamArchive,
    reader: ColumnReader,
    line: Line,
    at: float,
    per_turn: float,
) -> npt.NDArray[np.float64]:
    from atomstream.analysis.regions import line_profile  # scipy, at the first use

    last = source.frame_at(at)
    first = max(0, last + 1 - math.ceil(per_turn))
    azimuths = reader.values(archive.folder / "frames.zarr" / "azimuth_angle", first, last + 1)
    bins = min(BINS, max(2, math.floor(per_turn)))
    profiles: dict[int, npt.NDArray[np.float64]] = {}
    for place, frame in frames_by_azimuth(last, azimuths, per_turn, bins).items():
        check_wanted()
        pictures = archive.frames(frame, frame + 1)
        if pictures.size and pictures.any():  # a missing frame is black
            profiles[place] = _shortened(
                np.asarray(line_profile(pictures[0].astype(np.float64), line), dtype=np.float64)
            )
    if not profiles:
        raise HttpError(404, "This stream has no frames at that time.")
    rows = np.full((bins, len(next(iter(profiles.values())))), np.nan)
    for place, profile in profiles.items():
        rows[place] = profile
    return rows


def _shortened(profile: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = -(-len(profile) // MAX_COLUMNS)
    whole = len(profile) // size * size
    return np.asarray(profile[:whole].reshape(-1, size).mean(axis=1), dtype=np.float64)
