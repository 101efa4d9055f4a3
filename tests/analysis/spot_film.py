"""Films of a Gaussian spot between two streaks, which moves and whose light and camera can be disturbed.

They share nothing with the simulator of :mod:`atomstream.sources`, so that the analysis is tested on two designs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def spot_film(
    intensity: npt.ArrayLike,
    *,
    shape: tuple[int, int] = (120, 160),
    move: npt.NDArray[np.floating] | None = None,
    fwhm: tuple[float, float] = (13.3, 5.3),
    peak: float = 150.0,
    light: npt.ArrayLike = 1.0,
    dark_level: float = 0.0,
    noise: float = 0.6,
    seed: int = 0,
) -> npt.NDArray[np.uint8]:
    """Return frames (N, H, W) of a spot with relative ``intensity`` (N,).

    ``move`` (N, 2) moves spot and streaks by px along y and x. ``fwhm`` (y, x) is the spot's width in px, ``peak`` its
    height in grey levels, ``light`` (N,) a factor of the whole picture, to which the camera adds ``dark_level``.
    ``noise`` is the standard deviation at one grey level; it grows with the square root.
    """
    random, level = np.random.default_rng(seed), np.asarray(intensity, dtype=np.float64)
    height, width = shape
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    move = np.zeros((len(level), 2)) if move is None else move
    light = np.broadcast_to(np.asarray(light, dtype=np.float64), level.shape)
    screen = 8.0 + 10.0 * np.exp(-(((y - 0.6 * height) / (0.4 * height)) ** 2)) + 0.0 * x
    frames = np.empty((len(level), height, width), np.uint8)
    for i, (dy, dx) in enumerate(move):
        rows = np.exp(-4.0 * np.log(2.0) * ((y - 0.42 * height - dy) / fwhm[0]) ** 2)
        columns = sum(
            strength * np.exp(-4.0 * np.log(2.0) * ((x - (0.5 + 0.2375 * k) * width - dx) / fwhm[1]) ** 2)
            for k, strength in ((-1, 0.3), (0, level[i]), (1, 0.3))
        )
        picture = light[i] * (screen + peak * rows * columns) + dark_level
        picture = picture + noise * np.sqrt(picture) * random.standard_normal(shape)
        frames[i] = np.clip(np.rint(picture), 0, 255)
    return frames


def circling(seconds: float, fps: float, px: float, hz: float) -> npt.NDArray[np.float64]:
    """Return the displacements (N, 2) of a spot that moves by ``px`` along y and half of it along x."""
    angle = 2.0 * np.pi * hz * np.arange(round(seconds * fps)) / fps
    return px * np.stack([np.sin(angle), 0.5 * np.cos(angle)], axis=1)
