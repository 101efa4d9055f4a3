"""What the engine hands out: per-frame columns and the values as they stand at the end of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.arrays import F64
from atomstream.analysis.events import Event
from atomstream.analysis.segments import Segment
from atomstream.analysis.values import Value

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
