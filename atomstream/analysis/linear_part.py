"""The linear part of a fit by variable projection: coefficients, residuals and their derivatives.

For given frequency, decay and drift, the model of :mod:`~atomstream.analysis.varpro` is linear in its other
parameters. They are eliminated by the normal equations; the derivatives of the residuals that remain are exact
(G. H. Golub & V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973)), so a search needs no finite differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack

from atomstream.results import F64

RIDGE = 0.5
"""Penalty on the second harmonic: a fit at half the frequency would lose RIDGE²/(1 + RIDGE²) = 20 % of its signal."""

PROJECTED_RIDGE = 0.002
"""Ridge penalty on the amplitude of the fundamental, used if the rotation harmonics are projected out of the trace: the
fundamental may then be nearly zero, and its amplitude undetermined."""

MAX_EXPONENT = 20.0
"""Largest exponent of the envelope, so that it does not overflow."""

_TURNED, _PARTNER = np.array([-1.0, 1.0, -2.0, 2.0]), np.array([1, 0, 3, 2])
"""The derivative of each wave (cosine, sine, and those of the second harmonic) by the phase: this factor times its
partner."""

_DECAY = 1
"""Place of the decay among the parameters: ln(frequency), decay, drift."""


@dataclass(frozen=True, slots=True)
class Model:
    """Model of a trace.

    ``order`` is that of the background's polynomial (1 or 2), ``harmonic`` adds the second harmonic, ``drifts`` lets
    the rate change linearly in time, and ``strong`` leaves out the penalty on the second harmonic.
    """

    order: int = 1
    harmonic: bool = True
    drifts: bool = False
    strong: bool = False


class LinearPart:
    """The linear part of one fit, with the arrays that do not depend on frequency, decay and drift.

    ``nuisance`` (N, M) has orthonormal columns that are projected out: the rotation harmonics. The second harmonic has
    a ridge penalty, and with ``nuisance`` the first as well: if growth lies on a harmonic of the rotation, the
    projected columns nearly vanish, and very large amplitudes that cancel would fit any trace. Columns of
    :func:`~atomstream.analysis.varpro.design` are rows here, which is faster.
    """

    def __init__(self, t: F64, y: F64, model: Model, nuisance: F64 | None = None) -> None:
        self._model, self._nuisance = model, nuisance
        self._since_start, self._since_end = t - t[0], t - t[-1]
        self._span = max(float(t[-1] - t[0]), 1e-12)
        x = (t - 0.5 * (t[0] + t[-1])) / (0.5 * self._span)
        count = model.order + (5 if model.harmonic else 3)
        self._rows: F64 = np.empty((count, len(t)))
        for k in range(model.order + 1):
            self._rows[k] = x**k
        self._y = y if nuisance is None else y - nuisance @ (nuisance.T @ y)
        self._weights = np.zeros(count)
        if nuisance is not None:
            self._weights[model.order + 1 : model.order + 3] = PROJECTED_RIDGE
        if model.harmonic and not model.strong:
            self._weights[-2:] = RIDGE
        self._penalised = np.flatnonzero(self._weights)
        self._solved = (math.nan, math.nan, math.nan)
        self._turn: F64 = np.empty(0)
        self._decays: F64 = self._since_start
        self._projected: F64 = self._rows
        self._norms: F64 = np.empty(0)
        self._coefficients: F64 = np.empty(0)
        self._rest: F64 = np.empty(0)
        self._residuals: F64 = np.empty(0)
        self._factors: tuple[F64, npt.NDArray[np.int32]] = np.empty((0, 0)), np.empty(0, np.int32)

    def rows(self, frequency: float, decay: float, drift: float) -> F64:
        """Return the columns of the model, transposed; the array is overwritten by the next call."""
        first, rows = self._model.order + 1, self._rows
        exponent: F64 = -decay * self._since_start
        self._decays = self._since_start
        if abs(decay) * self._span > MAX_EXPONENT:
            self._decays = np.where(np.abs(exponent) < MAX_EXPONENT, self._since_start, 0.0)
            exponent = np.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)
        envelope = np.exp(exponent)
        slope = drift * frequency / self._span
        self._turn = turn = (2.0 * math.pi) * (frequency + 0.5 * slope * self._since_end) * self._since_end
        cosine, sine = np.cos(turn), np.sin(turn)
        np.multiply(envelope, cosine, out=rows[first])
        np.multiply(envelope, sine, out=rows[first + 1])
        if self._model.harmonic:
            cosine *= 2.0
            np.multiply(rows[first], cosine, out=rows[first + 2])
            rows[first + 2] -= envelope  # cos 2x = 2 cos² x - 1
            np.multiply(rows[first + 1], cosine, out=rows[first + 3])
        return rows

    def solve(self, frequency: float, decay: float, drift: float) -> tuple[F64, F64]:
        """Return linear coefficients and residuals, with the ridge rows, for a frequency (Hz), decay (1/s), drift."""
        if self._solved == (frequency, decay, drift):  # a search begins with two calls at the same parameters
            return self._coefficients, self._residuals
        rows: F64 = self.rows(frequency, decay, drift)
        gram: F64 = rows @ rows.T
        norms = np.sqrt(gram.diagonal())
        if self._nuisance is not None:
            rows = rows - (rows @ self._nuisance) @ self._nuisance.T
            gram = rows @ rows.T
        penalty = self._weights * norms
        gram.flat[:: len(gram) + 1] = (gram.diagonal() + penalty * penalty) * (1.0 + 1e-10)
        lu, pivots, coefficients, info = lapack.dgesv(gram, rows @ self._y)
        if info:
            raise np.linalg.LinAlgError(f"the {len(gram)} columns of a fit are not independent")
        rest: F64 = self._y - coefficients @ rows
        self._projected, self._norms, self._factors = rows, norms, (lu, pivots)
        self._coefficients, self._rest = coefficients, rest
        self._residuals = np.concatenate([rest, -(penalty * coefficients)[self._penalised]])
        self._solved = (frequency, decay, drift)
        return coefficients, self._residuals

    def slopes(self, frequency: float, decay: float, drift: float) -> F64:
        """Return the derivatives (2 or 3, N + ridge rows) of the residuals that :meth:`solve` returns.

        They are those by ln(frequency), by the decay (1/s), and, for a model with a drift, by the drift.
        """
        if self._solved != (
            frequency,
            decay,
            drift,
        ):  # a search calls this at the parameters that it has just accepted
            self.solve(frequency, decay, drift)
        first, penalised = self._model.order + 1, self._penalised
        waves, amplitudes = self._rows[first:], self._coefficients[first:]
        turned, partner = _TURNED[: len(waves)], _PARTNER[: len(waves)]
        factors = np.empty((3 if self._model.drifts else 2, waves.shape[1]))
        factors[0], factors[_DECAY] = self._turn, -self._decays
        if self._model.drifts:
            factors[2] = (math.pi * frequency / self._span) * self._since_end**2
        # A change of the phase moves each wave along its partner, one of the decay along itself.
        changes = ((turned * amplitudes)[partner] @ waves) * factors
        changes[_DECAY] = (amplitudes @ waves) * factors[_DECAY]
        along = waves @ (factors * self._rest).T
        right = np.zeros((len(self._rows), len(factors)))
        right[first:] = turned[:, None] * along[partner]
        right[first:, _DECAY] = along[:, _DECAY]
        ridge = np.zeros((len(penalised), len(factors)))
        if len(penalised):
            # The penalty of a wave is proportional to its length, whose derivative is needed.
            columns, places = self._rows[penalised], penalised - first
            lengthening = turned[places, None] * ((columns * waves[partner[places]]) @ factors.T)
            lengthening[:, _DECAY] = (columns * columns) @ factors[_DECAY]
            weights, coefficients = self._weights[penalised, None], self._coefficients[penalised, None]
            right[penalised] -= 2.0 * weights**2 * lengthening * coefficients
            norms = self._norms[penalised, None]
            ridge = -weights * coefficients * lengthening / np.maximum(norms, 1e-300)
        if self._nuisance is not None:
            changes -= (changes @ self._nuisance) @ self._nuisance.T
        right -= self._projected @ changes.T
        moved: F64 = lapack.dgetrs(*self._factors, right)[0]  # the derivatives of the coefficients
        ridge -= (self._weights * self._norms)[penalised, None] * moved[penalised]
        return np.concatenate([-changes - moved.T @ self._projected, ridge.T], axis=1)
