"""HDF5 in the NeXus layout (``.h5``, ``.nxs``) and netCDF-4 (``.nc``), with frames, results, marks and calibration.

NeXus: nexusformat.org, classes NXentry, NXdetector, NXdata, NXsample. netCDF-4 is HDF5 with dimension scales, so the
same library writes it. Nothing is compressed or divided into chunks: so an export runs
at the speed of the disk, and every reader opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from atomstream.long_names import long_name_of
from atomstream.server.export.careful_file import new_hdf5
from atomstream.server.export.growth import Growth, utc_text
from atomstream.version import __version__

if TYPE_CHECKING:
    import h5py

TIME_NAMES: Final = {
    "time": "capture time from the stream's start",
    "frame": "number of the frame in the stream",
}


def write_nexus(growth: Growth, path: Path, *, pixels: bool = True) -> None:
    """Write ``path`` in the NeXus layout: ``/entry/data`` has the frames, ``/entry/results`` the values per frame."""
    with new_hdf5(path) as (file, target):
        file.attrs["default"] = "entry"
        entry = _group(file, "entry", "NXentry", default="data")
        _describe(growth, entry)
        detector = _group(_group(entry, "instrument", "NXinstrument"), "detector", "NXdetector")
        results = _group(entry, "results", "NXdata", axes=["time"])
        tables = _Tables(growth, results, detector if pixels else None)
        tables.fill(target.check)
        data = _group(entry, "data", "NXdata")
        data["time"] = results["time"]
        if tables.frames is not None:
            data["frames"] = tables.frames
            data.attrs["signal"], data.attrs["axes"] = "frames", ["time", "y", "x"]
        elif "specular_intensity" in results:
            data["specular_intensity"] = results["specular_intensity"]
            data.attrs["signal"], data.attrs["axes"] = "specular_intensity", ["time"]
        if "specular_intensity" in results:
            results.attrs["signal"] = "specular_intensity"
        _write_annotations(growth, entry)


def write_netcdf(growth: Growth, path: Path, *, pixels: bool = True) -> None:
    """Write ``path`` as netCDF-4: variables with the dimensions ``time``, ``y``, ``x``, the rest as attributes."""
    with new_hdf5(path) as (file, target):
        for name, value in _attributes(growth).items():
            file.attrs[name] = value
        _Tables(growth, file, file if pixels else None).fill(target.check)
        status = growth.status
        parts = {
            "events": status.events,
            "segments": status.segments,
            "regions": status.regions,
            "calibration": status.calibration,
            "values": status.values,
        }
        for name, part in parts.items():
            file.attrs[f"{name}_json"] = msgspec.json.encode(part).decode()


class _Tables:
    """Writes frames and values, piece by piece, into datasets that share the dimension ``time``."""

    def __init__(self, growth: Growth, group: h5py.Group, detector: h5py.Group | None) -> None:
        self._growth = growth
        self._group = group
        self._detector = detector if growth.archive.geometry is not None else None
        self.frames: h5py.Dataset | None = None

    def fill(self, check: Callable[[], None]) -> None:
        """Make all datasets and write their values. ``check`` raises if what was written is not on the disk."""
        growth, rows = self._growth, self._growth.n_exported
        columns = growth.columns()
        time = self._dataset("time", np.float64, "s", TIME_NAMES["time"], rows)
        time.make_scale("time")
        number = self._dataset("frame", np.int64, "1", TIME_NAMES["frame"], rows)
        if growth.origin is not None:
            time.attrs["start"] = utc_text(growth.status.origin_unix_ms)
        values = {
            name: self._dataset(name, np.float32, unit, long_name_of(name), rows)
            for name, unit in columns.items()
        }
        for one in (number, *values.values()):
            one.dims[0].attach_scale(time)
        if self._detector is not None:
            self.frames = self._make_frames(self._detector, time, rows)
        at = 0
        with closing(growth.pieces(pixels=self.frames is not None)) as pieces:
            for piece in pieces:
                stop = at + len(piece.numbers)
                time[at:stop], number[at:stop] = piece.time_s, piece.numbers
                for name, column in piece.columns.items():
                    values[name][at:stop] = column
                if self.frames is not None and piece.frames is not None:
                    self.frames[at:stop] = piece.frames
                at = stop
                check()

    def _dataset(self, name: str, dtype: Any, unit: str, long_name: str, rows: int) -> h5py.Dataset:
        made = self._group.create_dataset(name, (rows,), dtype)
        made.attrs["units"], made.attrs["long_name"] = _text(unit), _text(long_name)
        return made

    def _make_frames(self, group: h5py.Group, time: h5py.Dataset, rows: int) -> h5py.Dataset:
        geometry = self._growth.archive.geometry
        assert geometry is not None
        height, width = geometry.height, geometry.width
        made = group.create_dataset("frames", (rows, height, width), np.dtype(geometry.dtype))
        made.attrs["units"], made.attrs["long_name"] = "counts", "RHEED frames"
        made.dims[0].attach_scale(time)
        for axis, (name, size) in enumerate((("y", height), ("x", width)), start=1):
            scale = group.create_dataset(name, data=np.arange(size, dtype=np.int32))
            scale.make_scale(name)
            scale.attrs["units"] = "px"
            made.dims[axis].attach_scale(scale)
        return made


def _attributes(growth: Growth) -> dict[str, str | float]:
    metadata = growth.metadata
    named = {"sample": metadata.sample, "project": metadata.project}
    return {
        "title": _text(metadata.name),
        "data_id": metadata.data_id,
        "start_time": utc_text(growth.status.origin_unix_ms),
        "fps": metadata.fps,
        "rotations_per_min": metadata.rotations_per_min,
        "azimuth": _text(metadata.azimuth_label or ""),
        **{name: _text(one.name) for name, one in named.items() if one is not None},
        "tags": ", ".join(_text(tag.name) for tag in metadata.tags),
        "attributes_json": msgspec.json.encode(metadata.attributes).decode(),
        "program": f"atomstream {__version__}",
    }


def _describe(growth: Growth, entry: h5py.Group) -> None:
    described = _attributes(growth)
    sample = described.pop("sample", None)
    for name, value in described.items():
        entry[name] = value
    if sample is not None:
        _group(entry, "sample", "NXsample")["name"] = sample


def _write_annotations(growth: Growth, entry: h5py.Group) -> None:
    status = growth.status
    _table(
        _group(entry, "events", "NXcollection"),
        {
            "time": ([event.at_s for event in status.events], "s"),
            "time_utc": ([utc_text(event.time_ms_utc) for event in status.events], ""),
            "kind": ([_text(event.kind) for event in status.events], ""),
            "label": ([_text(event.label) for event in status.events], ""),
            "value": ([_nan(event.value) for event in status.events], ""),
            "unit": ([_text(event.unit) for event in status.events], ""),
            "by": ([event.by for event in status.events], ""),
        },
    )
    segments = status.segments
    _table(
        _group(entry, "segments", "NXcollection"),
        {
            "number": ([float(one.number) for one in segments], ""),
            "start": ([_nan(one.start_s) for one in segments], "s"),
            "end": ([_nan(one.end_s) for one in segments], "s"),
            "label": ([_text(one.label) for one in segments], ""),
            "growth_rate": ([_nan(one.rate.value) for one in segments], "1/s"),
            "growth_rate_sigma": ([_nan(one.rate.sigma) for one in segments], "1/s"),
            "oscillations": ([_nan(one.counted.value) for one in segments], "1"),
            "oscillations_sigma": ([_nan(one.counted.sigma) for one in segments], "1"),
        },
    )
    values = _group(entry, "final_values", "NXcollection")
    for name, measurement in status.values.items():
        value = values.create_dataset(name, data=_nan(measurement.value))
        value.attrs["units"] = _text(measurement.unit)
        value.attrs["sigma"] = _nan(measurement.sigma)
        value.attrs["why_undetermined"] = _text(measurement.why)  # it may have the name of a region
        value.attrs["note"] = _text(measurement.note)
    calibration = _group(entry, "calibration", "NXcollection")
    for name, given in msgspec.to_builtins(status.calibration).items():
        if given is not None:
            calibration[name] = _text(given) if isinstance(given, str) else given
    entry["regions_json"] = msgspec.json.encode(status.regions).decode()


TEXTS: Final = frozenset({"label", "kind", "by", "time_utc", "unit"})
"""Columns of texts, also where they are empty."""


def _table(group: h5py.Group, columns: Mapping[str, tuple[list[float] | list[str], str]]) -> None:
    import h5py

    for name, (values, unit) in columns.items():
        text = bool(values) and isinstance(values[0], str)
        dtype = h5py.string_dtype() if text or name in TEXTS else np.float64
        made = group.create_dataset(
            name, data=np.array(values, dtype=object if dtype != np.float64 else None), dtype=dtype
        )
        if unit:
            made.attrs["units"] = unit


def _group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    made = parent.create_group(name, track_order=True)
    made.attrs["NX_class"] = nx_class
    for key, value in attributes.items():
        made.attrs[key] = value
    return made


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _text(text: str) -> str:
    """A user's text without NUL characters, which HDF5 does not allow in a text."""
    return text.replace("\0", " ")
