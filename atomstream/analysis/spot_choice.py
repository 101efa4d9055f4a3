"""Recognises that the chosen spot never changes while another one does: a reflection, or the direct beam.

Both can be brighter than the specular spot, and one picture alone can't distinguish them. During growth the specular
spot changes and they do not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from atomstream.analysis.shapes import Box
from atomstream.results import F32

PICTURES = 16
"""Number of pictures that are compared: the last 8 s, at two a second."""

MIN_PICTURES = 10
"""Fewest pictures for a decision."""

MIN_CHANGE = 0.04
"""Least standard deviation of a spot that changes, relative to its height."""

MIN_NOISE_WIDTHS = 4.0
"""Least standard deviation of a spot that changes, in units of the usual one in the picture."""

MAX_STILL = 0.01
MAX_STILL_SHARE = 0.2
"""The chosen spot is still if its relative standard deviation is below both: an absolute limit, above the noise of the
beam, and a share of the other spot's."""


@dataclass(slots=True)
class SpotChooser:
    """Compares the changes of the chosen spot with those of the rest of the picture.

    ``pictures`` (M, h, w) are the last binned pictures. Call :meth:`restart` where the light changed.
    """

    pictures: F32 = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))

    def restart(self) -> None:
        """Discard the pictures."""
        self.pictures = self.pictures[:0]

    def feed(self, picture: F32, binning: int, spot: Box) -> tuple[float, float] | None:
        """Add a binned picture (h, w); return (y, x) in px of a spot that changes while ``spot`` does not, or None.

        ``binning`` is the number of px of a pixel of the picture along each axis.
        """
        if self.pictures.shape[1:] != picture.shape:
            self.pictures = picture[None][:0]
        self.pictures = np.concatenate([self.pictures, picture[None]])[-PICTURES:]
        if len(self.pictures) < MIN_PICTURES:
            return None
        mean = self.pictures.mean(axis=0, dtype=np.float64)
        change = ndimage.uniform_filter(self.pictures.std(axis=0, dtype=np.float64), 3, mode="nearest")
        height = ndimage.uniform_filter(mean - float(np.median(mean)), 3, mode="nearest")
        usual = float(np.median(change)) + 1e-9
        top, bottom, left, right = _binned_bounds(spot, binning, picture.shape)
        inside = np.zeros(picture.shape, dtype=bool)
        inside[top:bottom, left:right] = True
        # Measured at the spot's peak, because a streak beside the spot may change too.
        peak = np.unravel_index(int(np.argmax(np.where(inside, height, -np.inf))), height.shape)
        chosen_change, chosen_height = float(change[peak]), float(height[peak])
        # Exclude the wings of the chosen spot, which change together with it.
        margin = 2 + (bottom - top) // 2, 2 + (right - left) // 2
        inside[max(0, top - margin[0]) : bottom + margin[0], max(0, left - margin[1]) : right + margin[1]] = (
            True
        )
        if inside.all():
            return None
        place = np.unravel_index(int(np.argmax(np.where(inside, -np.inf, change))), change.shape)
        other_change, other_height = float(change[place]), float(height[place])
        is_changing = (
            other_height > 0
            and other_change > MIN_CHANGE * other_height
            and other_change > MIN_NOISE_WIDTHS * usual
        )
        still = min(MAX_STILL, MAX_STILL_SHARE * other_change / max(other_height, 1e-9))
        if not is_changing or chosen_change > still * max(chosen_height, 1e-9):
            return None
        self.restart()
        y, x = (float((index + 0.5) * binning - 0.5) for index in place)
        return y, x


def _binned_bounds(box: Box, binning: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return (first row, end, first column, end) of a box in a picture binned by ``binning``."""
    y0, y1, x0, x1 = box.bounds(shape[0] * binning, shape[1] * binning)
    return y0 // binning, -(-y1 // binning), x0 // binning, -(-x1 // binning)
