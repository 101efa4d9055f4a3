"""An oscillation of the light is not reported as growth, at any frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.growth_helpers import Film

STILL = {"rate_ml_s": 0.0}


@pytest.mark.parametrize(
    "spec",
    [
        {"fps": 20.0, "hum": 0.07, "hum_hz": 59.3},
        pytest.param({"fps": 30.0, "hum": 0.07, "hum_hz": 60.3}, marks=pytest.mark.campaign),
        {"fps": 20.0, "hum": 0.07, "hum_hz": 50.1, "gain": 0.25, "seed": 31},
        {"fps": 30.0, "shutter_period_s": 2.0, "height": 240, "width": 320, "seed": 31},
        {"fps": 20.0, "shutter_period_s": 3.0, "rpm": 15.0},
    ],
    ids=["hum at 59.3 Hz", "hum at 60.3 Hz", "dim with hum at 50.1 Hz", "shutter", "shutter while rotating"],
)
def test_oscillating_light_is_no_growth(spec: dict) -> None:
    """Hum that a slow camera aliases to a low frequency, or a shutter, gives no rate."""
    answer = Film(22 if "rpm" in spec else 16, **STILL, **spec).analysed()
    assert np.isnan(answer.frames["growth_rate_ml_s"]).all()
    assert answer.values["growth_rate_ml_s"].why


def test_growth_under_aliased_hum() -> None:
    """The growth rate is found with 5 % of hum that is aliased to 0.7 Hz."""
    value = Film(16, fps=30.0, hum=0.05, hum_hz=59.3).analysed().values["growth_rate_ml_s"]
    assert abs(value.value - 0.4) < 3 * value.sigma
    assert value.value == pytest.approx(0.4, rel=0.01)
