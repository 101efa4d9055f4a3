"""Combines the fits of one window into a rate with its uncertainty, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.varpro import Window
from atomstream.results import F64, Measurement, measured, undetermined


def is_two_level(y: F64, oscillation_r2: float) -> bool:
    """Return True if two constant levels describe ``y`` (N,) better than the oscillation with its ``oscillation_r2``.

    A sinusoid leaves 19 % of its variance to the best two levels, a square wave none.
    """
    return two_level_r2(y) > max(0.9, oscillation_r2)


def two_level_r2(y: F64) -> float:
    """Return the share of variance explained by the best split into two levels, 0-1 (Otsu's criterion)."""
    ordered = np.sort(y)
    n = len(ordered)
    total = float(((ordered - ordered.mean()) ** 2).sum())
    if n < 4 or total <= 0:
        return 0.0
    low = np.arange(1, n)
    sums = np.cumsum(ordered)[:-1]
    between = n / (low * (n - low)) * (sums - low * ordered.mean()) ** 2
    return float(between.max() / total)


def staircase_share(y: F64) -> float:
    """Return the share of the total variation in the few largest sample-to-sample differences, 0-1.

    A smooth oscillation spreads its variation over all samples; a trace with steps has it in a few of them.
    """
    moves = np.abs(np.diff(y))
    if len(moves) < 20:
        return 0.0
    few = max(3, len(moves) // 40)
    noise = float(np.median(moves))
    large = np.sort(moves)[-few:]
    return float(np.clip(large - 2 * noise, 0.0, None).sum() / max(moves.sum(), 1e-300))


MIN_CYCLES = 1.5
"""Fewest oscillations for a rate."""

MAX_SIGMA = 0.08
"""Largest relative uncertainty of a rate; beyond, it is undetermined."""

ROTATION_ERROR = 0.002
"""Relative error that remains under rotation (streaks sweeping past the spot), from simulated growths."""

FEW_CYCLES_ERROR = 0.025
"""Relative error of a rate from two oscillations: growth that began within the window shifts all models alike."""

MAX_ROTATION_OVERLAP = 1.6
"""Beyond, side bands from the rotation shift the rate by about 1 %, in simulated growths."""

STRONG_HARMONICS = 6
"""Higher harmonics of the rotation are weak, so their side bands do not shift the rate."""

MAX_OVERTONE = 4.0
"""Largest amplitude of the second harmonic relative to the first. Beyond, the signal oscillates at twice the
frequency: a vibration of 6 Hz is no growth of 3 layers per second."""

SAMPLES_PER_INDEPENDENT = 1.4
"""Samples of a slow trace per independent sample, after the anti-alias filter."""


@dataclass(frozen=True, slots=True)
class Oscillation:
    """Result for one trace: rate in 1/s (oscillations per second), damping in oscillations.

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


def combine_fits(window: Window, fits: Sequence[varpro.Fit]) -> Oscillation:
    """Combine the fits of one window into a weighted mean rate, or the reason why there is none."""
    span = window.span_s
    fits = [f for f in fits if f.r2 > 0]
    if not fits:
        return undetermined_oscillation("no oscillation above the noise", span_s=span)
    top = max(f.r2 for f in fits)
    best = max(fits, key=lambda f: (f.r2 > top - 0.02, f.cycles))
    why = rejection_reason(window, best)
    if why:
        return undetermined_oscillation(why, best.cycles, best.r2, span)
    weights = np.array([1.0 / max(f.sigma_hz / f.frequency, 1e-5) ** 2 for f in fits])
    rate, spread = _weighted(np.array([f.frequency for f in fits]), weights)
    sigma = math.hypot(spread, best.sigma_hz)
    sigma = math.hypot(sigma, FEW_CYCLES_ERROR * rate * (2.0 / max(best.cycles, 1.0)) ** 4)
    if window.nuisance is not None:
        sigma = math.hypot(sigma, ROTATION_ERROR * rate * rotation_overlap(window, best))
    if sigma > MAX_SIGMA * rate:
        return undetermined_oscillation(
            "the fits differ by more than 8 %; more oscillations would help", best.cycles, best.r2, span
        )
    damping = _damping(fits, weights)
    return Oscillation(measured(rate, sigma, "1/s"), damping, rate * span, best.r2, span, spread / rate, best)


def rotation_overlap(window: Window, best: varpro.Fit) -> float:
    """Return how well rotation harmonics can imitate the oscillation: 1 not at all, up to 10 on a harmonic."""
    if window.nuisance is None:
        return 1.0
    first = best.order + 1
    waves = varpro.design(window.t, best.frequency, best.decay, varpro.Model(best.order))[
        :, first : first + 2
    ]
    remainder = waves - window.nuisance @ (window.nuisance.T @ waves)
    return min(10.0, math.sqrt(float((waves**2).sum() / max(float((remainder**2).sum()), 1e-12))))


def _weighted(x: F64, weights: F64) -> tuple[float, float]:
    weights = weights / weights.sum()
    mean = float(weights @ x)
    return mean, math.sqrt(max(0.0, float(weights @ (x - mean) ** 2)))


def _damping(fits: Sequence[varpro.Fit], weights: F64) -> Measurement:
    """Return the number of oscillations until the amplitude has fallen to 1/e."""
    per_cycle, spread = _weighted(np.array([f.decay / f.frequency for f in fits]), weights)
    sigma = math.hypot(spread, min(f.sigma_decay / f.frequency for f in fits))
    if per_cycle < 2.0 * sigma:
        return undetermined(f"the damping is too slow to be measured in {fits[0].cycles:.1f} oscillations")
    return measured(1.0 / per_cycle, sigma / per_cycle**2, "oscillations")


def rejection_reason(window: Window, best: varpro.Fit) -> str:
    """Return why a fit is no measurement of growth ("" if it is one)."""
    if best.cycles < MIN_CYCLES:
        more = (MIN_CYCLES - best.cycles) / best.frequency
        return f"only {best.cycles:.1f} oscillations seen, {MIN_CYCLES} are needed; about {more:.3g} s more would help"
    k = max(1, round(best.frequency / window.rotation_hz)) if window.rotation_hz else 0
    if 0 < k <= STRONG_HARMONICS and rotation_overlap(window, best) > MAX_ROTATION_OVERLAP:
        return f"the oscillation is too close to {k} times the rotation to be separated; another speed would help"
    # A drift can look like one or two oscillations, but hardly like three.
    need = 0.95 if best.cycles < 2.0 else 0.9 if best.cycles < 2.5 else 0.85 if best.cycles < 4.0 else 0.65
    if window.nuisance is not None:
        need = max(need, 0.9)  # at half the rate, harmonics of rotation and growth can imitate each other
    if explained_share(window, best) < need:
        return f"no clear oscillation: the best fit explains {100 * max(0.0, best.r2):.0f} % of the variation"
    if not is_significant(window, best):
        return "no clear oscillation: noise alone could look like this in so few samples"
    rate = (len(window.t) - 1) / window.span_s
    # At least five samples per period, so that the second harmonic is not aliased.
    if best.frequency > 0.22 * rate or (window.nuisance is None and best.overtone > MAX_OVERTONE):
        return "the variation is too fast for this frame rate; a higher frame rate would help"
    flat = varpro.detrended(window.t, window.y, 0, window.nuisance)
    if is_two_level(flat, best.r2):
        return "the trace switches between two levels (a shutter or an exposure step), it does not oscillate"
    if staircase_share(flat) > 0.6:
        return "the trace moves in steps (shutter, exposure or gain), it does not oscillate"
    if has_stopped(window, best):
        return "the oscillation has stopped or changed within its last period"
    if abs(best.decay) > 1.5 * best.frequency:
        return "the variation decays within one oscillation: a transient, not layers"
    return ""


def explained_share(window: Window, best: varpro.Fit) -> float:
    """Return the share of the variation that the fit explains; under rotation, without white noise.

    Under rotation a window has many damped oscillations and, in a dim picture, much noise. Second differences
    separate white noise from the slow errors of a wrong model (J. von Neumann, Ann. Math. Stat. 12, 367 (1941)).
    """
    if window.nuisance is None or best.r2 <= 0.0 or len(best.residual) < 3:
        return best.r2
    residual_power = float((best.residual**2).mean())
    noise_power = min(float((np.diff(best.residual, 2) ** 2).mean()) / 6.0, 0.9 * residual_power)
    return 1.0 - (residual_power - noise_power) / max(
        residual_power / (1.0 - min(best.r2, 1.0 - 1e-12)) - noise_power, 1e-300
    )


def is_significant(window: Window, best: varpro.Fit) -> bool:
    """Return True if noise alone would give such a fit less than once in 10^8 fits, over all frequencies tried.

    This is the tail of the F test for white noise behind the anti-alias filter; one hour has about 10^5 fits.
    """
    free = 8 + (0 if window.nuisance is None else window.nuisance.shape[1])
    independent = len(window.t) / SAMPLES_PER_INDEPENDENT
    if best.r2 >= 1.0 or independent <= free + 2:
        return best.r2 > 0.99
    log_chance = 0.5 * (independent - free) * math.log1p(-max(0.0, best.r2))
    return log_chance + math.log(100.0 * len(window.t)) < math.log(1e-8)


def has_stopped(window: Window, best: varpro.Fit) -> bool:
    """Return True if the last period of the trace contradicts the fit: growth has ended within the window."""
    residual, wave = best.residual, best.wave
    last = window.t[-1] - 1.0 / best.frequency
    recent = window.t[len(window.t) - len(residual) :] > last
    if recent.all() or not recent.any():
        return False
    missed, before = float((residual[recent] ** 2).mean()), float((residual[~recent] ** 2).mean())
    return missed > 0.6 * float((wave[recent] ** 2).mean()) and missed > 3.0 * before
