"""Least-squares fit of a damped oscillation on a slow background, by variable projection.

y = c0 + c1 t (+ c2 t²) + e^(-gt) (a1 cos wt + b1 sin wt) + e^(-gt) (a2 cos 2wt + b2 sin 2wt), the second harmonic
with a ridge penalty: without it, fits of real data lock onto twice the period. Only w and g are searched; the other
parameters are linear and eliminated (G. H. Golub & V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import signal
from scipy.optimize import leastsq

from atomstream.results import F64

RIDGE = 0.5
"""Penalty on the second harmonic: a fit at half the frequency would lose RIDGE²/(1 + RIDGE²) = 20 % of its signal."""

PROJECTED_RIDGE = 0.002
"""Penalty on the fundamental where rotation harmonics are projected out."""


@dataclass(frozen=True, slots=True)
class Model:
    """Model of a trace: polynomial ``order`` of the background (1 or 2), and with or without second ``harmonic``."""

    order: int = 1
    harmonic: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Result of one fit. Frequencies in Hz, ``decay`` in 1/s, times in s; ``phase`` in cycles at ``t_end``.

    ``r2`` is the share of the variance about the background that the oscillation explains; ``sigma_hz`` is
    statistical and includes the autocorrelation of the residuals. ``overtone`` is the second harmonic's amplitude in
    units of the first's. ``residual`` and ``wave`` (the oscillation), each (N,),
    are those of the fitted samples.
    """

    frequency: float
    sigma_hz: float
    decay: float
    sigma_decay: float
    amplitude: float
    phase: float
    cycles: float
    r2: float
    rms: float
    t_end: float
    order: int = 1
    harmonic: bool = True
    overtone: float = 0.0
    residual: F64 = field(default_factory=lambda: np.empty(0))
    wave: F64 = field(default_factory=lambda: np.empty(0))


def design(t: F64, frequency: float, decay: float, model: Model) -> F64:
    """Return the columns of the linear part, (N, order + 3 or 5); the polynomial's t is scaled to [-1, 1]."""
    span = t - 0.5 * (t[0] + t[-1])
    x = span / max(abs(span[0]), 1e-12)
    envelope = np.exp(np.clip(-decay * (t - t[0]), -20.0, 20.0))
    turn = 2.0 * math.pi * frequency * (t - t[-1])
    columns = [x**k for k in range(model.order + 1)]
    columns += [envelope * np.cos(turn), envelope * np.sin(turn)]
    if model.harmonic:
        columns += [envelope * np.cos(2 * turn), envelope * np.sin(2 * turn)]
    return np.stack(columns, axis=1)


def solve(
    t: F64, y: F64, frequency: float, decay: float, model: Model, nuisance: F64 | None = None
) -> tuple[F64, F64]:
    """Return linear coefficients and residuals (with the ridge rows) for a given frequency (Hz) and decay (1/s).

    ``nuisance`` (N, M) has orthonormal columns that are projected out: the rotation harmonics.
    """
    basis = design(t, frequency, decay, model)
    rows = _ridge(basis, model, nuisance is not None)
    if nuisance is not None:
        basis = basis - nuisance @ (nuisance.T @ basis)
        y = np.asarray(y - nuisance @ (nuisance.T @ y), dtype=np.float64)
    if len(rows):
        basis, y = np.concatenate([basis, rows]), np.concatenate([y, np.zeros(len(rows))])
    gram = basis.T @ basis
    gram.flat[:: len(gram) + 1] *= 1.0 + 1e-10
    coefficients: F64 = np.linalg.solve(gram, basis.T @ y)
    return coefficients, y - basis @ coefficients


def _ridge(basis: F64, model: Model, projected: bool) -> F64:
    """Return the rows of the ridge penalty: on the second harmonic, and on the first if rotation is projected out.

    If growth lies on a harmonic of the rotation, the projected columns nearly vanish, and very large amplitudes
    that cancel would fit any trace.
    """
    norms = np.sqrt((basis**2).sum(axis=0))
    weights = np.zeros(basis.shape[1])
    if projected:
        weights[model.order + 1 : model.order + 3] = PROJECTED_RIDGE
    if model.harmonic:
        weights[-2:] = RIDGE
    rows: F64 = np.diag(weights * norms)[weights > 0]
    return rows


