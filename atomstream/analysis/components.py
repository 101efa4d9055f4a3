"""Incremental principal components: the directions in which recent pictures vary, renewed by each picture.

The sequential Karhunen-Loeve update with a running mean and forgetting: D. A. Ross, J. Lim, R.-S. Lin & M.-H. Yang,
Int. J. Comput. Vis. 77, 125 (2008). One update costs two products with the basis: no history of pictures is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.arrays import F32, F64

COUNT = 8


@dataclass(slots=True)
class Components:
    """Mean (P,), orthonormal rows ``basis`` (<= 8, P) with singular ``values``, of about the last ``memory`` pictures.

    ``past`` (N, 8) are the coordinates of recent pictures, carried along into each new basis, so that neither sign nor
    rotation of the components matters.
    """

    memory: int = 40
    weight: float = 0.0
    mean: F32 = field(default_factory=lambda: np.empty(0, np.float32))
    basis: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    values: F64 = field(default_factory=lambda: np.empty(0))
    past: F64 = field(default_factory=lambda: np.empty((0, COUNT)))

    def split(self, vector: F32) -> tuple[F64, float]:
        """Coordinates (8,) of a picture (P,) along the components, 0 beyond their number, and its squared distance."""
        new = vector - self.mean
        here = self.basis @ new
        outside = float(((new - here @ self.basis) ** 2).sum())
        return _padded(here.astype(np.float64)), outside

    def learn(self, vector: F32) -> None:
        """Take in a picture (P,)."""
        if self.mean.shape != vector.shape:
            self.weight, self.mean = 1.0, vector.copy()
            self.basis, self.values = vector[None][:0], np.empty(0)
            self.past = np.zeros((1, COUNT))
            return
        keep = 1.0 - 1.0 / self.memory
        before, weight = self.basis, keep * self.weight
        new = vector - self.mean
        moved = new / np.float32(weight + 1.0)
        self._turn(math.sqrt(weight / (weight + 1.0)) * new, math.sqrt(keep))
        self.weight, self.mean = weight + 1.0, self.mean + moved
        turned = self.past[:, : len(before)] @ (before @ self.basis.T).astype(np.float64)
        latest = self.basis @ (vector - self.mean)
        rows = np.concatenate(
            [turned - (self.basis @ moved).astype(np.float64), latest[None].astype(np.float64)]
        )
        self.past = np.stack([_padded(row) for row in rows[-self.memory :]])

    def _turn(self, new: F32, forget: float) -> None:
        """Renew basis and singular values by one centred picture (P,)."""
        inside = self.basis @ new
        left = new - inside @ self.basis
        # once more: rounding would add up over thousands of pictures
        left -= (self.basis @ left) @ self.basis
        length = float(np.linalg.norm(left))
        rows = np.concatenate([self.basis, (left / np.float32(max(length, 1e-12)))[None]])
        small = np.zeros((len(rows), len(rows)))
        small[:-1, :-1] = np.diag(forget * self.values)
        small[-1] = [*inside, length]
        _, values, turn = np.linalg.svd(small)
        kept = values[:COUNT] > 1e-6 * max(float(values[0]), 1e-12)
        self.values = values[:COUNT][kept]
        self.basis = (turn[:COUNT][kept] @ rows).astype(np.float32)


def _padded(row: F64) -> F64:
    full = np.zeros(COUNT)
    full[: len(row)] = row
    return full
