"""Variable projection: exact derivatives of the residuals, and a search that ends at the least sum of squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import least_squares

from atomstream.analysis.linear_part import LinearPart, Model
from atomstream.analysis.varpro import fit, rotation_harmonics

MODELS = (Model(1, True), Model(2, False), Model(2, True, True))


def _trace(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0.0, 20.0, 240))
    wave = np.exp(-0.05 * t) * (0.3 * np.cos(2 * np.pi * 0.3 * t) + 0.1 * np.cos(2 * np.pi * 0.6 * t + 1))
    return t, 1 + 0.01 * t + wave + rng.normal(0, 0.02, len(t))


@pytest.mark.parametrize("rotation_hz", [0.0, 0.25])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("decay", [0.04, 3.0])
def test_the_derivatives_are_exact(model: Model, rotation_hz: float, decay: float) -> None:
    """The derivatives agree with differences of fourth order within 1e-7, also where the envelope is limited."""
    t, y = _trace()
    linear = LinearPart(t, y, model, rotation_harmonics(t, rotation_hz))
    at = np.array([math.log(0.31), decay, 0.1][: 3 if model.drifts else 2])

    def residuals(p: np.ndarray) -> np.ndarray:
        return linear.solve(math.exp(p[0]), p[1], p[2] if model.drifts else 0.0)[1]

    slopes = linear.slopes(0.31, decay, 0.1 if model.drifts else 0.0)
    steps = 1e-4 * np.eye(len(at))
    near = [8 * (residuals(at + h) - residuals(at - h)) for h in steps]
    far = [residuals(at + 2 * h) - residuals(at - 2 * h) for h in steps]
    differences = np.stack([(a - b) / 12e-4 for a, b in zip(near, far, strict=True)])
    assert slopes == pytest.approx(differences, abs=1e-7 * np.abs(differences).max())


@pytest.mark.parametrize("model", MODELS)
def test_a_fit_finds_the_least_sum_of_squares(model: Model) -> None:
    """The sum of squares equals that of a search by finite differences, far within the uncertainty."""
    t, y = _trace(1)
    found = fit(t, y, 0.32, model)
    assert found is not None
    linear = LinearPart(t, y, model)

    def residuals(p: np.ndarray) -> np.ndarray:
        return linear.solve(p[0], p[1], p[2] if model.drifts else 0.0)[1]

    start = [found.frequency, found.decay, found.drift][: 3 if model.drifts else 2]
    best = least_squares(residuals, start, jac="3-point", xtol=1e-12, ftol=1e-14, gtol=1e-14)
    assert (residuals(np.array(start)) ** 2).sum() == pytest.approx(2 * best.cost, rel=1e-6)
    assert found.frequency == pytest.approx(best.x[0], abs=0.05 * found.sigma_hz)
