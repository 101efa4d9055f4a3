"""What each result with a value per frame is, in a few words: the attribute ``long_name`` of archives and exports."""

from __future__ import annotations

from typing import Final

LONG_NAMES: Final = {
    "time_seconds": "capture time since the stream's start",
    "specular_intensity": "intensity of the specular spot above the background",
    "specular_background": "background around the specular spot",
    "specular_x": "position of the specular spot, columns from the left",
    "specular_y": "position of the specular spot, rows from the top",
    "saturated_fraction": "part of the specular region that is saturated",
    "first_order_intensity": "intensity of the first-order streaks, mean of both sides",
    "first_order_intensity_l": "intensity of the first-order streak on the left",
    "first_order_intensity_r": "intensity of the first-order streak on the right",
    "half_order_intensity": "intensity of the half-order streaks, mean of both sides",
    "half_order_intensity_l": "intensity of the half-order streak on the left",
    "half_order_intensity_r": "intensity of the half-order streak on the right",
    "reconstruction_intensity": "intensity of the half-order streaks relative to the first order",
    "lattice_spacing": "spacing of the streaks",
    "lattice_spacing_sigma": "standard uncertainty of lattice_spacing",
    "lattice_parameter": "lattice parameter from spacing and calibration",
    "lattice_parameter_sigma": "standard uncertainty of lattice_parameter",
    "relative_spacing_change": "change of the streak spacing relative to the stream's start",
    "relative_lattice_change": "change of the lattice relative to the stream's start, opposite in sign to the spacing",
    "referenced_strain": "reference spacing divided by streak spacing, minus 1",
    "specular_fwhm_1": "width of the specular streak, full width at half maximum",
    "first_order_fwhm_1": "width of the first-order streaks, full width at half maximum",
    "coherence_length": "length over which the surface is ordered, from the streak width",
    "spot_count": "number of streaks that were found",
    "spottiness": "0: smooth streaks (two-dimensional), 1: separate spots (three-dimensional growth)",
    "streak_aspect": "length of a streak divided by its width",
    "growth_rate_ml_s": "growth rate in layers per second",
    "growth_rate_sigma": "standard uncertainty of growth_rate_ml_s",
    "oscillation_period": "period of the intensity oscillation",
    "damping_layers": "layers after which the oscillation has decreased to 1/e",
    "layers_grown": "layers grown since the last mark that begins a segment",
    "oscillations_counted": "oscillations since the last mark that begins a segment",
    "rotation_rpm": "rotation of the sample",
    "azimuth_angle": "angle of the rotating sample",
    "change_score": "size of the change of the pattern",
    "cluster_id": "number of the pattern that the frame resembles most",
    "cluster_std": "distance of the frame from this pattern",
}
"""By the name of the column in ``atomstream.results.UNITS``."""


def long_name_of(column: str) -> str:
    """A description of the column; for the trace of a user's region, the name of the region."""
    if column.startswith("region_"):
        return f"intensity in the region {column.removeprefix('region_')}"
    return LONG_NAMES.get(column, column.replace("_", " "))
