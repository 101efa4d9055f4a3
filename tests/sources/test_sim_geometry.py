from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from atomstream.errors import ConfigError
from atomstream.sources import GrowthSpec, Simulator
from atomstream.sources.sim_geometry import (
    project,
    rods_of,
    spot_spacing_px,
    streak_spacing_px,
    wave_number,
    wavelength_a,
)

SPEC = GrowthSpec()


def test_wavelength_is_relativistic() -> None:
    """The wavelength agrees with h / sqrt(2 m e V (1 + e V / 2 m c^2)) to 1e-4."""
    h, m, e, c = 6.62607015e-34, 9.1093837e-31, 1.602176634e-19, 2.99792458e8
    for kev in (10.0, 20.0, 30.0):
        volts = kev * 1e3
        exact = h / math.sqrt(2 * m * e * volts * (1 + e * volts / (2 * m * c**2))) * 1e10
        assert wavelength_a(kev) == pytest.approx(exact, rel=1e-4)


def test_streaks_are_46_pixels_apart() -> None:
    """With the defaults the streaks of SrTiO3 are 46.2 px apart, like the spots of a cubic crystal."""
    assert streak_spacing_px(SPEC, np.array([0.0]))[0] == pytest.approx(46.2, abs=0.02)
    assert spot_spacing_px(SPEC) == pytest.approx(46.2, abs=0.05)


def test_every_hit_lies_on_the_ewald_sphere() -> None:
    """Directions recomputed from the screen have the length k0 and the rod's G, at any angle."""
    rods, k0 = rods_of(replace(SPEC, fractional_at_s=1.0)), wave_number(SPEC)
    g = 2 * math.pi / SPEC.lattice_a
    for angle in (0.0, 13.0, 45.0, 200.0):
        hits = project(SPEC, rods, angle, 0.0)
        x, y = hits.x - SPEC.center_x_px, hits.y - SPEC.horizon_y_px
        length = np.sqrt(SPEC.camera_length_px**2 + x**2 + y**2)
        kx, ky = k0 * SPEC.camera_length_px / length, k0 * x / length
        along, across = kx - k0 * math.cos(math.radians(SPEC.incidence_deg)), ky
        assert np.hypot(along, across) / g == pytest.approx(np.hypot(rods.h, rods.k)[hits.index], abs=1e-9)
        assert (y > 0).all()


def test_a_quarter_turn_maps_the_square_lattice_on_itself() -> None:
    """The rods of angle 90 are those of angle 0."""
    rods = rods_of(SPEC)
    here, there = (project(SPEC, rods, angle, 0.0) for angle in (0.0, 90.0))
    np.testing.assert_allclose(sorted(here.x), sorted(there.x), atol=1e-6)


def test_specular_does_not_move_with_rotation() -> None:
    """The specular spot stays at y0 + c tan(alpha) whatever the azimuth."""
    rods = rods_of(SPEC)
    for angle in (0.0, 30.0, 77.0):
        hits = project(SPEC, rods, angle, 0.1)
        specular = rods.kind[hits.index] == 0
        expected = SPEC.horizon_y_px + SPEC.camera_length_px * math.tan(math.radians(2.0))
        assert hits.y[specular] == pytest.approx([expected])
        assert hits.x[specular] == pytest.approx([320.0])


def test_rendered_streaks_have_the_true_spacing() -> None:
    """Centroids of first-order streaks in rendered frames give the true, strained spacing within 0.1 %."""
    spec = GrowthSpec(strain=0.02, strain_layers=0.2, rate_ml_s=1.0, lorentz_fraction=0.0, diffuse=0.0)
    simulator = Simulator(spec)
    number = 5 * 120
    truth = simulator.truth(np.array([number]))
    frame = simulator.frames(number, 24).astype(float).mean(axis=0)
    profile = frame[110:200].mean(axis=0)
    profile -= np.median(profile)

    def centroid(near: float) -> float:
        columns = np.arange(round(near) - 8, round(near) + 9)
        return float((profile[columns] * columns).sum() / profile[columns].sum())

    spacing = (centroid(320 + 45) - centroid(320 - 45)) / 2
    assert spacing == pytest.approx(truth.spacing_px[0], rel=1e-3)
    assert truth.spacing_px[0] == pytest.approx(46.21 / 1.02, abs=0.03)


def test_no_light_above_the_shadow_edge() -> None:
    """Above the shadow edge there is only the dark level, at rest and under rotation."""
    for rpm in (0.0, 15.0):
        frames = Simulator(GrowthSpec(rpm=rpm, hot_pixels=0)).frames(300, 4)
        assert frames[:, :94].mean() == pytest.approx(4.0, abs=0.05)
        assert frames[:, 99:].mean() > 20


