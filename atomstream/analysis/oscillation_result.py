"""Combines the fits of one window into a rate with its uncertainty, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.evidence import rotation_overlap
from atomstream.analysis.hypotheses import reason_against
from atomstream.analysis.varpro import Window
from atomstream.results import F64, Measurement, measured, undetermined

MAX_SIGMA = 0.1
"""Largest relative uncertainty of a rate; with more, the rate is undetermined."""

ROTATION_ERROR = 0.002
"""Relative error that remains under rotation (streaks sweeping past the spot), from simulated growths."""

FEW_CYCLES_ERROR = 0.025
"""Relative error of a rate from two oscillations: growth that began within the window shifts all models alike."""

SHAPE_ERROR = 0.015
"""Uncertainty, in oscillations, of the phase at both ends of a window: while the surface roughens, the extrema shift
with respect to the layers, and no window shows it. In growths of the birth-death model it is 0.01 (median) to 0.045."""

DRIFT_ODDS = 0.2
KNOWN_DRIFT_ODDS = 10.0
"""Odds of a rate that changes over a window against a steady one, before the trace is seen: in general, and where the
window before showed a change."""

USUAL_DRIFT = 0.1
"""Relative change over a window that a changing rate usually has."""

UNCERTAIN_DRIFT = 0.5
"""Error of a steady model's rate at the end of a window, as a share of a drift that is seen but not certain. A steady
model gives the mean rate of the window; with a linear drift, the rate at its end differs by half of the drift."""

UNSEEN_DRIFT = UNCERTAIN_DRIFT * USUAL_DRIFT * math.sqrt(DRIFT_ODDS / (1.0 + DRIFT_ODDS))
"""Relative error of a rate from a window that is too short to fit a drift: the root of the probability of a usual drift
times the square of its error. The flux of an evaporation cell falls in the minutes after its shutter opened."""

UNEVEN_DRIFT = 0.16
"""Error of the rate at the end of a window with a drift, as a share of the drift: rates of evaporation cells follow
exponentials, not lines. It is that of an exponential whose time constant is half of the window."""

DRIFT_ERROR = 0.003
"""Error of a fitted relative change: the shape of the oscillations is not exactly the model's."""


@dataclass(frozen=True, slots=True)
class Oscillation:
    """Result for one trace: rate in 1/s (oscillations per second) at its end, damping in oscillations.

    ``best`` is the best single fit, whose phase is used to count oscillations; None if undetermined. ``cycles`` are
    the oscillations in the window, ``span_s`` is its length in s, ``r2`` the explained share of the variance and
    ``spread`` the relative spread of the rate over the models.
    """

    rate: Measurement
    damping: Measurement
    cycles: float
    r2: float
    span_s: float
    spread: float = 0.0
    best: varpro.Fit | None = None

    @property
    def determined(self) -> bool:
        """True if there is a rate."""
        return self.best is not None


