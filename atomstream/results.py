"""A number with its uncertainty, or the word "undetermined" and why: what every result is made of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Value:
    """One result: ``value`` and its standard uncertainty ``sigma`` in ``unit``, or None and a reason.

    ``why`` says why there is no number and what would help; it is empty where there is one. ``note`` is a caveat
    that a reader of the number has to know (saturation, a bound instead of a value).
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""

    @property
    def determined(self) -> bool:
        """Whether there is a number."""
        return self.value is not None

    def __float__(self) -> float:
        return math.nan if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is None:
            return f"undetermined: {self.why}"
        number = f"{self.value:.6g}" if not self.sigma else _with_sigma(self.value, self.sigma)
        note = f" ({self.note})" if self.note else ""
        return f"{number} {self.unit}".rstrip() + note


def undetermined(why: str, unit: str = "") -> Value:
    """Make the result that has no number, with the reason for people."""
    return Value(None, None, unit, why)


def measured(value: float, sigma: float | None, unit: str = "", note: str = "") -> Value:
    """Make a result, refusing numbers that are not finite."""
    if not math.isfinite(value):
        return undetermined("the computation gave no finite number", unit)
    kept = float(sigma) if sigma is not None and math.isfinite(sigma) else None
    return Value(float(value), kept, unit, "", note)


def _with_sigma(value: float, sigma: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(sigma))) if sigma > 0 else 6
    return f"{value:.{min(digits, 9)}f} ± {sigma:.{min(digits, 9)}f}"


# Array types of the analysis, named once.

F64: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point arrays, double precision unless said otherwise."""

F32: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point arrays of pixels, single precision to spare memory bandwidth."""

Int: TypeAlias = npt.NDArray[np.integer[Any]]

Bool: TypeAlias = npt.NDArray[np.bool_]


# What happened to a stream, on its time axis: marks of the user, steps of the light, gaps, changes.

CUTTING_KINDS = frozenset({"shutter", "laser", "rotation", "growth", "pause"})
"""Kinds of marks that cut a growth into segments; a note does not."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: ``time_s`` from the stream's start, ``kind``, a ``label`` for people, ``value`` where it has one.

    Kinds that the analysis finds: ``exposure`` (value: factor of the light), ``dark``, ``light``, ``gap`` (value:
    frames), ``change`` (value: score), ``fractional_order``, ``rotation`` (value: rpm). The user's: ``shutter``,
    ``laser``, ``growth``, ``pause``, ``note`` or any other word.
    """

    time_s: float
    kind: str
    label: str = ""
    value: float | None = None

    @property
    def cuts(self) -> bool:
        """Whether a new segment begins here."""
        return self.kind in CUTTING_KINDS


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a growth: ``start_s`` to ``end_s``, opened by the mark ``label``.

    ``rate`` is the best determined oscillation rate (1/s), ``counted`` the oscillations in it, ``recovery`` the time
    constant (s) with which the intensity relaxed where nothing grew.
    """

    number: int
    start_s: float
    end_s: float
    label: str
    rate: Value
    cycles: float
    counted: Value
    recovery: Value


# What the engine hands out: per-frame columns and the values as they stand at the end of them.

UNITS: dict[str, str] = {
    "time_seconds": "s",
    "specular_intensity": "counts",
    "specular_background": "counts/px",
    "specular_x": "px",
    "specular_y": "px",
    "saturated_fraction": "1",
    "first_order_intensity": "counts/px",
    "first_order_intensity_l": "counts/px",
    "first_order_intensity_r": "counts/px",
    "half_order_intensity": "counts/px",
    "half_order_intensity_l": "counts/px",
    "half_order_intensity_r": "counts/px",
    "reconstruction_intensity": "1",
    "lattice_spacing": "px",
    "lattice_spacing_sigma": "px",
    "lattice_parameter": "Å",
    "lattice_parameter_sigma": "Å",
    "relative_spacing_change": "1",
    "referenced_strain": "1",
    "specular_fwhm_1": "px",
    "first_order_fwhm_1": "px",
    "coherence_length": "nm",
    "spot_count": "1",
    "spottiness": "1",
    "streak_aspect": "1",
    "growth_rate_ml_s": "1/s",
    "growth_rate_sigma": "1/s",
    "oscillation_period": "s",
    "damping_layers": "1",
    "layers_grown": "1",
    "oscillations_counted": "1",
    "rotation_rpm": "1/min",
    "azimuth_angle": "deg",
    "change_score": "1",
    "cluster_id": "1",
    "cluster_std": "1",
}
"""Per-frame columns and their units. NaN: undetermined; the batch's ``values`` say why."""

FRAME_COLUMNS = tuple(UNITS)


