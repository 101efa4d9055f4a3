"""From the fits of one window to a rate with its uncertainty, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.varpro import Window
from atomstream.results import F64, Measurement, measured, undetermined

# Shapes of a trace that look periodic to a fit and are no growth: two levels, staircases.


def is_two_level(y: F64, oscillation_r2: float) -> bool:
    """Whether two constant levels describe ``y`` (N,) better than the oscillation, which explains ``oscillation_r2``.

    A sinusoid leaves 19 % of its variance to the best two levels, a square wave none.
    """
    return two_level_r2(y) > max(0.9, oscillation_r2)


def two_level_r2(y: F64) -> float:
    """Share of the variance explained by the best split into two levels (Otsu's criterion), 0-1."""
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
    """Share of the total variation carried by the few largest sample-to-sample moves, 0-1.

    A smooth oscillation spreads its variation over all samples; steps hold it in a few of them.
    """
    moves = np.abs(np.diff(y))
    if len(moves) < 20:
        return 0.0
    few = max(3, len(moves) // 40)
    noise = float(np.median(moves))
    large = np.sort(moves)[-few:]
    return float(np.clip(large - 2 * noise, 0.0, None).sum() / max(moves.sum(), 1e-300))


MIN_CYCLES = 1.5

MAX_SIGMA = 0.08

ROTATION_ERROR = 0.002
"""Relative error that remains under rotation (streaks sweeping past the spot), from simulated growths."""

FEW_CYCLES_ERROR = 0.025
"""Relative doubt of a rate from two oscillations: growth that began within the window bends all fair models alike."""

MAX_ROTATION_OVERLAP = 1.6
"""Beyond, the rotation's side bands of the oscillation pull the rate by about 1 %, in simulated growths."""

STRONG_HARMONICS = 6
"""A turn modulates the light little at twice a harmonic above this one, so its side bands do not pull the rate."""

MAX_OVERTONE = 4.0
"""Where nearly all is in the second harmonic, that is what oscillates, twice as fast: a vibration of 6 Hz is no
growth of 3 layers a second. Layers keep their first harmonic."""

SAMPLES_PER_INDEPENDENT = 1.4
"""Samples of a slow trace to one independent one, after the anti-alias filter."""


@dataclass(frozen=True, slots=True)
class Oscillation:
    """What a trace says about growth: rate in Hz (oscillations a second), damping in oscillations.

    ``best`` is the best single fit (its phase counts oscillations), None where undetermined; ``span_s`` the
    length of the window used, ``spread`` the relative spread over models.
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
        """Whether there is a rate."""
        return self.best is not None


def undetermined_oscillation(
    why: str, cycles: float = 0.0, r2: float = 0.0, span_s: float = 0.0
) -> Oscillation:
    """Answer for a trace that holds no measurable oscillation, and why."""
    return Oscillation(undetermined(why, "1/s"), undetermined(why), cycles, r2, span_s)


def combine_fits(window: Window, fits: Sequence[varpro.Fit]) -> Oscillation:
    """Weigh the fits of one window into a rate, or say why there is none."""
    span = window.span_s
    fits = [f for f in fits if f.r2 > 0]
    if not fits:
        return undetermined_oscillation("no oscillation stands out of the noise", span_s=span)
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
            "fair fits differ by more than 8 %; more oscillations would help", best.cycles, best.r2, span
        )
    damping = _damping(fits, weights)
    return Oscillation(measured(rate, sigma, "1/s"), damping, rate * span, best.r2, span, spread / rate, best)


def rotation_overlap(window: Window, best: varpro.Fit) -> float:
    """How far the rotation's harmonics can stand in for the oscillation: 1 not at all, large on a harmonic."""
    if window.nuisance is None:
        return 1.0
    first = best.order + 1
    waves = varpro.design(window.t, best.frequency, best.decay, varpro.Model(best.order))[
        :, first : first + 2
    ]
    residual_power = waves - window.nuisance @ (window.nuisance.T @ waves)
    return min(10.0, math.sqrt(float((waves**2).sum() / max(float((residual_power**2).sum()), 1e-12))))


def _weighted(x: F64, weights: F64) -> tuple[float, float]:
    weights = weights / weights.sum()
    mean = float(weights @ x)
    return mean, math.sqrt(max(0.0, float(weights @ (x - mean) ** 2)))


def _damping(fits: Sequence[varpro.Fit], weights: F64) -> Measurement:
    """Oscillations until the amplitude has fallen to 1/e."""
    per_cycle, spread = _weighted(np.array([f.decay / f.frequency for f in fits]), weights)
    sigma = math.hypot(spread, min(f.sigma_decay / f.frequency for f in fits))
    if per_cycle < 2.0 * sigma:
        return undetermined(f"damping is slower than can be told from {fits[0].cycles:.1f} oscillations")
    return measured(1.0 / per_cycle, sigma / per_cycle**2, "oscillations")


def rejection_reason(window: Window, best: varpro.Fit) -> str:
    """Why a fit is no measurement of growth ("" where it is one)."""
    if best.cycles < MIN_CYCLES:
        more = (MIN_CYCLES - best.cycles) / best.frequency
        return f"only {best.cycles:.1f} oscillations seen, {MIN_CYCLES} are needed; about {more:.3g} s more would help"
    k = max(1, round(best.frequency / window.rotation_hz)) if window.rotation_hz else 0
    if 0 < k <= STRONG_HARMONICS and rotation_overlap(window, best) > MAX_ROTATION_OVERLAP:
        return f"the oscillation lies too near to {k} times the rotation to be told from it; another speed would help"
    # drift bends into one or two fair oscillations easily, into three hardly
    need = 0.95 if best.cycles < 2.0 else 0.9 if best.cycles < 2.5 else 0.85 if best.cycles < 4.0 else 0.65
    if window.nuisance is not None:
        need = max(
            need, 0.9
        )  # at half the rate, the harmonics of turn and layers can stand in for each other
    if explained_share(window, best) < need:
        return f"no clear oscillation: the best fit explains {100 * max(0.0, best.r2):.0f} % of the variation"
    if not is_significant(window, best):
        return "no clear oscillation: noise alone could show as much in so few samples"
    rate = (len(window.t) - 1) / window.span_s
    # five samples a period, so that its second harmonic is no alias
    if best.frequency > 0.22 * rate or (window.nuisance is None and best.overtone > MAX_OVERTONE):
        return "the variation is faster than the trace can show; a higher frame rate would help"
    flat = varpro.detrended(window.t, window.y, 0, window.nuisance)
    if is_two_level(flat, best.r2):
        return "the trace switches between two levels (a shutter or an exposure step), it does not oscillate"
    if staircase_share(flat) > 0.6:
        return "the trace moves in steps (shutter, exposure or gain), it does not oscillate"
    if has_stopped(window, best):
        return "the oscillation has stopped or changed within its last period"
    if abs(best.decay) > 1.5 * best.frequency:
        return "the variation dies within one oscillation: a transient, not layers"
    return ""


def explained_share(window: Window, best: varpro.Fit) -> float:
    """Share of the variation that the fit explains; under rotation, of what is not white noise.

    While the substrate turns a window holds many damped oscillations, in a dim picture under much noise. Second
    differences tell white noise from the slow errors of a wrong model (J. von Neumann, Ann. Math. Stat. 12, 367).
    """
    if window.nuisance is None or best.r2 <= 0.0 or len(best.residual) < 3:
        return best.r2
    residual_power = float((best.residual**2).mean())
    noise_power = min(float((np.diff(best.residual, 2) ** 2).mean()) / 6.0, 0.9 * residual_power)
    return 1.0 - (residual_power - noise_power) / max(
        residual_power / (1.0 - min(best.r2, 1.0 - 1e-12)) - noise_power, 1e-300
    )


def is_significant(window: Window, best: varpro.Fit) -> bool:
    """Whether noise alone would explain that much less than once in 10^8 fits, all frequencies tried counted in.

    The tail of the F test for white noise through the anti-alias filter; an hour holds some 10^5 fits.
    """
    free = 8 + (0 if window.nuisance is None else window.nuisance.shape[1])
    independent = len(window.t) / SAMPLES_PER_INDEPENDENT
    if best.r2 >= 1.0 or independent <= free + 2:
        return best.r2 > 0.99
    log_chance = 0.5 * (independent - free) * math.log1p(-max(0.0, best.r2))
    return log_chance + math.log(100.0 * len(window.t)) < math.log(1e-8)


def has_stopped(window: Window, best: varpro.Fit) -> bool:
    """Whether the last period of the trace goes against the fit: growth has ended, though the window holds it still."""
    residual, wave = best.residual, best.wave
    last = window.t[-1] - 1.0 / best.frequency
    recent = window.t[len(window.t) - len(residual) :] > last
    if recent.all() or not recent.any():
        return False
    missed, before = float((residual[recent] ** 2).mean()), float((residual[~recent] ** 2).mean())
    return missed > 0.6 * float((wave[recent] ** 2).mean()) and missed > 3.0 * before
