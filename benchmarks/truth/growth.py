"""The growth itself: layers deposited as a function of time, and the intensity that they give.

The layers are those of the birth-death model of P. I. Cohen, G. S. Petrich, P. R. Pukite, G. J. Whaley and
A. S. Arrott, Surf. Sci. 216, 222 (1989): coverages of all layers are coupled by atoms that fall to the layer below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

DOUBT_PERIODS = 1.5
"""After a sudden change of the rate no number is called false for this many periods."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Growth from ``start`` to ``end`` (s); the rate (ML/s) goes linearly from ``first`` to ``last``."""

    start: float
    end: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Growth:
    """The growth over time: ``pieces`` in order of time; nothing grows between them."""

    pieces: tuple[Piece, ...] = ()

    def rate(self, t: F64 | float) -> F64:
        """Return the rates (ML/s) at times ``t`` (s); 0 where nothing grows."""
        t = np.asarray(t, dtype=float)
        out = np.zeros(t.shape)
        for p in self.pieces:
            inside = (t >= p.start) & (t < p.end)
            out = np.where(inside, p.first + (p.last - p.first) * (t - p.start) / (p.end - p.start), out)
        return out

    def layers(self, t: F64 | float) -> F64:
        """Return the layers deposited from the first frame to times ``t`` (s)."""
        t = np.asarray(t, dtype=float)
        out = np.zeros(t.shape)
        for p in self.pieces:
            since = np.clip(t - p.start, 0.0, p.end - p.start)
            out = out + p.first * since + 0.5 * (p.last - p.first) * since**2 / (p.end - p.start)
        return out

    def jumps(self) -> list[tuple[float, float, float]]:
        """Return each sudden change as (time, rate before, rate after).

        At a stop the rate before is the highest of that growth, because a rate may have fallen slowly to zero.
        """
        found, end, rate, highest = [], 0.0, 0.0, 0.0
        for p in self.pieces:
            if p.start > end + 1e-9 and highest > 0:
                found.append((end, highest, 0.0))
                rate = highest = 0.0
            if abs(p.first - rate) > 1e-9 * max(p.first, rate):
                found.append((p.start, rate, p.first))
            end, rate, highest = p.end, p.last, max(highest, p.first, p.last)
        return [*found, (end, highest, 0.0)] if highest > 0 else found

    def in_doubt(self, t: float) -> bool:
        """Return True within 1.5 periods after a stop or a sudden change, or in growth too slow to have a rate."""
        for at, before, after in self.jumps():
            if before > 0 and at <= t < at + DOUBT_PERIODS / min(r for r in (before, after) if r > 0):
                return True
        return False


def steady(rate: float, start: float = 0.0, end: float = math.inf) -> Growth:
    """Return growth at one ``rate`` (ML/s) from ``start`` to ``end`` (s)."""
    return Growth((Piece(start, min(end, 1e6), rate, rate),))


def curve(knots: F64, rates: F64) -> Growth:
    """Return growth whose rate follows ``rates`` (ML/s) at the times ``knots`` (s), linearly between them."""
    return Growth(
        tuple(
            Piece(float(a), float(b), float(r), float(s))
            for a, b, r, s in zip(knots[:-1], knots[1:], rates[:-1], rates[1:], strict=True)
        )
    )


STEP = 0.02
"""Integration step in layers."""


@lru_cache(maxsize=64)
def _exposed(transport: float, layers: int) -> F64:
    """Return the exposed coverages (steps, layers + 30) of the birth-death model, one row for each 0.02 layers.

    ``transport`` is k tau of the model: how many atoms fall to the layer below while one layer is deposited.
    """
    levels = layers + 30
    theta = np.zeros(levels + 4)
    theta[:2] = 1.0  # the substrate and what lies under it

    def change(c: F64) -> F64:
        top = c[:-1] - c[1:]  # exposed coverage of each layer
        free = np.concatenate([[0.0], top[:-1]])  # layer n grows on the exposed part of layer n - 1
        falls = transport * np.concatenate([top[1:], [0.0]]) * free  # from layer n + 1 to n
        rate = free + falls - np.concatenate([[0.0], falls[:-1]])
        rate[:2] = 0.0
        return np.concatenate([rate, [0.0]])

    rows = np.empty((round(layers / STEP) + 1, levels))
    for row in rows:
        row[:] = (theta[:-1] - theta[1:])[1 : levels + 1]
        a = change(theta)
        b = change(theta + 0.5 * STEP * a)
        c = change(theta + 0.5 * STEP * b)
        d = change(theta + STEP * c)
        theta = theta + STEP * (a + 2 * b + 2 * c + d) / 6
    return rows


def intensity(layers: F64, transport: float = 30.0, off_phase: float = 0.0, damping: float = math.inf) -> F64:
    """Return the kinematic intensity (0 to 1) of the specular beam for deposited ``layers`` (N,).

    ``off_phase`` is the distance from the anti-phase condition in units of pi: 0 gives the largest oscillations.
    ``damping`` (layers) is an additional exponential decay, as by an uneven flux across the beam's footprint.
    """
    most = max(20, math.ceil(float(np.max(layers, initial=0.0)) / 20 + 0.05) * 20)
    rows = _exposed(float(min(transport, 100.0)), most)
    phase = np.exp(1j * np.pi * (1 + off_phase) * np.arange(rows.shape[1]))
    table = np.abs(rows @ phase) ** 2
    x = STEP * np.arange(len(table))
    if math.isfinite(damping):
        layer = round(1 / STEP)
        padded = np.concatenate(
            [np.full(layer // 2, table[0]), table, np.full(layer - layer // 2 - 1, table[-1])]
        )
        mean = np.convolve(padded, np.full(layer, 1 / layer), "valid")
        table = mean + (table - mean) * np.exp(-x / damping)
    return np.asarray(np.interp(layers, x, table))
