"""The analysis' records as plain values that msgpack and JSON take, and the user's words as the analysis' records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from atomstream.analysis import UNITS, Batch, Box, Event, Line, Segment, Value, View
from atomstream.errors import ConfigError

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


def from_region(region: Box | Line) -> Plain:
    """A region as the API has it."""
    if isinstance(region, Box):
        names = ("name", "x", "y", "width", "height", "tracked")
        return {"type": "box", **{name: getattr(region, name) for name in names}}
    names = ("name", "x0", "y0", "x1", "y1", "width")
    return {"type": "line", **{name: getattr(region, name) for name in names}}


def to_region(plain: Plain) -> Box | Line:
    """The region that a plain one means; raises ConfigError where none does."""
    fields = {name: value for name, value in plain.items() if name != "type"}
    try:
        return Box(**fields) if plain.get("type") == "box" else Line(**fields)
    except TypeError as error:
        raise ConfigError(f"region {plain.get('name')!r}: {error}") from None


def check_regions(regions: Iterable[Plain]) -> list[Plain]:
    """Regions with defaults filled in; raises ConfigError for ones that can't be meant or share a name or column."""
    made = [to_region(plain) for plain in regions]
    columns = [column_name(f"{_REGION}{region.name}") for region in made]
    if len(set(columns)) != len(columns):
        raise ConfigError(
            "regions: each needs a name of its own (upper and lower case, blanks and signs do not count)"
        )
    if any(not region.name.strip() or len(region.name) > 50 for region in made):
        raise ConfigError("regions: a name has 1 to 50 characters")
    return [from_region(region) for region in made]
