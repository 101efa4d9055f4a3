"""Pulsed laser deposition (PLD): the pulse rate in an intensity trace, and its removal.

Each laser pulse changes the intensity suddenly and the film relaxes until the next pulse. In the trace this is a
periodic signal with many harmonics. A running mean over one pulse period has its zeros at the pulse rate and its
harmonics, so it leaves the oscillation of the layers.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from atomstream.analysis.filters import running_mean
from atomstream.results import F64, Int

MIN_PULSES = 6
"""Fewest pulses in the trace for a detection."""

MIN_LINE = 3.5
"""Each of the first five harmonics must exceed the local noise floor by this factor (noise alone: 1 in 2000 bins)."""

COMB_TO_FUNDAMENTAL = 0.8
"""Least ratio of harmonics 2-5 to the first: narrow dips have 2 and more, layer growth 0.46, a sinusoid 0."""


def find_pulse_rate(t: F64, y: F64) -> float | None:
    """Return the pulse rate in Hz of a uniformly sampled trace t, y (N,), or None if no harmonic series is found.

    This needs at least 6 pulses in the trace and five harmonics below half the sampling rate. NaN are left out.
    """
    t, y = _after_last_gap(t, y)
    n = len(t)
    if n < 64 or not t[-1] > t[0]:
        return None
    rate = (n - 1) / float(t[-1] - t[0])
    raw = np.asarray(np.abs(np.fft.rfft(np.diff(y) * np.hanning(n - 1), 2 * n)), dtype=np.float64)
    hz = np.fft.rfftfreq(2 * n, 1.0 / rate)
    # A local noise floor: differentiated camera noise rises with frequency and would hide a slow pulse rate.
    spectrum = raw / (ndimage.median_filter(raw, max(31, n // 40)) + 1e-300)
    low, high = MIN_PULSES * rate / n, rate / 12.0
    candidates = np.flatnonzero((hz > low) & (hz < high))
    if len(candidates) == 0:
        return None
    comb = np.stack([_near_max(spectrum, k * candidates) for k in range(1, 6)])
    score = np.log(comb).clip(min=0).sum(axis=0) * (comb.min(axis=0) > MIN_LINE)
    best = _fundamental(candidates, score)
    amplitudes = _near_max(raw, np.arange(1, 6) * candidates[best]) / np.arange(1, 6)  # undo the derivative
    if score[best] <= 0 or amplitudes[1:].sum() < COMB_TO_FUNDAMENTAL * amplitudes[0]:
        return None
    return _refine(hz, spectrum, int(candidates[best]))


GAP_STEPS = 6.0
"""A step of the times is a gap if it is longer than this number of usual ones. Times before it may not be corrected."""


def _after_last_gap(t: F64, y: F64) -> tuple[F64, F64]:
    """Return the samples without NaN after the last gap in their times."""
    good = np.isfinite(y) & np.isfinite(t)
    t, y = t[good], y[good]
    steps = np.diff(t)
    if len(steps) == 0:
        return t, y
    gaps = np.flatnonzero(steps > GAP_STEPS * float(np.median(steps)))
    first = int(gaps[-1]) + 1 if len(gaps) else 0
    return t[first:], y[first:]


def _fundamental(candidates: Int, score: F64) -> int:
    """Return the index of the lowest rate with a similar score: multiples of the pulse rate score as well."""
    best = int(np.argmax(score))
    for divisor in range(12, 1, -1):
        place = round(candidates[best] / divisor) - int(candidates[0])
        near = range(max(0, place - 1), min(len(candidates), place + 2))
        good = [i for i in near if score[i] > 0.6 * score[best]]
        if good:
            return max(good, key=lambda i: float(score[i]))
    return best


def _near_max(spectrum: F64, centres: Int) -> F64:
    """Return the largest of the bins around each centre: harmonics of a frequency between bins lie some bins off."""
    padded = np.pad(spectrum, 4)
    stack = [padded[np.clip(centres + 4 + s, 0, len(padded) - 1)] for s in range(-2, 3)]
    result: F64 = np.max(stack, axis=0)
    return result


def _refine(hz: F64, spectrum: F64, k: int) -> float:
    """Refine the rate on the fifth harmonic, which has the best relative resolution."""
    base = float(hz[k])
    for harmonic in (1, 3, 5):
        centre = round(base * harmonic / hz[1])
        window = slice(max(1, centre - 3), centre + 4)
        base = float(hz[window.start + int(np.argmax(spectrum[window]))]) / harmonic
    return base


MIN_FOLD_SAMPLES = 3.2
"""Fewest samples per period in which the shape of a period is judged."""

FOLD_BINS = 40
"""Largest number of bins of a folded period."""

MIN_PULSE_SKEW = 1.0
"""Smallest skewness of the changes in a folded period of pulses. A sinusoid and the cusps of layer growth have 0,
a strong second harmonic up to 0.75, a sawtooth of 5 samples 1.5; it grows with the number of samples."""

MIN_NARROWNESS = 3.2
"""Smallest ratio of the largest and the second largest deviation from the median in a folded period of narrow pulses.
A sinusoid with a second harmonic of half its amplitude has 2.6 in six bins, cusps have 1.6."""

MIN_SUDDENNESS = 0.45
"""Smallest share of a period's whole range that changes within two of at least eight bins."""