def fit(
    t: F64, y: F64, seed_hz: float, model: Model, decay: float = 0.0, nuisance: F64 | None = None
) -> Fit | None:
    """Fit one model from a seed frequency; None if the fit diverges or the trace is too short for it."""
    if len(t) < model.order + 10:
        return None

    def residuals(p: F64) -> F64:
        return solve(t, y, seed_hz * math.exp(min(max(p[0], -1.0), 1.0)), p[1] * seed_hz, model, nuisance)[1]

    start = np.array([0.0, decay / seed_hz])
    parameters, covariance, info, _, status = leastsq(
        residuals, start, full_output=True, maxfev=60, ftol=1e-6, xtol=1e-4, epsfcn=1e-9
    )
    if status not in (1, 2, 3, 4, 5) or abs(parameters[0]) > 0.35 or abs(parameters[1]) > 3.0:
        return None
    spread = np.asarray(covariance, dtype=np.float64) if np.ndim(covariance) == 2 else None
    if spread is None:
        # Near a harmonic of the rotation the search converges slowly; its last point is good enough.
        spread = np.asarray(_covariance(residuals, parameters), dtype=np.float64)
    return _describe(t, y, seed_hz, parameters, spread, info["fvec"], model, nuisance)


def _covariance(residuals: Callable[[F64], F64], p: F64) -> F64:
    """Return the inverse of the normal matrix at ``p``, from central differences."""
    steps = np.diag([1e-4, 1e-3])
    slopes = np.stack([(residuals(p + s) - residuals(p - s)) / (2.0 * s.sum()) for s in steps])
    return np.asarray(np.linalg.pinv(slopes @ slopes.T))


def _describe(
    t: F64, y: F64, seed_hz: float, p: F64, covariance: F64, residual: F64, model: Model, nuisance: F64 | None
) -> Fit:
    frequency, decay = seed_hz * math.exp(p[0]), p[1] * seed_hz
    coefficients, _ = solve(t, y, frequency, decay, model, nuisance)
    noise = residual[: len(t)]
    degrees = max(1, len(t) - model.order - 7)
    variance = float(noise @ noise) / degrees * correlation_time(noise)
    a, b = coefficients[model.order + 1], coefficients[model.order + 2]
    baseline = detrended(t, y, model.order, nuisance)
    span = float(t[-1] - t[0])
    return Fit(
        frequency=frequency,
        sigma_hz=frequency * math.sqrt(max(0.0, covariance[0, 0] * variance)),
        decay=decay,
        sigma_decay=seed_hz * math.sqrt(max(0.0, covariance[1, 1] * variance)),
        amplitude=math.hypot(a, b) * math.exp(min(20.0, max(-20.0, -decay * span))),
        phase=(math.atan2(-b, a) / (2 * math.pi)) % 1.0,
        cycles=frequency * span,
        r2=1.0 - float(noise @ noise) / max(float(baseline @ baseline), 1e-300),
        rms=math.sqrt(float(noise @ noise) / degrees),
        t_end=float(t[-1]),
        order=model.order,
        harmonic=model.harmonic,
        overtone=math.hypot(*coefficients[model.order + 3 :]) / max(math.hypot(a, b), 1e-300),
        residual=noise,
        wave=design(t, frequency, decay, model)[:, model.order + 1 :] @ coefficients[model.order + 1 :],
    )


def detrended(t: F64, y: F64, order: int, nuisance: F64 | None = None) -> F64:
    """Return the trace without its least-squares polynomial and ``nuisance`` columns."""
    x = (t - t.mean()) / max(float(t[-1] - t[0]), 1e-12)
    columns = np.stack([x**k for k in range(order + 1)], axis=1)
    if nuisance is not None:
        columns = np.concatenate([columns, nuisance], axis=1)
    result: F64 = y - columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    return result


