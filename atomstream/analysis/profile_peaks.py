"""Peaks of a line profile, each with its fit: for the page that shows the profile as a curve."""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import signal

from atomstream.analysis.lattice import profile_noise
from atomstream.analysis.peak_shape import PeakFit, fit_peak
from atomstream.results import F64

MOST_PEAKS: Final = 12
_NOISE_WIDTHS: Final = 8.0
"""Least height of a peak over the valley beside it, in noise widths of the profile."""
_NARROWEST: Final = 1.5
"""Least width of a peak in px; a narrower one is a single hot pixel."""


def fit_peaks(profile: F64) -> list[PeakFit]:
    """Fit the most prominent peaks of ``profile`` (W,). Peaks that can't be fitted are left out. Sorted by position."""
    if len(profile) < 9 or not np.isfinite(profile).all():
        return []
    # Only the search uses the smoothed profile: noise on a broad peak would give several maxima.
    smooth = np.convolve(np.pad(profile, 1, mode="edge"), np.full(3, 1.0 / 3.0), mode="valid")
    least = max(_NOISE_WIDTHS * profile_noise(profile), 0.02 * float(np.ptp(smooth)))
    if not least > 0:
        return []
    places, found = signal.find_peaks(smooth, prominence=least, width=_NARROWEST, rel_height=0.5)
    chosen = np.sort(np.argsort(found["prominences"])[::-1][:MOST_PEAKS])
    places, widths = places[chosen], found["widths"][chosen]
    fits = []
    for number, (place, width) in enumerate(zip(places.tolist(), widths.tolist(), strict=True)):
        near = [abs(place - other) for index, other in enumerate(places.tolist()) if index != number]
        fit = fit_peak(profile, float(place), float(width), 0.5 * min(near) if near else None)
        if fit is not None:
            fits.append(fit)
    return fits