@dataclass(frozen=True, slots=True)
class View:
    """A view of a rotating growth: the azimuth bins of highest mirror symmetry, its values of the last turn."""

    view_id: int
    angle_deg: float
    confidence: float
    spacing_px: Value
    specular_intensity: float
    turns: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Results of ``count`` frames from frame ``start`` on; ``count`` may be 0 (nothing finished yet).

    ``frames`` maps each name of :data:`UNITS` (and ``region:<name>``) to (count,) float64, NaN where undetermined.
    ``values`` are the numbers as they stand at the last frame, with uncertainty or a reason. ``profile`` is the
    newest streak profile (W,), ``lines`` the profiles of the user's lines. ``events`` and ``segments`` are those
    new or changed since the batch before.
    """

    start: int
    count: int
    frames: dict[str, F64]
    values: dict[str, Value]
    events: tuple[Event, ...] = ()
    segments: tuple[Segment, ...] = ()
    views: tuple[View, ...] = ()
    profile: F64 = field(default_factory=lambda: np.empty(0))
    lines: dict[str, F64] = field(default_factory=dict)

    @property
    def time_s(self) -> F64:
        """Times of the frames in s from the stream's start, (count,)."""
        return self.frames["time_seconds"]


Plain = dict[str, Any]

TIME = "time_seconds"

_REGION = "region:"

_UNFIT = re.compile(r"[^a-z0-9]+")


def column_name(name: str) -> str:
    """The array that holds a per-frame column: the column's own name; of a region's trace one that is fit for it."""
    if not name.startswith(_REGION):
        return name
    fit = _UNFIT.sub("_", name.removeprefix(_REGION).lower()).strip("_")
    return f"region_{fit or 'box'}"[:64]


def unit_of(column: str) -> str:
    """Unit of a per-frame column, by the name of its array."""
    return UNITS.get(column, "counts" if column.startswith("region_") else "1")


def from_batch(batch: Batch) -> Plain:
    """A batch: columns as little-endian float32 bytes (times: float64), those without a number left out."""
    columns = {column_name(name): values for name, values in batch.frames.items()}
    return {
        "start": batch.start,
        "count": batch.count,
        "columns": {
            name: packed(values, "<f8" if name == TIME else "<f4")
            for name, values in columns.items()
            if name == TIME or np.isfinite(values).any()
        },
        "values": {name: from_value(value) for name, value in batch.values.items()},
        "events": [from_event(event) for event in batch.events],
        "segments": [from_segment(segment) for segment in batch.segments],
        "views": [from_view(view) for view in batch.views],
        "profile": packed(batch.profile, "<f4"),
        "lines": {name: packed(values, "<f4") for name, values in batch.lines.items()},
    }


def packed(values: Any, dtype: str) -> bytes:
    """An array's bytes."""
    return np.ascontiguousarray(values, dtype=dtype).tobytes()


def unpacked(name: str, raw: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """The array of a column's bytes."""
    return np.frombuffer(raw, dtype="<f8" if name == TIME else "<f4")


def from_value(value: Value) -> Plain:
    """A value with its uncertainty, or why there is none."""
    return {
        "value": finite(value.value),
        "sigma": finite(value.sigma),
        "unit": value.unit,
        "why": value.why,
        "note": value.note,
    }


def from_event(event: Event) -> Plain:
    """An event on the stream's own clock."""
    return {
        "time_s": finite(event.time_s),
        "kind": event.kind,
        "label": event.label,
        "value": finite(event.value),
    }


def from_segment(segment: Segment) -> Plain:
    """A segment, its values included."""
    return {
        "number": segment.number,
        "start_s": finite(segment.start_s),
        "end_s": finite(segment.end_s),
        "label": segment.label,
        "rate": from_value(segment.rate),
        "cycles": finite(segment.cycles),
        "counted": from_value(segment.counted),
        "recovery": from_value(segment.recovery),
    }


def from_view(view: View) -> Plain:
    """A view of a rotating growth."""
    return {
        "view_id": view.view_id,
        "angle_deg": finite(view.angle_deg),
        "confidence": finite(view.confidence),
        "spacing_px": from_value(view.spacing_px),
        "specular_intensity": finite(view.specular_intensity),
        "turns": view.turns,
    }


def finite(value: float | None) -> float | None:
    """``value``, or None where it is no number: JSON has no NaN."""
    return None if value is None or not math.isfinite(value) else float(value)


@dataclass(frozen=True, slots=True)
class Measured:
    """One result: ``value`` and its standard uncertainty ``sigma`` in ``unit``; or None, and ``why``.

    ``note`` is a caveat that a reader of the number has to know, such as saturation.
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""

    @property
    def determined(self) -> bool:
        """Whether there is a number."""
        return self.value is not None

    def __float__(self) -> float:
        return math.nan if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is None:
            return f"undetermined: {self.why}"
        number = f"{self.value:.6g}" if not self.sigma else f"{self.value:.6g} ± {self.sigma:.2g}"
        return f"{number} {self.unit}".rstrip() + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """Something that happened to a stream: ``time_s`` from its first frame, ``by`` the "user" or the "analysis"."""

    id: str
    kind: str
    label: str = ""
    time_s: float | None = None
    time_ms_utc: float | None = None
    value: float | None = None
    by: str = "user"


def measurement_from(plain: Mapping[str, Any]) -> Measured:
    """A value as it travels."""
    return Measured(plain["value"], plain["sigma"], plain["unit"], plain["why"], plain["note"])


def event_from(plain: Mapping[str, Any]) -> StreamEvent:
    """An event as it travels."""
    return StreamEvent(**{name: plain[name] for name in StreamEvent.__slots__})
