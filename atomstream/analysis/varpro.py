"""Least-squares fit of a damped oscillation on a slow background, by variable projection.

y = c0 + c1 t (+ c2 t²) + e^(-gt) (a1 cos wt + b1 sin wt) + e^(-gt) (a2 cos 2wt + b2 sin 2wt), the second harmonic
with a ridge penalty: without it, fits of real data lock onto twice the period. Only w and g are searched; the other
parameters are linear and eliminated (G. H. Golub & V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)). A model with a
drift also searches the change of the rate over the window: w is then the rate at the window's end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import leastsq

from atomstream.analysis.filters import lowpass_taps
from atomstream.analysis.linear_part import LinearPart, Model
from atomstream.results import F64

MAX_DRIFT = 0.6
"""Largest relative change of the rate over a window; if it changes more, a shorter window is needed."""

MAX_STEPS = 20
"""Largest number of steps of a search; most need four."""


HIDDEN_CYCLES = 3.6
HIDDEN_CYCLES_DRIFTING = 4.2
"""Number of oscillations below which a fit follows most of the slow noise near its own frequency: with a steady and a
changing rate. From fits of sinusoids in noise with a correlation time of 0.15 to 1.5 periods."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Result of one fit: ``frequency`` in Hz and ``phase`` in cycles at ``t_end`` (s), ``decay`` in 1/s.

    ``drift`` is the relative change of the frequency over the window, from its start to its end.
    ``r2`` is the share of the variance about the background that the oscillation explains; ``sigma_hz`` is
    statistical and includes the autocorrelation of the residuals. ``overtone`` is the second harmonic's amplitude in
    units of the first's, ``trend`` the range of the background over the window. ``residual`` and ``wave`` (the
    oscillation), each (N,), are those of the fitted samples. ``coefficients`` are those of the columns of
    :func:`design`.
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
    model: Model = field(default_factory=Model)
    drift: float = 0.0
    sigma_drift: float = 0.0
    span_s: float = 0.0
    overtone: float = 0.0
    trend: float = 0.0
    coefficients: F64 = field(default_factory=lambda: np.empty(0))
    residual: F64 = field(default_factory=lambda: np.empty(0))
    wave: F64 = field(default_factory=lambda: np.empty(0))

    def wave_at(self, t: F64) -> F64:
        """Return the oscillation without its background at the times ``t`` (N,), extrapolated beyond the window.

        The amplitude does not grow beyond the window: before it it is that at its start, and after it one that grew
        within it stays.
        """
        start_s, since_end = self.t_end - self.span_s, t - self.t_end
        columns = _waves(t, since_end, start_s, self.frequency, self.decay, self.model.harmonic, self.slope)
        beyond = np.minimum(t - start_s, 0.0) if self.decay > 0.0 else np.maximum(since_end, 0.0)
        columns *= np.exp(np.clip(self.decay * beyond, -20.0, 20.0))[:, None]
        result: F64 = columns @ self.coefficients[self.model.order + 1 :]
        return result

    @property
    def slope(self) -> float:
        """Change of the frequency in Hz per second."""
        return self.drift * self.frequency / self.span_s if self.span_s > 0 else 0.0

    def cycles_between(self, start_s: float, end_s: float) -> float:
        """Return the oscillations from ``start_s`` to ``end_s`` (s) according to the fit."""
        a, b = start_s - self.t_end, end_s - self.t_end
        return self.frequency * (b - a) + 0.5 * self.slope * (b * b - a * a)


def design(t: F64, frequency: float, decay: float, model: Model, drift: float = 0.0) -> F64:
    """Return the columns of the linear part, (N, order + 3 or 5); the polynomial's t is scaled to [-1, 1].

    ``frequency`` (Hz) is that at the last sample, ``drift`` its relative change over the window.
    """
    span = t - 0.5 * (t[0] + t[-1])
    x = span / max(abs(span[0]), 1e-12)
    slope = drift * frequency / max(float(t[-1] - t[0]), 1e-12)
    columns = np.stack([x**k for k in range(model.order + 1)], axis=1)
    waves = _waves(t, t - t[-1], float(t[0]), frequency, decay, model.harmonic, slope)
    return np.concatenate([columns, waves], axis=1)


def _waves(
    t: F64, since_end: F64, start_s: float, frequency: float, decay: float, harmonic: bool, slope: float
) -> F64:
    """Return the columns of the damped oscillation, (N, 2 or 4)."""
    envelope = np.exp(np.clip(-decay * (t - start_s), -20.0, 20.0))
    turn = 2.0 * math.pi * (frequency + 0.5 * slope * since_end) * since_end
    columns = [envelope * np.cos(turn), envelope * np.sin(turn)]
    if harmonic:
        columns += [envelope * np.cos(2 * turn), envelope * np.sin(2 * turn)]
    return np.stack(columns, axis=1)


