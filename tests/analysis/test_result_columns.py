"""Per-frame columns: the value at each frame, or NaN if it is undetermined."""

from __future__ import annotations

import numpy as np
import pytest

from atomstream.analysis import Calibration
from tests.analysis.growth_helpers import Film


def test_layers_are_undetermined_with_the_rate() -> None:
    """After the end of the growth `layers_grown` has no number in value and column; the count is kept."""
    film = Film(13, fps=20.0, hum=0.0, rate_ml_s=1.0, growth_stop_s=6.0)
    answer = film.analysed()
    layers, counted = answer.values["layers_grown"], answer.values["oscillations_counted"]
    column, rate = answer.frames["layers_grown"], answer.frames["growth_rate_ml_s"]
    assert not answer.values["growth_rate_ml_s"].determined
    assert not layers.determined
    assert "oscillations counted until" in layers.why
    assert counted.value == pytest.approx(6.0, abs=0.5)
    assert "undetermined since" in counted.note
    assert column[round(5.5 * 20)] == pytest.approx(5.5, abs=0.3)
    assert np.array_equal(np.isfinite(column), np.isfinite(rate))


def test_the_lattice_parameter_of_each_frame() -> None:
    """A calibrated stream has lattice parameter and sigma for each frame; others have NaN."""
    film = Film(2, fps=30.0, height=480, width=640)
    known, unknown = film.analysed(), film.analysed(calibration=Calibration())
    value = known.values["lattice_parameter"]
    for name, last in (("lattice_parameter", value.value), ("lattice_parameter_sigma", value.sigma)):
        assert known.frames[name][-1] == last
        assert np.isnan(unknown.frames[name]).all()
    determined = np.isfinite(known.frames["lattice_spacing"])
    assert determined.sum() > 30
    assert known.frames["lattice_parameter"][determined] == pytest.approx(3.905, rel=2e-3)
    assert known.to_xarray()["lattice_parameter"].attrs["units"] == "Å"