MIN_REPEATS = 0.55
"""Smallest share of the periods whose largest change is at the same phase; by chance it is 0.2."""

MIN_JUMP_SHARE = 0.5
"""Smallest median of the jumps in the single periods, as a share of the jump in the folded one. The ends of a short
trace make a jump in its fold that no period has."""

MIN_PULSE_PERIODS = 1.9
"""Fewest periods of the trace in which pulses are recognised by their shape."""


MAX_PHASE_DRIFT = 0.3
"""Largest error of a fitted rate, in cycles over the window: other rates near it are tried within this range."""

PHASE_STEP = 0.03
"""Step of the tried rates, in cycles over the window: a fold at a rate that is off by more smears the pulses."""

SIMILAR_POWER = 0.97
"""Folded waves with this share of the largest power are equally good: of their rates, the one nearest to the fit's is
taken."""

NEWEST_PERIODS = (6.0, 3.0)
"""Numbers of newest periods that are also judged alone: in a long window the pulses may have changed."""


def pulse_train_rate(t: F64, y: F64, hz: float) -> float | None:
    """Return the rate in Hz, near ``hz``, of the pulses in a trace t (s), y (N,) at the frame rate; None without.

    The trace is folded with its period. A pulse changes it suddenly in one direction, and it relaxes slowly in the
    other: the changes from bin to bin are skewed, and in each period the largest change is at the same phase. The
    oscillation of a growing layer is about symmetric in time. Weak pulses on a larger slow change give a fit a rate
    that is a little wrong, which smears a fold of many periods: of the rates near ``hz``, one with the largest folded
    wave is taken (the epoch folding search, D. A. Leahy et al., Astrophys. J. 266, 160 (1983)).
    """
    t, y = _after_last_gap(t, y)
    if len(t) < 6 or not t[-1] > t[0] or not hz > 0.0:
        return None
    periods = float(t[-1] - t[0]) * hz
    shorter = [n for n in NEWEST_PERIODS if periods > 1.5 * n]
    for part in (t >= t[0], *(t >= t[-1] - n / hz for n in shorter)):
        found = _rate_of_pulses(t[part], y[part], hz, MAX_PHASE_DRIFT * hz / periods)
        if found is not None:
            return found
    return None


def _rate_of_pulses(t: F64, y: F64, hz: float, reach_hz: float) -> float | None:
    """Return the pulse rate in Hz within ``reach_hz`` of ``hz``, None if the trace has no pulses there."""
    span = float(t[-1] - t[0])
    per_period = (len(t) - 1) / span / hz
    bins = int(min(FOLD_BINS, per_period))
    if per_period < MIN_FOLD_SAMPLES or len(t) < MIN_PULSE_PERIODS * per_period:
        return None
    flat = y - np.interp(t, *running_mean(t, y, 1.0 / hz))
    largest = float(np.abs(flat).max())
    if not 0.0 < largest < math.inf:
        return None
    flat, y = flat / largest, y / largest
    steps = max(1, math.ceil(reach_hz * span / PHASE_STEP))
    rates = hz + reach_hz * np.arange(-steps, steps + 1) / steps
    folds = [(float(rate), _folded(t, flat, float(rate), bins)) for rate in rates]
    full = [(float((wave * wave).sum()), rate, wave) for rate, wave in folds if wave is not None]
    if not full:
        return None
    least = SIMILAR_POWER * max(power for power, _, _ in full)
    _, rate, wave = min((fold for fold in full if fold[0] >= least), key=lambda fold: abs(fold[1] - hz))
    return rate if _has_pulse_shape(t, y, rate, wave) else None


