"""Tables of the hosted service's client: its names of columns for what a server replies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from atomstream.optional import load

if TYPE_CHECKING:
    import pandas

_PROJECT: Final = {
    "id": "Project ID",
    "name": "Project Name",
    "physical_sample_count": "Physical Sample Count",
    "last_updated": "Last Updated",
    "owner_name": "Owner",
}
_SAMPLE: Final = {
    "id": "Physical Sample ID",
    "name": "Physical Sample Name",
    "project_id": "Project ID",
    "project_name": "Project Name",
    "target_material": "Target Material",
    "detail_notes": "Sample Notes",
    "num_data_items": "Data Items",
    "created_datetime": "Created Datetime",
    "last_updated": "Last Updated",
    "owner_name": "Owner",
}
_POINT: Final = {
    "time_seconds": "Time",
    "relative_time_seconds": "Relative Time",
    "unix_timestamp_ms": "UNIX Timestamp",
    "specular_intensity": "Specular Intensity",
    "first_order_intensity": "First Order Intensity",
    "first_order_intensity_l": "First Order Intensity L",
    "first_order_intensity_r": "First Order Intensity R",
    "half_order_intensity": "Half Order Intensity",
    "half_order_intensity_l": "Half Order Intensity L",
    "half_order_intensity_r": "Half Order Intensity R",
    "specular_fwhm_1": "Specular FWHM",
    "first_order_fwhm_1": "First Order FWHM",
    "spot_count": "Diffraction Spot Count",
    "lattice_spacing": "Lattice Spacing",
    "referenced_strain": "Strain",
    "nearest_neighbor_strain": "Cumulative Strain",
    "oscillation_period": "Oscillation Period",
    "reconstruction_intensity": "Reconstruction Intensity",
    "cluster_id": "Cluster ID",
    "cluster_std": "Cluster ID Uncertainty",
}
_VIEW: Final = (
    "data_id", "seed_frame", "view_id", "interval_id", "processed_data_id", "start_frame", "end_frame",
    "start_unix_ms", "end_unix_ms", "rpm", "azimuth_source", "azimuth_label",
)  # fmt: skip
_CHANGE: Final = (
    "id", "data_id", "data_modality", "property_name", "severity", "score", "window_start_elapsed",
    "window_end_elapsed", "detection_method", "detail",
)  # fmt: skip
_SERIES: Final = (
    "property_name", "real_time_seconds", "unix_times", "value", "result_id", "last_updated",
    "generating_dbos_workflow_id",
)  # fmt: skip


def projects_table(projects: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per project."""
    return _renamed(projects, _PROJECT)


def samples_table(samples: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per physical sample; its project is the first one."""
    rows = []
    for sample in samples:
        first = (sample.get("projects") or [{}])[0]
        row = {name: value for name, value in sample.items() if name != "projects"}
        rows.append(row | {"project_id": first.get("id"), "project_name": first.get("name")})
    return _renamed(rows, _SAMPLE)


def points_table(series_by_angle: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per point, with the index (View ID, Frame Number). Properties without any value have no column."""
    pandas = load("pandas", "get_rheed_timeseries", "frames")
    rows = []
    for view in series_by_angle:
        about = {
            "Angle": view.get("angle"),
            "Interval ID": view.get("interval_id"),
            "Azimuth Label": view.get("azimuth_label"),
        }
        for point in view["series"]:
            values = {name: value for name, value in point.items() if name != "low_level_features"}
            named = {
                _POINT.get(name, name): value for name, value in values.items() if name != "frame_number"
            }
            place = {"View ID": view.get("view_id"), "Frame Number": values.get("frame_number")}
            rows.append(place | named | (point.get("low_level_features") or {}) | about)
    always = ["View ID", "Frame Number", "Time", "Relative Time", "UNIX Timestamp"]
    last = ["Angle", "Interval ID", "Azimuth Label"]
    table = pandas.DataFrame(rows, columns=None if rows else always + last)
    empty = [name for name in table.columns if name not in always + last and table[name].isna().all()]
    table = table.drop(columns=empty)
    middle = [name for name in table.columns if name not in always + last]
    return table[always + middle + last].set_index(["View ID", "Frame Number"])


def by_time(data_id: str, points: pandas.DataFrame) -> pandas.DataFrame:
    """The points of one stream over UTC, with the columns (data_id, "rheed", property)."""
    pandas = load("pandas", "align", "frames")
    flat = points.reset_index(drop=True)
    times = pandas.to_datetime(flat.pop("UNIX Timestamp").astype(float), unit="ms", utc=True)
    flat = flat.drop(columns=["Time", "Relative Time", "Interval ID", "Azimuth Label"])
    flat.index = pandas.DatetimeIndex(times, name="time")
    flat.columns = pandas.MultiIndex.from_tuples([(data_id, "rheed", name) for name in flat.columns])
    return flat.sort_index(kind="stable")


def side_by_side(tables: Sequence[pandas.DataFrame]) -> pandas.DataFrame:
    """Tables over time, joined: one row per time of any of them, empty where a stream has no point."""
    pandas = load("pandas", "align", "frames")
    whole = pandas.DataFrame(index=pandas.DatetimeIndex([], tz="UTC", name="time"))
    for number, table in enumerate(table for table in tables if len(table)):
        unique = table[~table.index.duplicated(keep="last")]
        whole = unique if number == 0 else whole.join(unique, how="outer")
    return whole


def views_table(views: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per view of an azimuth."""
    pandas = load("pandas", "get_rheed_azimuths", "frames")
    rows = [
        {name: view.get(name) for name in _VIEW} | {"label_confidence": view.get("confidence")}
        for view in views
    ]
    return pandas.DataFrame(rows, columns=[*_VIEW, "label_confidence"])


def changes(changepoints: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The changes as maps."""
    return [
        {name: one.get(name) for name in _CHANGE} | {"label": one.get("label_category")}
        for one in changepoints
    ]


def changes_table(changepoints: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per change."""
    pandas = load("pandas", "get_changepoints", "frames")
    return pandas.DataFrame(changes(changepoints), columns=[*_CHANGE, "label"])


def series_table(properties: Iterable[Mapping[str, Any]], names: Iterable[str] = ()) -> pandas.DataFrame:
    """One row per property and point, of these properties only if any are named."""
    pandas = load("pandas", "get_physical_sample_timeseries", "frames")
    wanted = set(names)
    parts = []
    for one in properties:
        if wanted and one["property_name"] not in wanted:
            continue
        about = {name: one.get(name) for name in ("result_id", "last_updated", "generating_dbos_workflow_id")}
        values = {
            "real_time_seconds": one["real_time_seconds"],
            "unix_times": one["unix_times"],
            "value": [float("nan") if value is None else float(value) for value in one["property_values"]],
        }
        parts.append(pandas.DataFrame(values).assign(property_name=one["property_name"], **about))
    whole = pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=list(_SERIES))
    return whole[list(_SERIES)]


def _renamed(rows: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> pandas.DataFrame:
    """A table with these columns first, and behind them what else the server states."""
    pandas = load("pandas", "this table", "frames")
    table = pandas.DataFrame([dict(row) for row in rows]).rename(columns=dict(names))
    more = [name for name in table.columns if name not in names.values()]
    return table.reindex(columns=[*names.values(), *more])
