"""Small films (frames in memory) of a rotating crystal, of another design than the project's simulator: a list of
Gaussian spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TurningFilm:
    """A crystal whose rods (``axes`` in px, two vectors) are drawn as Gaussian spots on Laue circles.

    ``turns`` (N,) is the azimuth of each frame in turns, ``bright`` (N,) the factor of the specular spot, ``light``
    (N,) a factor of the whole picture, ``move`` (N, 2) the shift (y, x) of the pattern in px. ``wobble`` px is the
    shift at the rate of the rotation, as with a tilted sample.
    """

    turns: np.ndarray
    axes: tuple[tuple[float, float], tuple[float, float]] = ((30.0, 0.0), (0.0, 30.0))
    bright: np.ndarray | None = None
    light: np.ndarray | None = None
    move: np.ndarray | None = None
    wobble: float = 0.0
    shape: tuple[int, int] = (120, 160)
    noise: float = 0.6
    seed: int = 0

    def __len__(self) -> int:
        return len(self.turns)

    def frames(self) -> np.ndarray:
        """All frames, uint8 (N, H, W)."""
        rng = np.random.default_rng(self.seed)
        out = np.empty((len(self), *self.shape), np.uint8)
        for i in range(len(self)):
            clean = self.picture(i)
            out[i] = np.clip(clean + self.noise * np.sqrt(clean) * rng.standard_normal(self.shape), 0, 255)
        return out

    def picture(self, i: int) -> np.ndarray:
        """Frame ``i`` without noise."""
        height, width = self.shape
        angle = 2 * np.pi * self.turns[i]
        y, x = np.arange(height, dtype=float)[:, None], np.arange(width, dtype=float)
        dy, dx = (0.0, 0.0) if self.move is None else self.move[i]
        dy, dx = dy + self.wobble * np.sin(angle), dx + self.wobble * np.cos(angle)
        bright = 1.0 if self.bright is None else self.bright[i]
        total = 10 + 12 * np.exp(-(((y - 0.6 * height) / (0.4 * height)) ** 2)) + 0 * x
        h, k = (grid.ravel() for grid in np.meshgrid(np.arange(-5, 6), np.arange(-5, 6)))
        (ax, ay), (bx, by) = self.axes
        along, across = h * ax + k * bx, h * ay + k * by
        c, s = np.cos(angle), np.sin(angle)
        kx, ky = c * along - s * across, s * along + c * across
        radius = 0.42 * height
        inside = (radius + kx) ** 2 - ky**2
        seen = (inside > 0) & (np.abs(ky) <= 0.6 * width)
        row = 0.05 * height + np.sqrt(inside[seen]) + dy
        order = np.hypot(h, k)[seen]
        strength = np.where(order == 0, 150.0 * bright, 80.0 * np.exp(-0.5 * order))
        spots_y = np.exp(-(((y - row) / 7.0) ** 2))
        spots_x = np.exp(-(((x - width / 2 - ky[seen, None] - dx) / 3.0) ** 2))
        total = total + (spots_y * strength) @ spots_x
        factor = 1.0 if self.light is None else self.light[i]
        return total * factor
