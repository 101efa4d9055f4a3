"""Recognises light that changes all spots alike: the beam's current, hum, an exposure. Growth does not do that.

The background alone does not show it where the camera adds a large dark level to it. The contrast of the other streaks
is free of the dark level, and light changes it by the same factor as the specular spot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from atomstream.analysis.filters import without_line
from atomstream.analysis.pictures import correlation, dim_pixels
from atomstream.analysis.shapes import Box
from atomstream.results import F32, F64, Bool, Int

SAMPLES = 120
"""Number of blocks that are compared: the last 12 s; below 15 frames per second, where a block is one frame, more."""

MIN_SAMPLES = 25
"""Fewest blocks for a decision."""

MIN_CORRELATION = 0.9
"""Least correlation of spot and streaks under common light."""

MIN_BACKGROUND_CORRELATION = 0.5
"""Least correlation of the background with them; during growth it is mostly in antiphase."""

RATIOS = (0.8, 1.25)
"""Range of the ratio of the relative changes of the streaks and of the spot under common light."""

MIN_CHANGE = 0.004
"""Least relative standard deviation of the spot for a decision."""

REFERENCE_BLOCKS = 10
"""Number of blocks whose mean is the reference picture: the first second, or 10 frames of a slow camera."""

ALL_ALIKE = "all spots and the background brighten and dim alike: beam, mains hum or exposure, not the film"


@dataclass(slots=True)
class CommonLight:
    """Compares spot, other streaks and background of the last blocks.

    ``samples`` (<= 120, 3) are means over blocks: intensity of the spot, contrast of the rest of the picture relative
    to a ``reference`` (P,), and background. The reference is the mean of the first ``blocks`` blocks, ``dim`` (P,) its
    dimmest pixels.
    """

    samples: F64 = field(default_factory=lambda: np.empty((0, 3)))
    blocks: int = 0
    reference: F64 = field(default_factory=lambda: np.empty(0))
    dim: Int = field(default_factory=lambda: np.empty(0, np.int64))

    def restart(self) -> None:
        """Discard all samples: another spot was chosen, or the light changed suddenly."""
        self.samples, self.blocks, self.reference = self.samples[:0], 0, self.reference[:0]

    def feed(self, intensity: F64, pictures: F32, outside: Bool) -> None:
        """Add a block: the spot's intensity (N,) and the sampled pictures (N, P).

        ``outside`` (P,) are the sampled pixels that do not belong to the spot.
        """
        picture = pictures.mean(axis=0, dtype=np.float64)
        if self.blocks < REFERENCE_BLOCKS:
            self.reference = (
                self.reference + picture / REFERENCE_BLOCKS if self.blocks else picture / REFERENCE_BLOCKS
            )
            self.blocks += 1
            self.dim = dim_pixels(self.reference)
            return
        # The slope of a regression on the reference does not depend on the dark level.
        spread = np.where(outside, self.reference - self.reference[outside].mean(), 0.0)
        contrast = float(spread @ picture) / max(float(spread @ spread), 1e-12)
        sample = float(intensity.mean()), contrast, float(picture[self.dim].mean())
        self.samples = np.concatenate([self.samples, [sample]])[-SAMPLES:]

    @property
    def reason(self) -> str:
        """Why the last blocks allow no growth rate, "" if they do."""
        if len(self.samples) < MIN_SAMPLES or not (self.samples.mean(axis=0) > 0).all():
            return ""
        spot, streaks, background = without_line(self.samples / self.samples.mean(axis=0)).T
        change = float(spot.std())
        if change < MIN_CHANGE or min(streaks.std(), background.std()) <= 0:
            return ""
        alike = (
            correlation(spot, streaks) > MIN_CORRELATION and RATIOS[0] < streaks.std() / change < RATIOS[1]
        )
        return ALL_ALIKE if alike and correlation(spot, background) > MIN_BACKGROUND_CORRELATION else ""


def outside_of(box: Box, shape: tuple[int, int], rows: Int, columns: Int) -> Bool:
    """Return which pixels at ``rows`` x ``columns`` of a picture of a ``shape`` lie outside a box twice as large."""
    margin = round(0.5 * max(box.width, box.height))
    y0, y1, x0, x1 = box.bounds(*shape, margin)
    inside: Bool = np.outer((rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1)).ravel()
    return ~inside