def _has_pulse_shape(t: F64, y: F64, hz: float, wave: F64) -> bool:
    """Return True if the mean period ``wave`` (bins,) changes suddenly, once in each period of the trace."""
    changes = np.diff(np.append(wave, wave[0]))
    largest = float(np.abs(changes).max())
    if not largest > 0.0:
        return False
    changes, single = changes / largest, wave / largest
    skew = float((changes**3).mean()) / float((changes**2).mean()) ** 1.5
    if abs(skew) < MIN_PULSE_SKEW:
        # A pulse that relaxes within one sample is symmetric in time, but narrow.
        skew = _narrow_peak(single)
        if not skew:
            return False
    two = np.abs(changes + np.roll(changes, 1)).max()
    if len(wave) >= 8 and two < MIN_SUDDENNESS * np.ptp(single):
        return False
    phase_step = hz * float(t[-1] - t[0]) / (len(t) - 1)
    rising = math.copysign(1.0, skew)
    return _jumps_repeat(t, y * rising, hz, phase_step) and _periods_jump(t, y * rising, hz, wave * rising)


def _narrow_peak(wave: F64) -> float:
    """Return 1.0 or -1.0 if only one bin of a mean period lies much higher or lower than all others, else 0.0."""
    off = wave - np.median(wave)
    second, largest = np.sort(np.abs(off))[-2:]
    at = int(np.argmax(np.abs(off)))
    return math.copysign(1.0, off[at]) if largest > MIN_NARROWNESS * second else 0.0


def _periods_jump(t: F64, y: F64, hz: float, wave: F64) -> bool:
    """Return True if half of the periods of the trace rise like the folded period ``wave`` where it rises most.

    A rise is taken over two bins, because it can lie within the exposure of one frame.
    """
    rises = np.roll(wave, -1) - np.roll(wave, 1)
    at = int(np.argmax(rises))
    before = t[0] + (np.arange(math.ceil((t[-1] - t[0]) * hz) + 1) + (at - 1.0) / len(wave)) / hz
    after = before + 2.0 / (len(wave) * hz)
    inside = (before >= t[0]) & (after <= t[-1])
    seen = np.interp(after[inside], t, y) - np.interp(before[inside], t, y)
    return len(seen) > 0 and float(np.median(seen)) > MIN_JUMP_SHARE * float(rises[at])


def _jumps_repeat(t: F64, y: F64, hz: float, phase_step: float) -> bool:
    """Return True if the largest rise of most periods is at the same phase (``phase_step``: one sample in cycles)."""
    turn = (t - t[0]) * hz
    rise, middle = np.diff(y), 0.5 * (turn[1:] + turn[:-1])
    phases = []
    for k in range(max(2, round(float(turn[-1])))):
        inside = np.flatnonzero((middle >= k) & (middle < k + 1))
        if len(inside):
            phases.append(float(middle[inside[np.argmax(rise[inside])]]) % 1.0)
    if len(phases) < 2:
        return False
    mean = np.angle(np.exp(2j * np.pi * np.array(phases)).mean()) / (2.0 * np.pi)
    off = np.abs((np.array(phases) - mean + 0.5) % 1.0 - 0.5)
    return bool((off < max(0.1, 1.5 * phase_step)).mean() >= MIN_REPEATS)


def _folded(t: F64, flat: F64, hz: float, bins: int) -> F64 | None:
    """Return the mean period of a trace without slow background in ``bins`` bins; None if a bin is empty."""
    # The first sample is in the middle of its bin: with a whole number of samples per period, all of them are.
    place = np.floor((t - t[0]) * hz % 1.0 * bins + 0.5).astype(np.intp) % bins
    count = np.bincount(place, minlength=bins)
    return np.asarray(np.bincount(place, flat, bins) / count) if count.all() else None


def notch(t: F64, y: F64, pulse_hz: float) -> tuple[F64, F64]:
    """Apply a running mean of one pulse period to a trace t (s), y (N,); both ends lose half a period."""
    if float(t[-1] - t[0]) * pulse_hz < 2.0:
        return t, y
    return running_mean(t, y, 1.0 / pulse_hz)
