"""Results in the hosted service's format: a series of points for each azimuth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from atomstream.server.archive.abandoned import check_wanted
from atomstream.server.archive.frame_runs import Numbers
from atomstream.server.live.annotation_records import AzimuthChanges
from atomstream.server.live.messages import AngleSeries, AzimuthView, SeriesPoint, ViewAnnotation
from atomstream.server.live.result_store import ResultStore
from atomstream.server.live.view_tracks import ViewPoint, ViewTrack

PROPERTIES: Final = (
    "specular_intensity",
    *("first_order_intensity", "first_order_intensity_l", "first_order_intensity_r"),
    *("half_order_intensity", "half_order_intensity_l", "half_order_intensity_r"),
    *("specular_fwhm_1", "first_order_fwhm_1", "spot_count", "lattice_spacing"),
    *("referenced_strain", "nearest_neighbor_strain", "oscillation_period"),
    *("reconstruction_intensity", "cluster_id", "cluster_std"),
)
MAX_POINTS: Final = 20_000
"""Points in a reply. Of more frames only every n-th stored one is returned; the frame numbers show it."""
MAX_VALUES: Final = 600_000
"""Values in a reply with low-level features, of which a stream may have hundreds: then there are fewer points."""
CHECK_EACH: Final = 1000
"""Number of points between two checks whether the client is still connected."""
_OF_VIEW: Final = {
    "turns": "turns",
    "azimuth_angle": "angle_deg",
    "mirror_symmetry": "confidence",
    "lattice_spacing_sigma": "spacing_sigma_px",
}
"""Low-level features of a view, and their names in its track."""
_INTEGERS: Final = frozenset({"spot_count", "cluster_id"})


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """A request: the last ``last_n`` points, the last ``elapsed_s`` seconds, these properties (empty: all).

    Of more than ``most`` points only every n-th one is returned.
    """

    last_n: int | None = None
    elapsed_s: float | None = None
    properties: tuple[str, ...] = ()
    low_level: bool = False
    most: int = MAX_POINTS


def series_by_angle(
    store: ResultStore, query: SeriesQuery, rpm: float, label: str | None, labels: dict[str, AzimuthChanges]
) -> list[AngleSeries]:
    """``series_by_angle`` of the protocol. Blocks.

    A stream without rotation has one series with a point for each frame. A rotating stream has a series for each view
    with a point for each turn; before the end of the first turn it has the series over frames.
    """
    if rpm and store.log.view_points:
        return _views(store, query, labels)
    series = _frames(store, query)
    label = labels.get(FRAMES_VIEW, AzimuthChanges()).label_or(label)
    return [AngleSeries(angle=0.0, view_id=FRAMES_VIEW, azimuth_label=label, series=series)]


FRAMES_VIEW: Final = "stationary"


def _frames(store: ResultStore, query: SeriesQuery) -> list[SeriesPoint]:
    names = [name for name in query.properties or PROPERTIES if name in PROPERTIES]
    n_columns = len(names) + (store.n_columns if query.low_level else 0)
    at = _picks(store, query, min(query.most, MAX_VALUES // max(1, n_columns)))
    at = at[np.isfinite(times := store.times_at(at))]
    times = times[np.isfinite(times)]
    known = store.columns_at(at, None if query.low_level else names)
    columns = {name: _column(known.get(name), name, len(at)) for name in names}
    low = (
        {name: _column(values, name, len(at)) for name, values in known.items() if name not in PROPERTIES}
        if query.low_level
        else {}
    )
    points: list[SeriesPoint] = []
    for frame, time, *row in zip(at.tolist(), times.tolist(), *columns.values(), strict=True):
        if len(points) % CHECK_EACH == 0:
            check_wanted()
        points.append({**_place(store, frame, time), **dict(zip(columns, row, strict=True))})
    for number, point in enumerate(points if low else ()):
        point["low_level_features"] = {name: values[number] for name, values in low.items()}
    return points


def _picks(store: ResultStore, query: SeriesQuery, most: int) -> Numbers:
    """The frames of the reply: stored and analysed ones, at most ``most``, evenly among those that are stored."""
    runs, analysed = store.frame_runs(), store.log.analysed
    stop = runs.rank(analysed)
    start = 0 if query.last_n is None else max(0, stop - query.last_n)
    if query.elapsed_s is not None:
        start = max(start, runs.rank(analysed - math.ceil(query.elapsed_s * store.fps)))
    step = max(1, math.ceil((stop - start) / most))
    return runs.frames(np.arange(start, stop, step, dtype=np.int64))


def _column(values: Any, name: str, count: int) -> list[float | int | None]:
    if values is None:
        return [None] * count
    whole = name in _INTEGERS
    return [None if value != value else int(value) if whole else value for value in values.tolist()]


def _place(store: ResultStore, frame: int, time_s: float) -> SeriesPoint:
    origin = store.origin_unix_ms or 0.0
    return {
        "frame_number": frame,
        "time_seconds": time_s,
        "relative_time_seconds": time_s,
        "unix_timestamp_ms": origin + 1000.0 * time_s,
    }


def _views(store: ResultStore, query: SeriesQuery, labels: dict[str, AzimuthChanges]) -> list[AngleSeries]:
    entries = []
    for view_id, points in sorted(store.log.view_points.items()):
        changes = labels.get(str(view_id), AzimuthChanges())
        if changes.is_enabled:
            newest = points[-1]["time_s"]
            kept = [
                point
                for point in points
                if query.elapsed_s is None or point["time_s"] >= newest - query.elapsed_s
            ]
            kept = kept[-query.last_n :] if query.last_n else kept
            series = [_view_point(store, point, query) for point in kept]
            entries.append(
                AngleSeries(
                    angle=points[-1]["angle_deg"],
                    view_id=str(view_id),
                    azimuth_label=changes.label_or(None),
                    series=series,
                )
            )
    return entries


def _view_point(store: ResultStore, point: ViewPoint, query: SeriesQuery) -> SeriesPoint:
    measured = {
        "specular_intensity": point["specular_intensity"],
        "lattice_spacing": point["spacing_px"],
        "oscillation_period": point["oscillation_period"],
    }
    names = [name for name in query.properties or PROPERTIES if name in PROPERTIES]
    return {
        **_place(store, point["frame"], point["time_s"]),
        **{name: measured.get(name) for name in names},
        **(
            {"low_level_features": {name: point[key] for name, key in _OF_VIEW.items()}}
            if query.low_level
            else {}
        ),
    }


def azimuths(
    store: ResultStore, data_id: str, rpm: float, label: str | None, labels: dict[str, AzimuthChanges]
) -> list[AzimuthView]:
    """The views of ``GET /rheed/{data_id}/azimuths``: a stream without rotation has one."""
    if not store.log.analysed:
        return []
    if rpm and store.log.view_points:
        return [
            _view(store, data_id, str(view_id), rpm, points, labels.get(str(view_id), AzimuthChanges()))
            for view_id, points in sorted(store.log.view_points.items())
        ]
    changes, last = labels.get(FRAMES_VIEW, AzimuthChanges()), store.log.analysed - 1
    start, end = _unix_ms(store, 0), _unix_ms(store, last)
    return [
        AzimuthView(
            data_id=data_id,
            view_id=FRAMES_VIEW,
            processed_data_id=data_id,
            seed_frame=0,
            start_frame=0,
            end_frame=last,
            start_unix_ms=start,
            end_unix_ms=end,
            rpm=rpm,
            azimuth_source="user" if changes.label_or(label) else "none",
            azimuth_label=changes.label_or(label),
            confidence=1.0,
            annotation=ViewAnnotation(enabled=changes.is_enabled, angle_deg=0.0),
        )
    ]


def _view(
    store: ResultStore, data_id: str, view_id: str, rpm: float, points: ViewTrack, changes: AzimuthChanges
) -> AzimuthView:
    first, last = points[0]["frame"], points[-1]["frame"]
    return AzimuthView(
        data_id=data_id,
        view_id=view_id,
        processed_data_id=data_id,
        seed_frame=first,
        start_frame=first,
        end_frame=last,
        start_unix_ms=_unix_ms(store, first),
        end_unix_ms=_unix_ms(store, last),
        rpm=rpm,
        azimuth_source="analysis",
        azimuth_label=changes.label_or(None),
        confidence=points[-1]["confidence"],
        annotation=ViewAnnotation(enabled=changes.is_enabled, angle_deg=points[-1]["angle_deg"]),
    )


def _unix_ms(store: ResultStore, frame: int) -> float | None:
    """Capture time of a frame; None if it has none."""
    time_s = float(store.times(frame, frame + 1)[0])
    return (store.origin_unix_ms or 0.0) + 1000.0 * time_s if math.isfinite(time_s) else None
