"""Curves that the page draws beside the charts: amplitude spectra of traces, and a line profile with its fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiohttp import web

from atomstream.analysis import Box, Line
from atomstream.analysis.spectrum import MOST_VALUES, amplitude_spectrum, reduced
from atomstream.results import F64, UNITS
from atomstream.server.archive.downsampling import ColumnReader
from atomstream.server.archive.stream_archive import StreamArchive
from atomstream.server.context import context_of, results_of
from atomstream.server.dashboard.images import PictureSource, source_of
from atomstream.server.dashboard.series import (
    READER,
    brief,
    checked_names,
    find_range,
    in_order,
    number,
    span_of,
)
from atomstream.server.http.access import access
from atomstream.server.http.responses import HttpError, json_reply
from atomstream.server.live.annotation_records import to_region
from atomstream.server.live.stored_results import StoredResults
from atomstream.server.people.rights import Right

routes = web.RouteTableDef()

MEAN_OF: Final = 16
"""Most frames whose mean a profile is: their noise is a quarter of that of one frame."""
MEAN_S: Final = 0.5
"""Longest time in s over which they are taken, so that a profile is of one moment."""


@routes.get("/dashboard/streams/{data_id}/spectrum")
@access(Right.READ)
async def spectrum(request: web.Request) -> web.Response:
    """Query as for ``/series``: ``name`` (repeated), ``points``, and ``from``/``to`` or ``last``.

    The reply has for each name ``frequency`` (1/s) and ``amplitude`` in the trace's unit, or ``why`` there is none, and
    ``resolution`` (1/s).
    """
    query, context = request.query, context_of(request)
    names = checked_names(query.getall("name", ()))
    points = int(number(query, "points", 800, 16, 4000))
    archive = await context.streams.archive(request.match_info["data_id"])
    group, n_frames, span = archive.folder / "frames.zarr", archive.n_frames(), span_of(query)
    reader, fps = request.app[READER], (await context.streams.about(request.match_info["data_id"])).fps
    return await context.readers.series.run(
        request, lambda: json_reply(_spectra(reader, group, n_frames, names, span, points, fps))
    )


def _spectra(
    reader: ColumnReader,
    group: Path,
    n_frames: int,
    names: list[str],
    span: tuple[float, float, float | None],
    points: int,
    fps: float,
) -> dict[str, Any]:
    found = find_range(reader, group, n_frames, span, MOST_VALUES)
    order = in_order(found.times)
    order = order[(found.times[order] >= found.first_s) & (found.times[order] <= found.last_s)]
    times = found.times[order]
    made: dict[str, dict[str, Any]] = {}
    averaged_s = found.size / fps if found.size > 1 else 0.0
    for name in names:
        values = reader.buckets(group / name, found.start, found.stop, found.size, found.files).mean[order]
        result = amplitude_spectrum(times, values, averaged_s)
        if isinstance(result, str):
            made[name] = {"why": result}
            continue
        small = reduced(result, points)
        made[name] = {
            "unit": UNITS.get(name, ""),
            "frequency": _brief(small.frequency_hz, 6),
            "amplitude": _brief(small.amplitude, 7),
            "resolution": result.resolution_hz,
        }
    ends = (float(times[0]), float(times[-1])) if len(times) else (None, None)
    return {"from_s": ends[0], "to_s": ends[1], "series": made}


@routes.get("/dashboard/streams/{data_id}/profile")
@access(Right.READ)
async def profile(request: web.Request) -> web.Response:
    """Query: ``line`` (the name of a line or box, or "streaks"), and ``time`` in s (default: the newest frame).

    The reply has the ``values`` along the line, one for each px, as the mean of ``frames`` frames at ``time_s``, and
    its ``peaks``: position, full width at half maximum and height with the fitted ``curve`` from position ``first`` on.
    The profile of a box goes from its left to its right side, as the mean over its height.
    """
    at = number(request.query, "time", math.inf, 0.0, math.inf)
    results, name = await results_of(request), request.query.get("line", "streaks")
    region = region_line(results, name)
    source, archive = (
        await source_of(request),
        await context_of(request).streams.archive(results.metadata.data_id),
    )
    # Consecutive frames of a rotating sample show different azimuths: their mean would be not a profile.
    most = 1 if results.metadata.rotations_per_min else MEAN_OF
    most = max(1, min(most, round(MEAN_S * results.metadata.fps)))
    pictures = context_of(request).readers.pictures
    return await pictures.run(request, lambda: json_reply(_profile(source, archive, region, at, most)))


def _brief(values: F64, digits: int) -> list[float]:
    return brief(np.asarray(values, dtype=np.float64), digits)


def region_line(results: StoredResults, name: str) -> Line:
    """The line, or box as a line, of that name; raises HttpError 404."""
    report = results.regions()
    known = (*report.regions, *report.detected_regions)
    found = next((as_line(to_region(one)) for one in known if one.name == name), None)
    if found is None:
        raise HttpError(404, f"There is no line {name[:64]!r} on this stream (yet).")
    return found


def as_line(region: Box | Line) -> Line:
    """The region itself, or the line through the middle of a box from left to right, as wide as the box is high."""
    if isinstance(region, Line):
        return region
    half, wide = 0.5 * (region.width - 1), min(999.0, max(1.0, region.height))
    return Line(
        name=region.name, x0=region.x - half, y0=region.y, x1=region.x + half, y1=region.y, width=wide
    )


def _profile(
    source: PictureSource, archive: StreamArchive, line: Line, at: float, most: int
) -> dict[str, Any]:
    # At the first use: scipy, which takes a second and which the server needs for nothing else.
    from atomstream.analysis.profile_peaks import fit_peaks
    from atomstream.analysis.regions import line_profile

    last = source.frame_at(at) + 1
    frames = archive.frames(max(0, last - most), last)
    # Frames that are missing are black.
    frames = frames[frames.any(axis=(1, 2))] if frames.size else frames
    if not len(frames):
        raise HttpError(404, "This stream has no frames at that time.")
    values = line_profile(np.asarray(frames.mean(axis=0, dtype=np.float64)), line)
    peaks = fit_peaks(values)
    return {
        "time_s": source.time_of(last - 1),
        "frames": len(frames),
        "unit": "counts",
        "values": _brief(values, 5),
        "peaks": [
            {
                "centre": float(peak.centre),
                "sigma": float(peak.sigma),
                "fwhm": float(peak.width.total),
                "fwhm_sigma": float(peak.width.sigma),
                "height": float(peak.width.height),
                "first": peak.first,
                "curve": _brief(peak.curve, 5),
            }
            for peak in peaks
        ],
    }