def fit(
    t: F64,
    y: F64,
    seed_hz: float,
    model: Model,
    decay: float = 0.0,
    nuisance: F64 | None = None,
    drift: float = 0.0,
) -> Fit | None:
    """Fit one model from a seed frequency; None if the fit diverges or the trace is too short for it.

    ``drift`` is the first guess of the rate's relative change, for a model with a drift.
    """
    if len(t) < model.order + 10 or not t[-1] > t[0]:
        return None

    linear = LinearPart(t, y, model, nuisance)

    def limited(p: F64) -> tuple[float, float, float]:
        frequency = seed_hz * math.exp(min(max(p[0], -1.0), 1.0))
        return frequency, float(p[1]) * seed_hz, min(max(float(p[2]), -1.0), 1.0) if model.drifts else 0.0

    def residuals(p: F64) -> F64:
        return linear.solve(*limited(p))[1]

    def slopes(p: F64) -> F64:
        result: F64 = linear.slopes(*limited(p)) * scales
        return result

    scales = np.array([1.0, seed_hz, 1.0])[: 3 if model.drifts else 2, None]
    start = np.array([0.0, decay / seed_hz, drift] if model.drifts else [0.0, decay / seed_hz])
    parameters, covariance, info, _, status = leastsq(
        residuals,
        start,
        Dfun=slopes,
        col_deriv=True,
        full_output=True,
        maxfev=MAX_STEPS,
        ftol=1e-6,
        xtol=1e-4,
    )
    if status not in (1, 2, 3, 4, 5) or abs(parameters[0]) > 0.35 or abs(parameters[1]) > 3.0:
        return None
    if not np.isfinite(info["fvec"]).all() or (model.drifts and abs(parameters[2]) > MAX_DRIFT):
        return None
    spread = np.asarray(covariance, dtype=np.float64) if np.ndim(covariance) == 2 else None
    if spread is None:
        # Near a harmonic of the rotation the search converges slowly; its last point is good enough.
        jacobian = slopes(parameters)
        spread = np.asarray(np.linalg.pinv(jacobian @ jacobian.T))
    return _describe(t, y, seed_hz, parameters, spread, model, nuisance, linear)


def _describe(
    t: F64,
    y: F64,
    seed_hz: float,
    p: F64,
    covariance: F64,
    model: Model,
    nuisance: F64 | None,
    linear: LinearPart,
) -> Fit:
    frequency, decay = seed_hz * math.exp(p[0]), p[1] * seed_hz
    drift = float(p[2]) if model.drifts else 0.0
    coefficients, residual = linear.solve(frequency, decay, drift)
    columns, first = linear.rows(frequency, decay, drift), model.order + 1
    noise, span = residual[: len(t)], float(t[-1] - t[0])
    degrees = max(1, len(t) - model.order - 7)
    variance = float(noise @ noise) / degrees * _noise_factor(noise, frequency * span, model)
    a, b = coefficients[model.order + 1], coefficients[model.order + 2]
    baseline = detrended(t, y, model.order, nuisance)
    return Fit(
        frequency=frequency,
        sigma_hz=frequency * math.sqrt(max(0.0, covariance[0, 0] * variance)),
        decay=decay,
        sigma_decay=seed_hz * math.sqrt(max(0.0, covariance[1, 1] * variance)),
        amplitude=math.hypot(a, b) * math.exp(min(20.0, max(-20.0, -decay * span))),
        phase=(math.atan2(-b, a) / (2 * math.pi)) % 1.0,
        cycles=frequency * (1.0 - 0.5 * drift) * span,
        r2=1.0 - float(noise @ noise) / max(float(baseline @ baseline), 1e-300),
        rms=math.sqrt(float(noise @ noise) / degrees),
        t_end=float(t[-1]),
        model=model,
        drift=drift,
        sigma_drift=math.sqrt(max(0.0, covariance[2, 2] * variance)) if model.drifts else 0.0,
        span_s=span,
        overtone=math.hypot(*coefficients[model.order + 3 :]) / max(math.hypot(a, b), 1e-300),
        residual=noise,
        trend=float(np.ptp(coefficients[:first] @ columns[:first])),
        wave=coefficients[first:] @ columns[first:],
        coefficients=coefficients,
    )


