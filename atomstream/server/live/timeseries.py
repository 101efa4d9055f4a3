"""Results in the hosted service's format: a series of points for each azimuth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from atomstream.server.live.messages import AzimuthChanges, Report
from atomstream.server.live.result_store import ResultStore
from atomstream.server.live.view_tracks import ViewPoint

PROPERTIES: Final = (
    "specular_intensity",
    *("first_order_intensity", "first_order_intensity_l", "first_order_intensity_r"),
    *("half_order_intensity", "half_order_intensity_l", "half_order_intensity_r"),
    *("specular_fwhm_1", "first_order_fwhm_1", "spot_count", "lattice_spacing"),
    *("referenced_strain", "nearest_neighbor_strain", "oscillation_period"),
    *("reconstruction_intensity", "cluster_id", "cluster_std"),
)
MAX_POINTS: Final = 20_000
"""Points in a reply. Of a longer range only every n-th frame is returned; the frame numbers show it."""
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
    """A request: the last ``last_n`` points, the last ``elapsed_s`` seconds, these properties (empty: all)."""

    last_n: int | None = None
    elapsed_s: float | None = None
    properties: tuple[str, ...] = ()
    low_level: bool = False


def series_by_angle(
    store: ResultStore, query: SeriesQuery, rpm: float, label: str | None, labels: dict[str, AzimuthChanges]
) -> list[Report]:
    """``series_by_angle`` of the protocol. Blocks.

    A stream at rest has one series with a point for each frame. A rotating stream has a series for each view with a
    point for each turn; before the end of the first turn it has the series over frames.
    """
    if rpm and store.log.view_points:
        return _views(store, query, labels)
    series = _frames(store, query)
    own = labels.get(FRAMES_VIEW, {})
    return [_entry(0.0, FRAMES_VIEW, own.get("label", label), series)]


FRAMES_VIEW: Final = "stationary"


def _entry(angle: float, view_id: str, label: str | None, series: list[Report]) -> Report:
    return {
        "angle": angle,
        "view_id": view_id,
        "interval_id": "0",
        "azimuth_label": label,
        "series": series,
    }


def _frames(store: ResultStore, query: SeriesQuery) -> list[Report]:
    start, stop = _stretch(store, query)
    step = max(1, math.ceil((stop - start) / MAX_POINTS))
    names = query.properties or PROPERTIES
    known = store.columns(start, stop)
    at = np.arange(start, stop)[::step]
    times = store.times(start, stop)[::step]
    there = np.isfinite(times)
    columns = {
        name: _column(known.get(name), name, len(at), step, there) for name in names if name in PROPERTIES
    }
    low = (
        {name: _column(values, name, len(at), step, there) for name, values in known.items()}
        if query.low_level
        else {}
    )
    points = [
        {**_place(store, int(frame), float(time)), **dict(zip(columns, row, strict=True))}
        for frame, time, *row in zip(at[there], times[there], *columns.values(), strict=True)
    ]
    for number, point in enumerate(points if low else ()):
        point["low_level_features"] = {
            name: values[number] for name, values in low.items() if name not in PROPERTIES
        }
    return points


def _stretch(store: ResultStore, query: SeriesQuery) -> tuple[int, int]:
    stop = store.log.analysed
    start = 0 if query.last_n is None else max(0, stop - query.last_n)
    if query.elapsed_s is not None and stop:
        frames = math.ceil(query.elapsed_s * store.fps)
        start = max(start, stop - frames)
    return start, stop


def _column(values: Any, name: str, count: int, step: int, there: Any) -> list[float | int | None]:
    if values is None:
        return [None] * int(np.count_nonzero(there))
    thin = values[::step][there]
    whole = name in _INTEGERS
    return [None if value != value else int(value) if whole else value for value in thin.tolist()]


def _place(store: ResultStore, frame: int, time_s: float) -> Report:
    origin = store.origin_unix_ms or 0.0
    return {
        "frame_number": frame,
        "time_seconds": time_s,
        "relative_time_seconds": time_s,
        "unix_timestamp_ms": origin + 1000.0 * time_s,
    }


def _views(store: ResultStore, query: SeriesQuery, labels: dict[str, AzimuthChanges]) -> list[Report]:
    entries = []
    for view_id, points in sorted(store.log.view_points.items()):
        changes = labels.get(str(view_id), {})
        if changes.get("enabled", True):
            newest = points[-1]["time_s"]
            kept = [
                point
                for point in points
                if query.elapsed_s is None or point["time_s"] >= newest - query.elapsed_s
            ]
            kept = kept[-query.last_n :] if query.last_n else kept
            series = [_view_point(store, point, query) for point in kept]
            entries.append(_entry(points[-1]["angle_deg"], str(view_id), changes.get("label"), series))
    return entries


def _view_point(store: ResultStore, point: ViewPoint, query: SeriesQuery) -> Report:
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
) -> list[Report]:
    """The views of ``GET /rheed/{data_id}/azimuths``: of a stream at rest there is one."""
    if not store.log.analysed:
        return []
    if not (rpm and store.log.view_points):
        changes = labels.get(FRAMES_VIEW, {})
        source = "user" if changes.get("label", label) else "none"
        return [
            _view(
                store,
                data_id,
                FRAMES_VIEW,
                rpm,
                (0, store.log.analysed - 1),
                changes,
                label,
                1.0,
                source,
                0.0,
            )
        ]
    return [
        _view(
            store, data_id, str(view_id), rpm, (points[0]["frame"], points[-1]["frame"]), labels.get(str(view_id), {}),
            None, points[-1]["confidence"], "analysis", points[-1]["angle_deg"],
        )
        for view_id, points in sorted(store.log.view_points.items())
    ]  # fmt: skip


def _view(
    store: ResultStore, data_id: str, view_id: str, rpm: float, frames: tuple[int, int], changes: AzimuthChanges,
    label: str | None, confidence: float | None, source: str, angle: float | None,
) -> Report:  # fmt: skip
    first, last = frames
    origin = store.origin_unix_ms or 0.0
    times = [float(store.times(frame, frame + 1)[0]) for frame in frames]
    return {
        "data_id": data_id,
        "view_id": view_id,
        "interval_id": "0",
        "processed_data_id": data_id,
        "seed_frame": first,
        "start_frame": first,
        "end_frame": last,
        **{
            name: origin + 1000.0 * time if math.isfinite(time) else None
            for name, time in zip(("start_unix_ms", "end_unix_ms"), times, strict=True)
        },
        "rpm": rpm,
        "azimuth_source": source,
        "azimuth_label": changes.get("label", label),
        "confidence": confidence,
        "annotation": {"enabled": changes.get("enabled", True), "angle_deg": angle},
    }
