"""Statistics of a fit on its window: how much of the variation it explains, and how well other models explain the same
samples.

:mod:`~atomstream.analysis.hypotheses` decides with them whether an oscillation is growth.
"""

from __future__ import annotations

import math

import numpy as np

from atomstream.analysis import varpro
from atomstream.analysis.filters import exponential_mean
from atomstream.analysis.linear_part import Model
from atomstream.analysis.varpro import Window, downsampled
from atomstream.results import F64

SAMPLES_PER_INDEPENDENT = 1.4
"""Samples of a slow trace per independent sample, after the anti-alias filter."""

NOISY_CYCLES = 3.0
"""Fewest oscillations that are recognised in much noise."""


def explained_share(window: Window, fit: varpro.Fit) -> float:
    """Return the share of the variation that the fit explains; from three oscillations on, without white noise.

    In a dim picture much of the variation is white noise. Second differences separate it from the slow errors of a
    wrong model (J. von Neumann, Ann. Math. Stat. 12, 367 (1941)).
    """
    few = window.nuisance is None and fit.cycles < NOISY_CYCLES
    if few or fit.r2 <= 0.0 or len(fit.residual) < 3:
        return fit.r2
    residual_power = float((fit.residual**2).mean())
    noise_power = min(float((np.diff(fit.residual, 2) ** 2).mean()) / 6.0, 0.9 * residual_power)
    return 1.0 - (residual_power - noise_power) / max(
        residual_power / (1.0 - min(fit.r2, 1.0 - 1e-12)) - noise_power, 1e-300
    )


def is_significant(window: Window, fit: varpro.Fit) -> bool:
    """Return True if noise alone would give such a fit less than once in 10^7 fits, over all frequencies tried.

    This is the tail of the F test for white noise behind the anti-alias filter; one hour has about 10^5 fits. Without
    the pulses of a laser, one sample per pulse is independent.
    """
    free = 8 + (0 if window.nuisance is None else window.nuisance.shape[1])
    independent = min(len(window.t) / SAMPLES_PER_INDEPENDENT, window.pulses)
    if fit.r2 >= 1.0 or independent <= free + 2:
        return fit.r2 > 0.99 and math.isinf(window.pulses)
    log_chance = 0.5 * (independent - free) * math.log1p(-max(0.0, fit.r2))
    return log_chance + math.log(100.0 * min(len(window.t), window.pulses)) < math.log(1e-7)


WALK_SAMPLES = 10
"""Samples per period in the comparison with a random walk: coarser than the noise of the camera is correlated."""

MIN_WALK_SAMPLES = 8
"""Fewest samples that are compared, one per laser pulse: the oscillation has six parameters."""

MIN_WALK_EVIDENCE = 14.0
"""Natural logarithm of the likelihood ratio of oscillation and random walk, beyond the price of the parameters."""


def exceeds_random_walk(window: Window, fit: varpro.Fit) -> bool:
    """Return True if the oscillation explains the window much better than a random walk with white noise."""
    return walk_evidence(window, fit) > MIN_WALK_EVIDENCE


def walk_evidence(window: Window, fit: varpro.Fit) -> float:
    """Return the logarithm of the likelihood ratio of the oscillation and a random walk with white noise.

    It is infinite in too few samples for a comparison, and -inf with too few pulses of a laser.

    Drifts of beam and temperature are random walks, whose short pieces look like one or two oscillations. Such a
    process predicts each sample from those before it; the innovations (errors of this prediction) of the trace are
    compared with those of the residuals of the fit, which is the likelihood ratio of the two models
    (G. Schwarz, Ann. Statist. 6, 461 (1978), for the price of the parameters). A running mean over a laser's pulses
    makes any process smooth within a pulse, so there is one sample per pulse at most.
    """
    count = max(15, round(WALK_SAMPLES * fit.cycles))
    if window.pulses < count:
        count = int(window.pulses)
        if count < MIN_WALK_SAMPLES:
            return -math.inf
    t = window.t[len(window.t) - len(fit.residual) :]
    y = window.y[len(window.y) - len(fit.residual) :]
    if len(t) < 15:
        return math.inf
    whole = _innovations(downsampled(t, y - y.mean(), count)[1])
    rest = _innovations(downsampled(t, fit.residual, count)[1])
    n = min(count, len(t))
    if whole <= 0.0:
        return -math.inf
    return 0.5 * n * math.log(whole / max(rest, 1e-12 * whole)) - 0.5 * 6 * math.log(n)


GAINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Gains of the exponential smoothing: 0 predicts the mean (white noise), 1 the last sample (a random walk)."""


def _innovations(y: F64) -> float:
    """Return the mean square of the errors with which a random walk in white noise predicts each next sample.

    The best prediction of such a process is exponential smoothing (J. F. Muth, J. Am. Stat. Assoc. 55, 299 (1960)).
    """
    errors = []
    for gain in GAINS:
        level = exponential_mean(y, gain)
        errors.append(float(((y[1:] - level[:-1]) ** 2).mean()))
    return min(errors)


def rotation_overlap(window: Window, fit: varpro.Fit) -> float:
    """Return how well rotation harmonics can imitate the oscillation: 1 not at all, up to 10 on a harmonic."""
    if window.nuisance is None:
        return 1.0
    first = fit.model.order + 1
    waves = varpro.design(window.t, fit.frequency, fit.decay, Model(fit.model.order))[:, first : first + 2]
    remainder = waves - window.nuisance @ (window.nuisance.T @ waves)
    return min(10.0, math.sqrt(float((waves**2).sum() / max(float((remainder**2).sum()), 1e-12))))


def has_stopped(fit: varpro.Fit) -> bool:
    """Return True if the last period of the window contradicts its fit: growth has ended within the window."""
    samples = round(len(fit.residual) / max(fit.cycles, 1e-9))  # of one period
    if not 0 < samples < len(fit.residual):
        return False
    missed = float((fit.residual[-samples:] ** 2).mean())
    before = float((fit.residual[:-samples] ** 2).mean())
    return missed > 0.6 * float((fit.wave[-samples:] ** 2).mean()) and missed > 3.0 * before


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


# Two readings: two growth rates that explain one trace equally well. Every second oscillation of bilayer growth is
# stronger, and the second harmonic of layer growth can be stronger than the first. Both traces hold a frequency and its
# double; the trace alone cannot show which one counts layers.

MIN_READING = 0.13
MIN_EARLY_READING = 0.3
"""Smallest amplitude at half the frequency, relative to that at the frequency, that makes the reading doubtful: in
many and in few oscillations."""

MAX_READING_OVERTONE = 0.8
"""Largest amplitude of the second harmonic, relative to the first, of an oscillation without a second reading."""

READING_CYCLES = 4.0
"""Fewest oscillations in which half of the frequency is separated from a cubic background."""

MIN_READING_EVIDENCE = 12.0
"""Natural logarithm of the likelihood ratio with and without half of the frequency."""

SLOW_READING_CYCLES = 2.2
"""Fewest oscillations of a run of growth that are compared with a fit at half the frequency."""

SLOW_RATIOS = (0.45, 0.56)
"""Range of the fitted frequency, as a share of the other one. A first layer unlike the others can make the fit
diverge."""

MIN_SLOW_SHARE = 0.95
"""Least share of the variation that the fit at half the frequency explains."""

MAX_SLOW_REST = 0.2
"""Largest share of the residual at the frequency that the fit at half of it leaves."""


def second_reading(window: Window, fit: varpro.Fit) -> float:
    """Return the other frequency in Hz, half or twice that of the fit, that the trace may show; 0.0 if there is none.

    Amplitudes at 1/2, 1, 3/2 and 2 times the frequency are fitted together. In few oscillations the half frequency is
    compared with a cubic background of as many parameters.
    """
    if window.nuisance is not None or len(window.t) < 16:
        return 0.0
    many = fit.cycles >= READING_CYCLES
    amplitudes, plain = _with_multiples(window, fit, 3, (1.0, 2.0))
    if amplitudes[1] > MAX_READING_OVERTONE * amplitudes[0]:
        return 2.0 * fit.frequency
    order, multiples = (3, (1.0, 2.0, 0.5, 1.5)) if many else (1, (1.0, 2.0, 0.5))
    amplitudes, halved = _with_multiples(window, fit, order, multiples)
    if amplitudes[2] < (MIN_READING if many else MIN_EARLY_READING) * amplitudes[0]:
        return 0.0
    return 0.5 * fit.frequency if _gain(plain, halved) > MIN_READING_EVIDENCE else 0.0


EARLY_CYCLES = 2.45
"""Number of oscillations from which :func:`is_uneven` does not hold back a first rate: every second one was seen."""

MIN_UNEVEN = 0.33
UNEVEN_BY_DECAY = 0.8
USUAL_DECAY = 0.3
"""Smallest amplitude at half the frequency, relative to that at the frequency, with which oscillations are uneven. With
a decay (in units of the frequency) above the usual one, it is larger by this factor times the difference, because
strong damping looks like half the frequency, too."""

MIN_UNEVEN_EVIDENCE = 10.0
"""Natural logarithm of the likelihood ratio with and without half of the frequency, without a curved background."""


def is_uneven(window: Window, fit: varpro.Fit) -> bool:
    """Return True if the first one or two oscillations differ so much that their frequency is not yet that of layers.

    Half of the frequency then explains much more than a straight background: every second oscillation may differ, or
    growth began within the window, or the first layer took longer than the others. In so few oscillations a curved
    background would explain the same, so the trace cannot show which of them holds.
    """
    if window.nuisance is not None or fit.cycles >= EARLY_CYCLES or len(window.t) < 16:
        return False
    plain = _with_multiples(window, fit, 1, (1.0, 2.0))[1]
    amplitudes, halved = _with_multiples(window, fit, 1, (1.0, 2.0, 0.5))
    least = MIN_UNEVEN + UNEVEN_BY_DECAY * max(0.0, fit.decay / fit.frequency - USUAL_DECAY)
    return bool(amplitudes[2] > least * amplitudes[0]) and _gain(plain, halved) > MIN_UNEVEN_EVIDENCE


def _with_multiples(
    window: Window, fit: varpro.Fit, order: int, multiples: tuple[float, ...]
) -> tuple[F64, F64]:
    """Fit waves at ``multiples`` of the frequency of a fit on a polynomial of ``order``: (amplitudes, residual)."""
    t = window.t
    x = (t - t.mean()) / max(float(t[-1] - t[0]), 1e-12)
    since = t - fit.t_end
    turn = 2.0 * math.pi * (fit.frequency + 0.5 * fit.slope * since) * since
    envelope = np.exp(np.clip(-fit.decay * (t - t[0]), -20.0, 20.0))
    columns = [x**k for k in range(order + 1)]
    columns += [envelope * f(m * turn) for m in multiples for f in (np.cos, np.sin)]
    basis = np.stack(columns, axis=1)
    coefficients = np.linalg.lstsq(basis, window.y, rcond=1e-9)[0]
    amplitudes = np.hypot(coefficients[order + 1 :: 2], coefficients[order + 2 :: 2])
    return amplitudes, window.y - basis @ coefficients


def _gain(plain: F64, halved: F64) -> float:
    """Return the logarithm of the likelihood ratio of two residuals (N,), without and with half of the frequency."""
    correlated = varpro.correlation_time(halved)
    ratio = float(plain @ plain) / max(float(halved @ halved), 1e-300)
    return 0.5 * len(halved) / correlated * math.log(max(ratio, 1e-300))


def slow_reading(window: Window, fit: varpro.Fit) -> float:
    """Return half of the frequency of a fit in Hz if it explains more oscillations of the trace; 0.0 if it does not.

    Where every second oscillation differs much, only a short window of two or three agrees with a fit, and its
    frequency is double that of the layers. ``window`` holds more of the segment. A fit at half the frequency with a
    strong second harmonic explains all of it, the fit at the frequency does not.
    """
    if fit.cycles >= READING_CYCLES or window.span_s * fit.frequency < SLOW_READING_CYCLES:
        return 0.0
    slow = varpro.fit(window.t, window.y, 0.5 * fit.frequency, Model(1, True, strong=True), fit.decay)
    if slow is None or slow.r2 < MIN_SLOW_SHARE:
        return 0.0
    if not SLOW_RATIOS[0] < slow.frequency / fit.frequency < SLOW_RATIOS[1]:
        return 0.0
    if not MAX_READING_OVERTONE < slow.overtone < 1.0 / MIN_READING:
        return 0.0
    fast = varpro.fit(window.t, window.y, fit.frequency, Model(2, True), fit.decay)
    explained = 0.0 if fast is None else max(0.0, fast.r2)
    return slow.frequency if 1.0 - slow.r2 < MAX_SLOW_REST * (1.0 - explained) else 0.0


MAX_TREND = 4.0
"""Largest change of the slow background over a window, in units of the oscillation's range, under a pulsed laser."""


def larger_trend(fit: varpro.Fit) -> bool:
    """Return True if the slow background changes by much more in the window of the fit than the oscillation does.

    Under a pulsed laser a layer takes many pulses. Small waves of beam and heater on the first slope of its oscillation
    are much smaller than this slope.
    """
    return len(fit.wave) > 0 and fit.trend > MAX_TREND * float(np.ptp(fit.wave))