def _noise_factor(residual: F64, cycles: float, model: Model) -> float:
    """Return by how much correlated noise increases the variances of a fit of some ``cycles``, relative to white noise.

    Noise of the oscillation's own frequency shifts the rate. In few oscillations the fit follows it, so the residual
    holds less of it than it was.
    """
    enough = HIDDEN_CYCLES_DRIFTING if model.drifts else HIDDEN_CYCLES
    hidden = max(1.0, enough / max(cycles, 1.0)) ** 4
    return 1.0 + (correlation_time(residual) - 1.0) * hidden


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
    """Samples (t, y), each (N,), and the orthonormal ``nuisance`` columns (N, M) of the rotation, or None.

    ``pulse_hz`` is the rate of a laser whose pulses were removed by a running mean, 0 without one.
    """

    t: F64
    y: F64
    nuisance: F64 | None = None
    rotation_hz: float = 0.0
    pulse_hz: float = 0.0

    @property
    def span_s(self) -> float:
        """Length of the window in s."""
        return float(self.t[-1] - self.t[0]) if len(self.t) else 0.0

    def without_first(self, seconds: float) -> Window:
        """Return the window without its first ``seconds``."""
        keep = self.t >= self.t[0] + seconds
        t = self.t[keep]
        nuisance = rotation_harmonics(t, self.rotation_hz)
        return Window(t, self.y[keep], nuisance, self.rotation_hz, self.pulse_hz)

    @property
    def pulses(self) -> float:
        """Number of laser pulses in the window, infinite without a laser: no more of its samples are independent."""
        return self.span_s * self.pulse_hz if self.pulse_hz > 0.0 else math.inf


def cut_window(
    t: F64,
    y: F64,
    length_s: float,
    rotation_hz: float = 0.0,
    points: int = MAX_POINTS,
    pulse_hz: float = 0.0,
) -> Window:
    """Return the last ``length_s`` (s) of a trace without NaN, downsampled to about ``points`` samples.

    Under rotation, :func:`rotation_points` gives the number that a fit needs. ``pulse_hz`` is that of :class:`Window`.
    """
    part = t >= t[-1] - length_s
    t, y = t[part], y[part]
    if rotation_hz <= 0:
        return Window(*downsampled(t, y, points), pulse_hz=pulse_hz)
    t, y = _decimated(t, y, points)
    return Window(t, y, rotation_harmonics(t, rotation_hz), rotation_hz)


def rotation_points(hz: float, length_s: float) -> int:
    """Return the number of samples to fit an oscillation of about ``hz`` over ``length_s`` under rotation."""
    return round(min(ROTATION_POINTS, max(MAX_POINTS, SAMPLES_PER_PERIOD * hz * length_s)))


def downsampled(t: F64, y: F64, points: int = MAX_POINTS) -> tuple[F64, F64]:
    """Average within equal time bins to at most ``points`` samples; empty bins are omitted."""
    if len(t) <= points or not t[-1] > t[0]:
        return t, y
    bins = np.minimum((points * (t - t[0]) / (t[-1] - t[0])).astype(np.intp), points - 1)
    count = np.bincount(bins, minlength=points)
    full = count > 0
    mean_t = np.bincount(bins, t, points)[full] / count[full]
    return mean_t, np.bincount(bins, y, points)[full] / count[full]


def _decimated(t: F64, y: F64, points: int) -> tuple[F64, F64]:
    """Decimate with an FIR filter: averages would alias the strong rotation harmonics into the growth band."""
    if len(t) < 2:
        return t, y
    # Stamps of a burst are equal or nearly so, and their interval is not a sample interval.
    step = max(float(np.median(np.diff(t))), float(t[-1] - t[0]) / (4 * len(t)))
    if not step > 0.0:
        return t, y
    grid = np.arange(t[0], t[-1], step)
    even = np.interp(grid, t, y)
    factor = math.ceil(len(grid) / points)
    if factor <= 1:
        return grid, even
    taps = lowpass_taps(8 * factor + 1, 0.8 / factor)
    half = len(taps) // 2
    smooth = np.convolve(even, taps, mode="valid")
    return grid[half : len(grid) - half : factor][: len(smooth[::factor])], smooth[::factor]


def rotation_harmonics(t: F64, rotation_hz: float) -> F64 | None:
    """Return orthonormal columns that span the rotation harmonics 1..32 below the Nyquist frequency; None at rest."""
    if rotation_hz <= 0 or len(t) < 16 or not t[-1] > t[0]:
        return None
    nyquist = 0.5 * (len(t) - 1) / float(t[-1] - t[0])
    count = min(HARMONICS, int(0.9 * nyquist / rotation_hz), len(t) // 6)
    if count < 1:
        return None
    angle = 2.0 * math.pi * rotation_hz * np.outer(t - t[0], np.arange(1, count + 1))
    q, r = np.linalg.qr(np.concatenate([np.cos(angle), np.sin(angle)], axis=1))
    kept: F64 = q[:, np.abs(np.diag(r)) > 1e-3 * math.sqrt(len(t))]
    return kept