def test_rotation_moves_the_rods() -> None:
    """At 15 rpm frames differ within a quarter turn and are equal after it."""
    spec = GrowthSpec(rpm=15.0, rate_ml_s=0.0, azimuth_modulation=(), hum=0.0, hot_pixels=0)
    first, eighth, quarter = (Simulator(spec).frames(k, 1)[0].astype(float) for k in (0, 60, 120))
    assert np.abs(first - quarter).mean() < 2.2
    assert np.corrcoef(first[100:200].ravel(), quarter[100:200].ravel())[0, 1] > 0.9
    assert np.corrcoef(first[100:200, :300].ravel(), eighth[100:200, :300].ravel())[0, 1] < 0.3


def test_drift_moves_the_whole_picture() -> None:
    """The specular centroid moves with the drift, in both directions, by parts of a pixel."""
    spec = GrowthSpec(rate_ml_s=0.0, drift_px_s=(0.5, -0.25), hum=0.0, hot_pixels=0, lorentz_fraction=0.0)
    simulator = Simulator(spec)

    def column(k: int) -> float:
        patch = simulator.frames(k, 40)[:, 140:200, 305:338].astype(float).mean(axis=(0, 1))
        patch -= np.median(patch)
        return float((patch * np.arange(305, 338)).sum() / patch.sum())

    assert column(480) - column(0) == pytest.approx(2.0, abs=0.1)
    truth = simulator.truth([0, 480])
    assert np.diff(truth.specular_x_px)[0] == pytest.approx(2.0)
    assert np.diff(truth.specular_y_px)[0] == pytest.approx(-1.0)


def test_half_order_rods_appear_in_time() -> None:
    """Half-order streaks are absent before their time and present after it, half way between the others."""
    simulator = Simulator(GrowthSpec(rate_ml_s=0.0, fractional_at_s=3.0, fractional_rise_s=0.5))

    def at_half(k: int) -> float:
        profile = simulator.frames(k, 12)[:, 110:200].astype(float).mean(axis=(0, 1))
        middle = round(320 + 46.21 / 2)
        return float(profile[middle - 1 : middle + 2].mean() - profile[[middle - 10, middle + 10]].mean())

    assert abs(at_half(0)) < 1.5
    assert at_half(600) > 8.0


def test_roughening_breaks_streaks_into_spots() -> None:
    """As the 3D weight grows the specular streak is cut into maxima one spot spacing apart."""
    simulator = Simulator(GrowthSpec(rate_ml_s=0.0, roughening_at_s=2.0))

    def along_streak(k: int) -> np.ndarray:
        return simulator.frames(k, 12)[:, :, 318:323].astype(float).mean(axis=(0, 2))

    smooth, rough = along_streak(0), along_streak(1200)
    y = round(simulator.truth([0]).specular_y_px[0])
    half = round(spot_spacing_px(simulator.spec) / 2)
    assert smooth[y + half] > 2 * rough[y + half]
    assert rough[y + 2 * half] > 2 * rough[y + half]


@pytest.mark.parametrize("shape", [(24, 32), (120, 160), (960, 1280)])
def test_the_pattern_scales_with_the_frame(shape: tuple[int, int]) -> None:
    """The pattern scales with the frame size: spacing and specular spot."""
    spec = GrowthSpec(height=shape[0], width=shape[1])
    truth = Simulator(spec).truth([0])
    assert truth.spacing_px[0] == pytest.approx(46.21 * shape[1] / 640, rel=1e-3)
    assert truth.specular_y_px[0] / shape[0] == pytest.approx(169.3 / 480, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0.0}, "fps is 0.0"),
        ({"rate_ml_s": math.nan}, "rate_ml_s is nan"),
        ({"incidence_deg": 0.0}, "incidence_deg is 0.0"),
        ({"fractional_order": 1}, "fractional_order is 1"),
        ({"strain": -1.0}, "strain is -1.0"),
        ({"pauses": ((2.0, 1.0),)}, "from < to"),
        ({"pauses": ((1.0, 3.0), (2.0, 4.0))}, "without overlap"),
        ({"hum": -0.1}, "hum is -0.1"),
    ],
)
def test_invalid_specs_are_refused(changes: dict[str, object], message: str) -> None:
    """A value out of range raises an error that names it."""
    with pytest.raises(ConfigError, match=message):
        GrowthSpec(**changes)  # type: ignore[arg-type]
