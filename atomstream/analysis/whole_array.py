"""Analysis of a whole array of frames: the online analyzer with a readable result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from atomstream import html
from atomstream.analysis.analyzer import Analyzer
from atomstream.analysis.calibration import Calibration
from atomstream.analysis.shapes import Region
from atomstream.optional import load
from atomstream.plots import plot_columns
from atomstream.records import Frames
from atomstream.results import F64, UNITS, Batch, Event, Measurement, Segment, View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READ_STEP_S = 2.0
"""Length, in s, of the parts in which the frames are read."""

SUMMARY_VALUES = (
    *("growth_rate_ml_s", "oscillations_counted", "damping_layers", "lattice_spacing", "lattice_parameter"),
    *("relative_lattice_change", "specular_fwhm_1", "half_order_ratio", "spottiness", "rotation_rpm"),
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Analysis:
    """Result of :func:`analyze`.

    ``frames`` maps column names (:data:`UNITS`) to (N,) float64, NaN where undetermined. ``values`` are the scalar
    results at the last frame, ``events``, ``segments`` and ``views`` those of the whole array (see :class:`Batch`).
    """

    fps: float
    frames: dict[str, F64]
    values: dict[str, Measurement]
    events: tuple[Event, ...]
    segments: tuple[Segment, ...]
    views: tuple[View, ...]
    calibration: Calibration

    def to_pandas(self) -> Any:
        """Per-frame columns as a pandas DataFrame indexed by time (s); ``attrs["units"]`` has the units."""
        pandas = load("pandas", "to_pandas", "frames")
        columns = {name: values for name, values in self.frames.items() if name != "time_seconds"}
        table = pandas.DataFrame(
            columns, index=pandas.Index(self.frames["time_seconds"], name="time_seconds")
        )
        table.attrs["units"] = {name: unit_of(name) for name in columns}
        return table

    def to_xarray(self) -> Any:
        """Per-frame columns as an xarray Dataset over ``time`` (s), with units and the calibration as attributes."""
        xarray = load("xarray", "to_xarray", "frames")
        data = {
            name: ("time", values, {"units": unit_of(name)})
            for name, values in self.frames.items()
            if name != "time_seconds"
        }
        fields = ("beam_energy", "screen_sample_distance", "px_per_mm")
        attrs = {name: getattr(self.calibration, name) for name in fields}
        time = ("time", self.frames["time_seconds"], {"units": "s"})
        return xarray.Dataset(data, {"time": time}, {k: v for k, v in attrs.items() if v is not None})

    def plot(self, *names: str) -> Figure:
        """A chart of per-frame columns; default: specular intensity and growth rate. Needs matplotlib.

        Raises:
            ConfigError: there is no such column. ImportError: matplotlib is not installed.
        """
        columns = {name: values for name, values in self.frames.items() if name != "time_seconds"}
        return plot_columns(self.frames["time_seconds"], columns, names, "", self.events)

    def _repr_html_(self) -> str:
        title = repr(self).partition("\n")[0]
        shown = html.measurements(title, self.values, SUMMARY_VALUES)
        if len(self.segments) > 1:
            rows = [
                (html.clock(one.start_s), html.clock(one.end_s), one.label, one.rate, one.counted)
                for one in self.segments[: html.MOST_ROWS]
            ]
            head = ("from", "to", "begun by", "oscillations per s", "oscillations")
            shown += html.table("Segments", rows, head) + html.more(len(self.segments))
        return shown + html.events(self.events)

    def __repr__(self) -> str:
        times = self.frames["time_seconds"]
        span = f"{times[-1] - times[0]:.1f} s" if len(times) else "no time"
        lines = [f"Analysis of {len(times)} frames over {span} ({self.fps:g} frames a second)"]
        lines += [f"  {name:<24} {self.values[name]}" for name in SUMMARY_VALUES if name in self.values]
        if len(self.segments) > 1:
            lines += [
                f"  segment {s.start_s:.1f}-{s.end_s:.1f} s ({s.label}): {s.rate}" for s in self.segments
            ]
        lines += [f"  at {e.at_s:.2f} s {e.kind}: {e.label}" for e in self.events[:12]]
        return "\n".join(lines)


def unit_of(name: str) -> str:
    """Return the unit of a per-frame column; traces of the user's regions are in counts."""
    return UNITS.get(name, "counts" if name.startswith("region:") else "1")


def analyze(
    frames: Frames,
    fps: float,
    rpm: float = 0.0,
    times_s: npt.ArrayLike | None = None,
    calibration: Calibration | None = None,
    events: Iterable[Event] = (),
    regions: Sequence[Region] = (),
) -> Analysis:
    """Analyse frames (N, H, W), uint8 or uint16, filmed at ``fps`` (1/s) with the substrate rotating at ``rpm``
    (1/min).

    ``frames`` may be any sliceable object of that shape, for example a Zarr array. ``times_s`` (N,) are the capture
    times of the frames, for frames at uneven intervals; ``events`` are the user's marks in seconds of the same clock.
    Raises ConfigError for invalid frames, settings or calibrations. A result that is undetermined is not an error.
    """
    analyzer = Analyzer(fps, rpm, calibration=calibration)
    if regions:
        analyzer.set_regions(regions)
    times = np.arange(len(frames)) / fps if times_s is None else np.asarray(times_s, dtype=np.float64)
    pending = sorted(events, key=lambda e: e.at_s)
    step, batches = max(1, round(READ_STEP_S * fps)), []
    for start in range(0, len(frames), step):
        while pending and pending[0].at_s <= times[start]:
            _mark(analyzer, pending.pop(0))
        part = slice(start, start + step)
        batches.append(analyzer.feed(start, cast("Frames", np.asarray(frames[part])), times[part]))
    for event in pending:
        _mark(analyzer, event)
    batches.append(analyzer.finish())
    return _concatenated(fps, batches, calibration or Calibration())


def _mark(analyzer: Analyzer, event: Event) -> None:
    analyzer.mark(event.label, event.kind, event.time_s)


def _concatenated(fps: float, batches: Sequence[Batch], calibration: Calibration) -> Analysis:
    names = dict.fromkeys(name for batch in batches for name in batch.frames)
    columns = {
        name: np.concatenate([b.frames.get(name, np.full(b.count, np.nan)) for b in batches])
        for name in names
    }
    last = batches[-1]
    events = tuple(event for batch in batches for event in batch.events)
    return Analysis(fps, columns, last.values, events, last.segments, last.views, calibration)
