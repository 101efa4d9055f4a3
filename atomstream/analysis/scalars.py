"""Scalar results: growth, surface, rotation and change, each with its uncertainty or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import replace

from atomstream.analysis.stream_state import AnalysisState
from atomstream.results import Measurement, measured, undetermined

AS_LAYERS = "if each oscillation is one layer"
NOT_COUNTED = "growth without oscillations is not counted"
SHUTTERED = "shuttered growth: the period is that of the recipe, not a growth rate (see oscillation_period)"


def current_values(state: AnalysisState) -> dict[str, Measurement]:
    """Return all scalar results by name."""
    if state.trackers is None:
        reason = state.no_pattern_reason
        names = (
            "growth_rate_ml_s",
            "oscillation_period",
            "damping_layers",
            "layers_grown",
            "lattice_spacing",
        )
        return {
            name: undetermined(reason)
            for name in (
                *names,
                "oscillations_counted",
                "oscillations_since_mark",
                "spottiness",
                "rotation_rpm",
            )
        }
    values = {**growth_values(state), **surface_values(state)}
    rotation, change = state.trackers.rotation, state.trackers.change
    values["rotation_rpm"] = rotation.rpm() if rotation else _unstated_rotation(state.trackers.turns.reason)
    score = (
        measured(change.score, None, "1")
        if math.isfinite(change.score)
        else undetermined("no two pictures yet", "1")
    )
    values["change_score"] = score
    values |= state.saturation.values(state.clip_level)
    return state.failures.apply(values)


def _unstated_rotation(reason: str) -> Measurement:
    return undetermined(reason, "1/min") if reason else measured(0.0, 0.0, "1/min", "at rest, as set")


def growth_values(state: AnalysisState) -> dict[str, Measurement]:
    """Return rate, period, damping and counts of the current segment."""
    assert state.trackers is not None
    growth, unit = state.trackers.growth, state.layer_unit or state.calibration.layer_unit
    rate = growth.latest.rate
    note = "; ".join(part for part in (_saturation_note(state.saturation.spot), rate.note) if part)
    counted = growth.oscillations_counted(state.now_s)
    if rate.value is None:
        none = undetermined(rate.why, f"{unit}/s")
        period, per_layer, damping = undetermined(rate.why, "s"), none, undetermined(rate.why, unit)
    else:
        sigma = rate.sigma or 0.0
        period = measured(1.0 / rate.value, sigma / rate.value**2, "s", note)
        per_layer = measured(rate.value, sigma, f"{unit}/s", note)
        damping = growth.latest.damping
    layers = _layers_grown(counted, rate, unit)
    total = _layers_total(growth.counted(growth.counts.total, state.now_s, unit))
    if not state.growth_is_continuous:
        per_layer, layers = undetermined(SHUTTERED, f"{unit}/s"), undetermined(SHUTTERED, unit)
        total = layers
    return {
        "growth_rate_ml_s": per_layer,
        "growth_rate_nm_s": _in_nm(state, per_layer, "nm/s"),
        "oscillation_period": period,
        "damping_layers": damping,
        "oscillations_counted": counted,
        "oscillations_since_mark": growth.counted(growth.counts.mark, state.now_s, "oscillations"),
        "counted_since_s": measured(growth.counts.mark.start_s, None, "s"),
        "layers_total": total,
        "thickness_nm": _in_nm(state, total, "nm"),
        "layers_grown": layers,
        "cycles_seen": measured(growth.latest.cycles, None, "1"),
        "oscillation_r2": measured(growth.latest.r2, None, "1"),
        "pulse_rate_hz": _pulse_rate(growth.laser.hz),
    }


def _pulse_rate(hz: float) -> Measurement:
    """Return the rate of a pulsed laser; its fifth harmonic is resolved within about 0.5 %."""
    return measured(hz, 0.005 * hz, "Hz") if hz > 0.0 else undetermined("no laser pulses in the trace", "Hz")


def _layers_grown(counted: Measurement, rate: Measurement, unit: str) -> Measurement:
    """Return the number of layers grown; undetermined if the rate is.

    The oscillations can end while the film still grows (step flow, rough surface). Then their count is no longer the
    thickness of the film, although it stays valid as a count.
    """
    if counted.value is None:
        return undetermined(counted.why, unit)
    if rate.value is None:
        return undetermined(f"{rate.why} ({counted.value:.1f} oscillations {counted.note})", unit)
    notes = "; ".join(part for part in (AS_LAYERS, counted.note) if part)
    return Measurement(counted.value, counted.sigma, unit, "", notes)


def _layers_total(counted: Measurement) -> Measurement:
    """Return the layers of the whole stream. They stay determined when the oscillations end, and then do not include
    what grows later.

    A sum over hours would be of no use if it was undetermined whenever the rate is; so its note names the condition.
    """
    if counted.value is None:
        return counted
    return replace(counted, note="; ".join(part for part in (AS_LAYERS, NOT_COUNTED, counted.note) if part))


def _in_nm(state: AnalysisState, layers: Measurement, unit: str) -> Measurement:
    """Return layers, or layers per second, times the calibrated thickness of a layer."""
    thickness = state.calibration.layer_thickness_nm
    if thickness is None:
        return undetermined("needs the thickness of a layer (calibration)", unit)
    if layers.value is None:
        return undetermined(layers.why, unit)
    return measured(layers.value * thickness, (layers.sigma or 0.0) * thickness, unit, layers.note)


def _saturation_note(saturated: float) -> str:
    return f"{100 * saturated:.0f} % of the specular region is saturated" if saturated > 0.002 else ""


def surface_values(state: AnalysisState) -> dict[str, Measurement]:
    """Return spacing, widths, orders and dimension; under rotation they are given per view instead."""
    assert state.trackers is not None
    why = "the substrate rotates: see the views, one set of values each turn"
    if state.trackers.rotation is None:
        why = state.trackers.turns.reason
        if not why:
            return state.trackers.surface.values(state.calibration)
    names = (
        "lattice_spacing",
        "relative_spacing_change",
        "relative_lattice_change",
        "referenced_strain",
        "lattice_parameter",
        "spottiness",
    )
    return {
        n: undetermined(why) for n in (*names, "specular_fwhm_1", "first_order_fwhm_1", "half_order_ratio")
    }


def update_held_values(state: AnalysisState) -> None:
    """Update the values that the per-frame columns repeat until the next slow block; NaN where undetermined."""
    trackers = state.trackers
    if trackers is None:
        return
    values = current_values(state)
    names = (
        "growth_rate_ml_s",
        "oscillation_period",
        "damping_layers",
        "layers_grown",
        "oscillations_counted",
    )
    held_values = {name: float(values[name]) for name in names}
    held_values["growth_rate_sigma"] = _sigma(values["growth_rate_ml_s"])
    held_values["rotation_rpm"] = float(values["rotation_rpm"])
    for name in (
        "lattice_spacing",
        "lattice_parameter",
        "relative_spacing_change",
        "relative_lattice_change",
        "spottiness",
        "specular_fwhm_1",
        "first_order_fwhm_1",
    ):
        held_values[name] = float(values[name])
    for name in ("lattice_spacing", "lattice_parameter"):
        held_values[f"{name}_sigma"] = _sigma(values[name])
    held_values["referenced_strain"] = float(values["referenced_strain"])
    held_values["reconstruction_intensity"] = float(values["half_order_ratio"])
    held_values["coherence_length"] = (
        float(values["coherence_length"]) if "coherence_length" in values else math.nan
    )
    held_values["streak_aspect"] = trackers.surface.aspect
    held_values["spot_count"] = (
        float(len(trackers.surface.comb.orders)) if trackers.surface.comb else math.nan
    )
    held_values |= {"change_score": trackers.change.score, "cluster_id": float(trackers.change.cluster)}
    held_values["cluster_std"] = trackers.change.cluster_distance
    if trackers.change.cluster < 0:
        held_values["cluster_id"] = math.nan
    state.held_values = held_values


def _sigma(value: Measurement) -> float:
    return math.nan if value.value is None or value.sigma is None else value.sigma
