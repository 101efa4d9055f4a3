"""Growth that begins some time after the first frame: rate and count stay correct."""

from __future__ import annotations

import pytest

from atomstream.analysis.oscillation import rest_before_onset
from tests.analysis.growth_helpers import Film, layer_trace


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        pytest.param(
            {"rate_ml_s": 0.2525, "tau_ml": 5.0, "growth_start_s": 3.0}, 16, marks=pytest.mark.campaign
        ),
        ({"rate_ml_s": 0.4, "growth_start_s": 2.0}, 14),
        ({"rate_ml_s": 0.2049, "rpm": 15.0, "tau_ml": 9.0, "growth_start_s": 3.0}, 30),
    ],
)
def test_a_late_start_is_detected(spec: dict, seconds: float) -> None:
    """Rate within 0.4 % and three sigmas, layers within 0.2; the note gives the start of the count."""
    values = Film(seconds, fps=20.0, hum=0.0, **spec).analysed().values
    rate, layers = values["growth_rate_ml_s"], values["layers_grown"]
    assert rate.value == pytest.approx(spec["rate_ml_s"], rel=0.004)
    assert abs(rate.value - spec["rate_ml_s"]) < 3 * rate.sigma
    assert layers.value == pytest.approx(spec["rate_ml_s"] * (seconds - spec["growth_start_s"]), abs=0.2)
    assert "counted from" in layers.note


@pytest.mark.parametrize("tau", [3.0, 12.0])
def test_growth_from_the_start_is_not_cut(tau: float) -> None:
    """A damped growth from the first frame is not taken for a late start."""
    assert rest_before_onset(*layer_trace(0.4, 15, tau=tau), 0.4) == 0
