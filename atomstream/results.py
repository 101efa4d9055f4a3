"""Result records of the analysis, and the names and bytes of their per-frame columns.

The analysis makes these records, the server stores and sends them, and the client receives them. The module imports
numpy and nothing else that is large, so the client can import it at no cost.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

F64: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point array, double precision unless another one is named."""
F32: TypeAlias = npt.NDArray[np.floating[Any]]
"""Floating-point array of pixels, in single precision to save memory bandwidth."""
Int: TypeAlias = npt.NDArray[np.integer[Any]]
Bool: TypeAlias = npt.NDArray[np.bool_]
Plain = dict[str, Any]

# -- records ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measurement:
    """One result: ``value`` with its standard uncertainty ``sigma`` in ``unit``, or None with a reason.

    ``why`` is the reason why there is no number, and what would help; it is empty where there is a number. ``note`` is
    a caveat that belongs to the number, such as saturation or "a lower bound".
    """

    value: float | None
    sigma: float | None = None
    unit: str = ""
    why: str = ""
    note: str = ""

    @property
    def determined(self) -> bool:
        """True if there is a number."""
        return self.value is not None

    def __float__(self) -> float:
        return math.nan if self.value is None else self.value

    def __str__(self) -> str:
        if self.value is None:
            return f"undetermined: {self.why}"
        unit = "" if self.unit == "1" else self.unit
        return f"{rounded(self.value, self.sigma)} {unit}".rstrip() + (f" ({self.note})" if self.note else "")


def rounded(value: float, sigma: float | None) -> str:
    """A value with its uncertainty as text, both to the second digit of the uncertainty; six digits without one."""
    if not sigma or not math.isfinite(sigma) or not math.isfinite(value):
        return f"{value:.6g}"
    decimals = 1 - math.floor(math.log10(sigma))
    if decimals > 12:  # more digits than the number has
        return f"{value:.6g} ± {sigma:.2g}"
    return f"{value:.{max(0, decimals)}f} ± {sigma:.{max(0, decimals)}f}"


def undetermined(why: str, unit: str = "") -> Measurement:
    """Return the measurement without a number. ``why`` is a sentence for the user."""
    return Measurement(None, None, unit, why)


def measured(value: float, sigma: float | None, unit: str = "", note: str = "") -> Measurement:
    """Return a measurement. A ``value`` that is NaN or infinite becomes undetermined, such a ``sigma`` None."""
    if not math.isfinite(value):
        return undetermined("the computation gave no finite number", unit)
    return Measurement(float(value), finite(sigma), unit, "", note)


SEGMENT_KINDS: Final = frozenset({"shutter", "laser", "rotation", "growth", "pause"})
"""Kinds of the user's events that begin a new growth segment. All others, such as ``note``, do not."""

ANALYSIS_KINDS: Final = (
    *("exposure", "dark", "light", "dropout", "inverted", "spot", "gap", "change", "fractional_order"),
    *("rotation_seen", "rotation_refined", "growth_stopped", "growth_began", "rate_changed"),
)
"""Kinds of the events that the analysis finds. docs/live_api.md states for each one what ``value`` is."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a stream, reported by the user or detected by the analysis (``by``).

    ``time_s`` counts from the stream's first frame and is None until the server has the first chunk. ``time_ms_utc``
    and ``id`` are set by the server. ``value`` depends on ``kind``. Kinds of the analysis: :data:`ANALYSIS_KINDS`.
    Kinds of the user: those of :data:`SEGMENT_KINDS`, ``note`` or any other word; the value of ``rotation`` is in rpm,
    that of another kind in ``unit``. ``version`` grows by one with each correction by a user.
    """

    time_s: float | None
    kind: str
    label: str = ""
    value: float | None = None
    id: str = ""
    time_ms_utc: float | None = None
    by: str = "analysis"
    unit: str = ""
    version: int = 1

    @property
    def at_s(self) -> float:
        """``time_s`` as a number, NaN where the time is not known."""
        return math.nan if self.time_s is None else self.time_s

    @property
    def begins_segment(self) -> bool:
        """True if a new growth segment begins here."""
        return self.kind in SEGMENT_KINDS


@dataclass(frozen=True, slots=True)
class Segment:
    """A growth segment from ``start_s`` to ``end_s``, begun by the event ``label``.

    ``rate`` is the best determined oscillation rate (1/s), ``counted`` the number of oscillations, ``recovery`` the
    time constant (s) of the intensity where nothing grew. ``cycles`` is the length of the fit in oscillations.
    """

    number: int
    start_s: float
    end_s: float
    label: str
    rate: Measurement
    cycles: float
    counted: Measurement
    recovery: Measurement


