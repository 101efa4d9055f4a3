"""The values as they stand: growth, surface, rotation, change, each with its uncertainty or the reason."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from atomstream.results import Measurement, measured, undetermined

if TYPE_CHECKING:
    from atomstream.analysis.stream_state import AnalysisState

SHUTTERED = "shuttered growth: the period is the recipe's, not the growth's (see oscillation_period)"


def current_values(stage: AnalysisState) -> dict[str, Measurement]:
    """All scalar results by name."""
    if stage.scene is None:
        reason = stage.why
        names = (
            "growth_rate_ml_s",
            "oscillation_period",
            "damping_layers",
            "layers_grown",
            "lattice_spacing",
        )
        return {
            name: undetermined(reason)
            for name in (*names, "oscillations_counted", "spottiness", "rotation_rpm")
        }
    values = {**growth_values(stage), **surface_values(stage)}
    rotation, change = stage.scene.rotation, stage.scene.change
    values["rotation_rpm"] = rotation.rpm() if rotation else measured(0.0, 0.0, "1/min", "at rest, as set")
    score = (
        measured(change.score, None, "1")
        if math.isfinite(change.score)
        else undetermined("no two pictures yet", "1")
    )
    values["change_score"] = score
    values["saturated_fraction"] = measured(stage.saturated, None, "1")
    return values


def growth_values(stage: AnalysisState) -> dict[str, Measurement]:
    """Rate, period, damping and counts of the present segment."""
    assert stage.scene is not None
    growth, unit = stage.scene.growth, stage.layer_unit or stage.calibration.layer_unit
    rate = growth.latest.rate
    note = "; ".join(part for part in (_saturation_note(stage.saturated), rate.note) if part)
    counted = growth.oscillations_counted(stage.now_s)
    if rate.value is None:
        none = undetermined(rate.why, f"{unit}/s")
        period, per_layer, damping = undetermined(rate.why, "s"), none, undetermined(rate.why, unit)
    else:
        sigma = rate.sigma or 0.0
        period = measured(1.0 / rate.value, sigma / rate.value**2, "s", note)
        per_layer = measured(rate.value, sigma, f"{unit}/s", note)
        damping = growth.latest.damping
    layers = _layers(counted, rate, unit)
    if not stage.continuous:
        per_layer, layers = undetermined(SHUTTERED, f"{unit}/s"), undetermined(SHUTTERED, unit)
    return {
        "growth_rate_ml_s": per_layer,
        "growth_rate_nm_s": _thickness_rate(stage, per_layer),
        "oscillation_period": period,
        "damping_layers": damping,
        "oscillations_counted": counted,
        "layers_grown": layers,
        "cycles_seen": measured(growth.latest.cycles, None, "1"),
        "oscillation_r2": measured(growth.latest.r2, None, "1"),
    }


def _layers(counted: Measurement, rate: Measurement, unit: str) -> Measurement:
    """Layers as grown now; undetermined with the rate.

    Oscillations that were counted stay counted. But they can die while the film grows on (step flow, a rough
    surface), and then the count is no more how thick the film is.
    """
    if counted.value is None:
        return undetermined(counted.why, unit)
    if rate.value is None:
        return undetermined(f"{rate.why} ({counted.value:.1f} oscillations {counted.note})", unit)
    told = "; ".join(part for part in ("if each oscillation is one layer", counted.note) if part)
    return Measurement(counted.value, counted.sigma, unit, "", told)


def _thickness_rate(stage: AnalysisState, rate: Measurement) -> Measurement:
    thickness = stage.calibration.layer_thickness_nm
    if thickness is None:
        return undetermined("needs the thickness of a layer (calibration)", "nm/s")
    if rate.value is None:
        return undetermined(rate.why, "nm/s")
    return measured(rate.value * thickness, (rate.sigma or 0.0) * thickness, "nm/s", rate.note)


def _saturation_note(saturated: float) -> str:
    return f"{100 * saturated:.0f} % of the specular region is saturated" if saturated > 0.002 else ""


def surface_values(stage: AnalysisState) -> dict[str, Measurement]:
    """Spacing, widths, orders, dimension; under rotation these belong to the views."""
    assert stage.scene is not None
    if stage.scene.rotation is None:
        return stage.scene.surface.values(stage.calibration)
    why = "the substrate rotates: see the views, one set of values each turn"
    names = (
        "lattice_spacing",
        "relative_spacing_change",
        "referenced_strain",
        "lattice_parameter",
        "spottiness",
    )
    return {
        n: undetermined(why) for n in (*names, "specular_fwhm_1", "first_order_fwhm_1", "half_order_ratio")
    }


def update_held_values(stage: AnalysisState) -> None:
    """Renew the values that per-frame columns carry until the next slow block; NaN where undetermined."""
    scene = stage.scene
    if scene is None:
        return
    values = current_values(stage)
    names = (
        "growth_rate_ml_s",
        "oscillation_period",
        "damping_layers",
        "layers_grown",
        "oscillations_counted",
    )
    held = {name: float(values[name]) for name in names}
    held["growth_rate_sigma"] = _sigma(values["growth_rate_ml_s"])
    held["rotation_rpm"] = float(values["rotation_rpm"])
    for name in (
        "lattice_spacing",
        "lattice_parameter",
        "relative_spacing_change",
        "spottiness",
        "specular_fwhm_1",
        "first_order_fwhm_1",
    ):
        held[name] = float(values[name])
    for name in ("lattice_spacing", "lattice_parameter"):
        held[f"{name}_sigma"] = _sigma(values[name])
    held["referenced_strain"] = float(values["referenced_strain"])
    held["reconstruction_intensity"] = float(values["half_order_ratio"])
    held["coherence_length"] = float(values["coherence_length"]) if "coherence_length" in values else math.nan
    held["streak_aspect"] = scene.surface.aspect
    held["spot_count"] = float(len(scene.surface.comb.orders)) if scene.surface.comb else math.nan
    held |= {"change_score": scene.change.score, "cluster_id": float(scene.change.cluster)}
    held["cluster_std"] = scene.change.distance
    if scene.change.cluster < 0:
        held["cluster_id"] = math.nan
    stage.held = held


def _sigma(value: Measurement) -> float:
    return math.nan if value.value is None or value.sigma is None else value.sigma