def correlation_time(residual: F64) -> float:
    """Return the integrated autocorrelation time in samples (>= 1): samples per independent sample."""
    n = len(residual)
    centred = residual - residual.mean()
    power = float(centred @ centred)
    if power <= 0.0:
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * n)
    acf = np.fft.irfft(spectrum * np.conj(spectrum))[: n // 3] / power
    below = np.flatnonzero(acf < 0.05)
    end = int(below[0]) if len(below) else len(acf)
    return float(max(1.0, 1.0 + 2.0 * acf[1:end].sum()))


# The window of a trace that is fitted: downsampled, with the rotation harmonics to project out.

MAX_POINTS = 240
"""Samples of a fit: 30 per period in the longest window; more cost time without a gain."""

ROTATION_POINTS = 800
"""Largest number of samples of a fit under rotation."""

SAMPLES_PER_PERIOD = 12.0
"""Samples per period under rotation: the second harmonic passes the filter, faster signals do not."""

HARMONICS = 32
"""Number of rotation harmonics that are projected out, at most."""


@dataclass(frozen=True, slots=True)
class Window:
    """Samples (t, y), each (N,), and the orthonormal ``nuisance`` columns (N, M) of the rotation, or None."""

    t: F64
    y: F64
    nuisance: F64 | None = None
    rotation_hz: float = 0.0

    @property
    def span_s(self) -> float:
        """Length of the window in s."""
        return float(self.t[-1] - self.t[0])

    def without_first(self, seconds: float) -> Window:
        """Return the window without its first ``seconds``."""
        keep = self.t >= self.t[0] + seconds
        t = self.t[keep]
        return Window(t, self.y[keep], rotation_harmonics(t, self.rotation_hz), self.rotation_hz)


def cut_window(t: F64, y: F64, length_s: float, rotation_hz: float = 0.0, points: int = MAX_POINTS) -> Window:
    """Return the last ``length_s`` (s) of a trace without NaN, downsampled to about ``points`` samples.

    Under rotation, :func:`rotation_points` gives the number that a fit needs.
    """
    part = t >= t[-1] - length_s
    t, y = t[part], y[part]
    if rotation_hz <= 0:
        return Window(*downsampled(t, y, points))
    t, y = _decimated(t, y, points)
    return Window(t, y, rotation_harmonics(t, rotation_hz), rotation_hz)


def rotation_points(hz: float, length_s: float) -> int:
    """Return the number of samples to fit an oscillation of about ``hz`` over ``length_s`` under rotation."""
    return round(min(ROTATION_POINTS, max(MAX_POINTS, SAMPLES_PER_PERIOD * hz * length_s)))


def downsampled(t: F64, y: F64, points: int = MAX_POINTS) -> tuple[F64, F64]:
    """Average within equal time bins to at most ``points`` samples; empty bins are omitted."""
    if len(t) <= points:
        return t, y
    bins = np.minimum((points * (t - t[0]) / (t[-1] - t[0])).astype(np.intp), points - 1)
    count = np.bincount(bins, minlength=points)
    full = count > 0
    mean_t = np.bincount(bins, t, points)[full] / count[full]
    return mean_t, np.bincount(bins, y, points)[full] / count[full]


def _decimated(t: F64, y: F64, points: int) -> tuple[F64, F64]:
    """Decimate with an FIR filter: averages would alias the strong rotation harmonics into the growth band."""
    step = float(np.median(np.diff(t)))
    grid = np.arange(t[0], t[-1], step)
    even = np.interp(grid, t, y)
    factor = math.ceil(len(grid) / points)
    if factor <= 1:
        return grid, even
    taps = signal.firwin(8 * factor + 1, 0.8 / factor, window="hann")
    half = len(taps) // 2
    smooth = np.convolve(even, taps, mode="valid")
    return grid[half : len(grid) - half : factor][: len(smooth[::factor])], smooth[::factor]


def rotation_harmonics(t: F64, rotation_hz: float) -> F64 | None:
    """Return orthonormal columns that span the rotation harmonics 1..32 below the Nyquist frequency; None at rest."""
    if rotation_hz <= 0 or len(t) < 16:
        return None
    nyquist = 0.5 * (len(t) - 1) / float(t[-1] - t[0])
    count = min(HARMONICS, int(0.9 * nyquist / rotation_hz), len(t) // 6)
    if count < 1:
        return None
    angle = 2.0 * math.pi * rotation_hz * np.outer(t - t[0], np.arange(1, count + 1))
    q, r = np.linalg.qr(np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    kept: F64 = q[:, np.abs(np.diag(r)) > 1e-3 * math.sqrt(len(t))]
    return kept
