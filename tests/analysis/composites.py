"""Composites: a real frame whose specular spot is scaled by a real intensity trace, with camera noise."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from tests.paths import DATA

TRACES = ("STO_620C_1Hz_50ms_1", "STO_680C_1Hz_50ms_1")


@cache
def _file(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


class Composite:
    """A film of 20 frames a second; ``picture`` is the number of a real frame (0 to 18), ``trace`` one of TRACES."""

    def __init__(self, picture: int, trace: str, seed: int = 0) -> None:
        traces = _file("sto_pld_traces_20hz")
        self.times, y = traces[f"{trace}_t"].astype(float), traces[f"{trace}_y"].astype(float)
        self.factor, self.seed = y / np.percentile(y, 99), seed
        self.picture = _file("ksa_pld_19x123x164")["frames"][picture].astype(float)
        height, width = self.picture.shape
        row, column = np.unravel_index(
            int(np.argmax(ndimage.gaussian_filter(self.picture, 2))), self.picture.shape
        )
        rows, columns = np.arange(height)[:, None] - row, np.arange(width) - column
        self.share = np.clip(1.5 * np.exp(-0.5 * ((columns / 5.0) ** 2 + (rows / 7.0) ** 2)), 0, 1)

    def __len__(self) -> int:
        return len(self.times)

    def frame(self, i: int) -> np.ndarray:
        """Frame ``i`` of 12 bits, with shot noise and read noise."""
        clean = 0.8 * self.picture * (1 + self.share * (self.factor[i] - 1))
        noise = np.random.default_rng((self.seed, i)).standard_normal(clean.shape)
        return np.clip(np.rint(clean + noise * np.sqrt(1.5 * np.maximum(clean, 0) + 20)), 0, 4095)