def undetermined_oscillation(
    why: str, cycles: float = 0.0, r2: float = 0.0, span_s: float = 0.0
) -> Oscillation:
    """Return the result for a trace without a measurable oscillation, with the reason ``why``."""
    return Oscillation(undetermined(why, "1/s"), undetermined(why), cycles, r2, span_s)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rate in Hz at the end of a window from one family of models, with its variance and best fit."""

    rate: float
    variance: float
    spread: float
    best: varpro.Fit


def combine_fits(window: Window, fits: Sequence[varpro.Fit], drift_odds: float = DRIFT_ODDS) -> Oscillation:
    """Combine the fits of one window into a rate at its end, or the reason why there is none."""
    span = window.span_s
    fits = [f for f in fits if f.r2 > 0]
    if not fits:
        return undetermined_oscillation("no oscillation above the noise", span_s=span)
    estimate = estimated(window, fits, drift_odds)
    best, rate = estimate.best, estimate.rate
    why = reason_against(window, best)
    if why:
        return undetermined_oscillation(why, best.cycles, best.r2, span)
    unseen = 0.0 if window.nuisance is not None or any(f.model.drifts for f in fits) else UNSEEN_DRIFT
    sigma = math.hypot(
        math.sqrt(estimate.variance), SHAPE_ERROR * rate / max(best.cycles, 1.0), unseen * rate
    )
    if sigma > MAX_SIGMA * rate:
        return undetermined_oscillation(
            f"the fits differ by more than {100 * MAX_SIGMA:.0f} %; more oscillations would help",
            best.cycles,
            best.r2,
            span,
        )
    damping = _damping([f for f in fits if not f.model.drifts] or fits)
    note = _drift_note(best) if best.model.drifts else ""
    return Oscillation(
        measured(rate, sigma, "1/s", note), damping, best.cycles, best.r2, span, estimate.spread / rate, best
    )


def estimated(window: Window, fits: Sequence[varpro.Fit], drift_odds: float = DRIFT_ODDS) -> Estimate:
    """Return the rate at the end of a window from at least one fit.

    Steady models and models with a drift each give an estimate; both are averaged with their probabilities.
    """
    steady, drifting = [f for f in fits if not f.model.drifts], [f for f in fits if f.model.drifts]
    estimate = _estimate(window, steady or drifting)
    if not (steady and drifting):
        return estimate
    share = drift_probability(drifting, drift_odds)
    drift, sigma = mean_drift(drifting)
    if abs(drift) > 1.5 * sigma:
        # A change that is seen, but not certain: the steady models give its mean over the window.
        estimate = replace(
            estimate, variance=estimate.variance + (UNCERTAIN_DRIFT * drift * estimate.rate) ** 2
        )
    if share < 0.01:
        return estimate
    changing = _estimate(window, drifting)
    # The change is not exactly linear in time.
    changing = replace(changing, variance=changing.variance + (UNEVEN_DRIFT * drift * changing.rate) ** 2)
    return _averaged(estimate, changing, share)


def _estimate(window: Window, fits: Sequence[varpro.Fit]) -> Estimate:
    top = max(f.r2 for f in fits)
    best = max(fits, key=lambda f: (f.r2 > top - 0.02, f.cycles))
    rate, spread = _weighted(np.array([f.frequency for f in fits]), _weights(fits))
    few = FEW_CYCLES_ERROR * rate * (2.0 / max(best.cycles, 1.0)) ** 4
    turning = ROTATION_ERROR * rate * rotation_overlap(window, best) if window.nuisance is not None else 0.0
    return Estimate(rate, spread**2 + best.sigma_hz**2 + few**2 + turning**2, spread, best)


def _averaged(steady: Estimate, drifting: Estimate, share: float) -> Estimate:
    """Average two estimates of the rate, the second with the probability ``share``."""
    rate = (1.0 - share) * steady.rate + share * drifting.rate
    variance = (1.0 - share) * (steady.variance + (steady.rate - rate) ** 2)
    variance += share * (drifting.variance + (drifting.rate - rate) ** 2)
    likely = drifting if share > 0.5 else steady
    return Estimate(rate, variance, likely.spread, likely.best)


def drift_probability(fits: Sequence[varpro.Fit], odds: float) -> float:
    """Return the probability, 0-1, that the rate changes over the window, from fits with a drift.

    The odds of a change are ``odds``, those before the trace is seen, times the likelihood ratio of the fitted change,
    times the share of the usual changes that the fit's uncertainty leaves (the price of a free parameter).
    """
    drift, sigma = mean_drift(fits)
    log_odds = math.log(odds) + 0.5 * (drift / sigma) ** 2 - math.log(max(1.0, USUAL_DRIFT / sigma))
    return 1.0 / (1.0 + math.exp(-min(50.0, log_odds)))


def mean_drift(fits: Sequence[varpro.Fit]) -> tuple[float, float]:
    """Return the relative change of the rate over the window, averaged over the fits, and its uncertainty."""
    drift, spread = _weighted(np.array([f.drift for f in fits]), _weights(fits))
    return drift, math.hypot(math.hypot(spread, DRIFT_ERROR), min(f.sigma_drift for f in fits))


def _drift_note(fit: varpro.Fit) -> str:
    word = "rises" if fit.drift > 0 else "falls"
    return f"the rate {word}: by {100 * abs(fit.drift):.2g} % over the last {fit.cycles:.1f} oscillations"


def _weights(fits: Sequence[varpro.Fit]) -> F64:
    return np.array([1.0 / max(f.sigma_hz / f.frequency, 1e-5) ** 2 for f in fits])


def _weighted(x: F64, weights: F64) -> tuple[float, float]:
    weights = weights / weights.sum()
    mean = float(weights @ x)
    return mean, math.sqrt(max(0.0, float(weights @ (x - mean) ** 2)))


def _damping(fits: Sequence[varpro.Fit]) -> Measurement:
    """Return the number of oscillations until the amplitude has fallen to 1/e."""
    per_cycle, spread = _weighted(np.array([f.decay / f.frequency for f in fits]), _weights(fits))
    sigma = math.hypot(spread, min(f.sigma_decay / f.frequency for f in fits))
    if per_cycle <= 2.0 * sigma:
        return undetermined(f"the damping is too slow to be measured in {fits[0].cycles:.1f} oscillations")
    return measured(1.0 / per_cycle, sigma / per_cycle**2, "oscillations")