@dataclass(frozen=True, slots=True)
class View:
    """One azimuth of a rotating sample where the pattern has high mirror symmetry; values of the last turn."""

    view_id: int
    angle_deg: float
    confidence: float
    spacing_px: Measurement
    specular_intensity: float
    turns: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Results of ``count`` frames from frame ``start`` on. ``count`` may be 0: no frame is finished yet.

    ``frames`` maps each name of :data:`UNITS` (and ``region:<name>``) to a (count,) float64 array, NaN where
    undetermined. ``values`` are the current scalar results at the last frame. ``profile`` is the newest streak profile
    (W,), ``lines`` the profiles of the user's lines. ``events`` are new since the batch before.
    """

    start: int
    count: int
    frames: dict[str, F64]
    values: dict[str, Measurement]
    events: tuple[Event, ...] = ()
    segments: tuple[Segment, ...] = ()
    views: tuple[View, ...] = ()
    profile: F64 = field(default_factory=lambda: np.empty(0))
    lines: dict[str, F64] = field(default_factory=dict)

    @property
    def time_s(self) -> F64:
        """Times of the frames in s from the stream's start, (count,)."""
        return self.frames[TIME]


# -- per-frame columns -----------------------------------------------------------------------------------

TIME: Final = "time_seconds"
"""The column of capture times. It travels as float64; all others travel as float32."""
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
    "relative_lattice_change": "1",
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
"""Per-frame columns and their units. NaN means undetermined; the batch's ``values`` give the reason."""

FRAME_COLUMNS: Final = tuple(UNITS)
REGION: Final = "region:"
"""Prefix of the columns that hold traces of the user's regions in a :class:`Batch`."""
SIGNAL: Final = "signal_"
"""Prefix of the arrays that hold signals of instruments at the frames' times."""
_NOT_ALLOWED: Final = re.compile(r"[^a-z0-9]+")


def column_name(name: str) -> str:
    """Name of the stored array of a per-frame column: ``region:My box`` becomes ``region_my_box``."""
    if not name.startswith(REGION):
        return name
    allowed = _NOT_ALLOWED.sub("_", name.removeprefix(REGION).lower()).strip("_")
    return f"region_{allowed or 'box'}"[:64]


def unit_of(column: str) -> str:
    """Unit of a per-frame column, by the name of its stored array."""
    return UNITS.get(column, "counts" if column.startswith("region_") else "1")


def packed(values: Any, dtype: str) -> bytes:
    """Bytes of an array in ``dtype``, such as ``"<f4"``."""
    return np.ascontiguousarray(values, dtype=dtype).tobytes()


def unpacked(name: str, raw: bytes) -> np.ndarray[Any, np.dtype[Any]]:
    """Array of a column's bytes: float64 for the times, float32 for all others. The array is read-only."""
    return np.frombuffer(raw, dtype="<f8" if name == TIME else "<f4")


def finite(value: float | None) -> float | None:
    """``value``, or None where it is NaN or infinite: JSON has neither."""
    return None if value is None or not math.isfinite(value) else float(value)


# -- received maps --------------------------------------------------------


def received_map(value: Any) -> Mapping[str, Any]:
    """``value``, if it is a map. Raises ValueError for anything else."""
    if not isinstance(value, Mapping):
        raise ValueError(f"a map was expected, not {type(value).__name__}")
    return value


def received_maps(value: Any) -> tuple[Mapping[str, Any], ...]:
    """``value``, if it is a list of maps. Raises ValueError for anything else."""
    if not isinstance(value, list):
        raise ValueError(f"a list of maps was expected, not {type(value).__name__}")
    return tuple(received_map(item) for item in value)


def finite_or_none(plain: Mapping[str, Any], name: str) -> float | None:
    """The finite number of a received map under ``name``, or None. Raises ValueError for anything else."""
    value = plain.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number or None, not {type(value).__name__}")
    if (
        not -sys.float_info.max <= value <= sys.float_info.max
    ):  # NaN, infinite, or an integer beyond the floats
        raise ValueError(f"{name} must be a finite number")
    return float(value)


def _text(plain: Mapping[str, Any], name: str) -> str:
    value = plain.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a str, not {type(value).__name__}")
    return value


def measurement_from(received: Any) -> Measurement:
    """Measurement of a received map. Raises ValueError where it is not one."""
    plain = received_map(received)
    value, sigma = finite_or_none(plain, "value"), finite_or_none(plain, "sigma")
    return Measurement(value, sigma, _text(plain, "unit"), _text(plain, "why"), _text(plain, "note"))


def event_from(received: Any) -> Event:
    """Event of a received map. Raises ValueError where it is not one."""
    plain = received_map(received)
    return Event(
        time_s=finite_or_none(plain, "time_s"),
        kind=_text(plain, "kind"),
        label=_text(plain, "label"),
        value=finite_or_none(plain, "value"),
        id=_text(plain, "id"),
        time_ms_utc=finite_or_none(plain, "time_ms_utc"),
        by=_text(plain, "by"),
        # Servers before version 0.2.0 send neither of these.
        unit=_text(plain, "unit") if "unit" in plain else "",
        version=_version(plain),
    )


def _version(plain: Mapping[str, Any]) -> int:
    value = plain.get("version", 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 53:
        raise ValueError("version must be a whole number above 0")
    return value
