"""Pattern search in the mean of the first frames: specular spot, streak rows, streak spacing, hot pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from atomstream.analysis.maxima import find_maxima
from atomstream.analysis.pictures import correlation
from atomstream.records import Frames
from atomstream.results import F32, F64

# Hot pixels are single pixels far brighter than all their neighbours in each frame. One in a streak shifts its
# centroid, in small pictures by more than a tenth of a pixel, some per cent of the spacing. Spots are always wider
# than one pixel.

HotPixels: TypeAlias = tuple[tuple[int, int], ...]
"""(row, column) of each hot pixel."""

_MIN_NOISE_WIDTHS: Final = 10.0

_MIN_RANGES: Final = 2.0

_MAX_SHARE: Final = 0.001
"""Largest share of hot pixels; if there are more, they are texture of the picture."""

_NEIGHBOURS: Final = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def find_hot_pixels(picture: F64, median: F64) -> HotPixels:
    """Return the hot pixels of a mean frame (H, W); ``median`` is its 3x3 median.

    A hot pixel exceeds the brightest of its eight neighbours by ten noise widths plus twice the range of the
    neighbours; the peak of a spot two pixels wide exceeds them by 1.6 ranges.
    """
    highest = ndimage.maximum_filter(picture, footprint=_NEIGHBOURS, mode="mirror")
    lowest = ndimage.minimum_filter(picture, footprint=_NEIGHBOURS, mode="mirror")
    noise = 1.4826 * float(np.median(np.abs(picture - median))) + 1e-9
    rows, columns = np.nonzero(
        picture - highest > _MIN_NOISE_WIDTHS * noise + _MIN_RANGES * (highest - lowest)
    )
    if len(rows) > max(3.0, _MAX_SHARE * picture.size):
        return ()
    return tuple((int(r), int(c)) for r, c in zip(rows, columns, strict=True))


def without_hot_pixels(picture: npt.NDArray[np.floating], hot_pixels: HotPixels) -> npt.NDArray[np.floating]:
    """Return ``picture`` (H, W) with each hot pixel replaced by the mean of its neighbours along the streaks (y)."""
    if not hot_pixels:
        return picture
    corrected = picture.copy()
    for row, column in hot_pixels:
        above, below = _rows_above_below(row, len(picture))
        corrected[row, column] = 0.5 * (picture[above, column] + picture[below, column])
    return corrected


def correct_profiles(profiles: F32, frames: Frames, band: tuple[int, int], hot_pixels: HotPixels) -> None:
    """Correct ``profiles`` (N, W), means of ``frames`` (N, H, W) over the rows ``band``, for hot pixels, in place."""
    for row, column in hot_pixels:
        if band[0] <= row < band[1]:
            above, below = _rows_above_below(row, frames.shape[1])
            good = 0.5 * (frames[:, above, column].astype(np.float32) + frames[:, below, column])
            profiles[:, column] += (good - frames[:, row, column]) / np.float32(band[1] - band[0])


def _rows_above_below(row: int, height: int) -> tuple[int, int]:
    return (row - 1 if row else row + 1), (row + 1 if row + 1 < height else row - 1)


MIN_CONTRAST = 8.0
"""Least contrast of a spot, in noise widths of the smoothed picture."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Position of the pattern in px: centre and full widths at half maximum of the specular spot.

    ``band`` is (first row, last row + 1) of the streaks. ``spacing`` is the distance of neighbouring streaks along
    x, None if no regular streaks were found. ``hot_pixels`` are those outside the spot.
    """

    x: float
    y: float
    fwhm_x: float
    fwhm_y: float
    band: tuple[int, int]
    spacing: float | None
    hot_pixels: HotPixels = ()


def find_pattern(picture: F64, near: tuple[float, float] | None = None) -> Pattern | None:
    """Find the pattern in a mean frame (H, W); None if no spot has enough contrast.

    The specular spot is the compact bright spot with the best mirror symmetry of the picture about it. If several
    spots are saturated and so equally bright, symmetry alone decides. With ``near`` (row, column) it is the brightest
    spot within 5 % of the picture's size of that place.
    """
    height, width = picture.shape
    if min(height, width) < 8 or float(np.ptp(picture)) <= 0:
        return None
    median = ndimage.median_filter(picture, size=3)  # without hot pixels
    scale = max(1.0, min(height, width) / 240.0)
    fine = ndimage.gaussian_filter(median, scale)
    contrast = fine - _wide_blur(median, 12.0 * scale)
    spots = _find_spots(contrast, fine, scale) if near is None else _spot_near(contrast, near)
    if not spots:
        return None
    row, column = max(spots, key=lambda s: contrast[s] * (0.2 + _mirror_correlation(contrast, s[1], s[0])))
    fwhm_y, fwhm_x = _half_widths(fine, row, column)
    centre_y, centre_x = _centroid(fine, row, column, fwhm_y, fwhm_x)
    if fwhm_x > 0.6 * width or fwhm_y > 0.6 * height:
        return None  # diffuse light, not a spot
    band = _streak_rows(contrast, round(centre_y), round(centre_x), (fwhm_y, fwhm_x))
    # The centre of a very small spot may look like a hot pixel.
    hot_pixels = tuple(
        (y, x)
        for y, x in find_hot_pixels(picture, median)
        if abs(y - centre_y) > max(2.0, fwhm_y) or abs(x - centre_x) > max(2.0, fwhm_x)
    )
    profile = without_hot_pixels(picture, hot_pixels)[band[0] : band[1]].mean(axis=0)
    return Pattern(
        centre_x, centre_y, fwhm_x, fwhm_y, band, find_spacing(profile, centre_x, fwhm_x), hot_pixels
    )


MIN_INVERTED = 1.5
"""Least ratio of the depth of the dark spots to the height of the bright ones in a picture with inverted greys."""


def is_inverted(picture: F64) -> bool:
    """Return True if a mean frame (H, W) has dark spots on a bright background, and no bright spots as high."""
    height, width = picture.shape
    if min(height, width) < 8 or float(np.ptp(picture)) <= 0:
        return False
    low, middle, high = (float(v) for v in np.percentile(picture, (0.5, 50.0, 99.5)))
    if middle - low < MIN_INVERTED * (high - middle):
        return False
    median = ndimage.median_filter(picture, size=3)
    scale = max(1.0, min(height, width) / 240.0)
    fine = ndimage.gaussian_filter(median, scale)
    contrast = fine - _wide_blur(median, 12.0 * scale)
    if -float(contrast.min()) < MIN_INVERTED * float(contrast.max()):
        return False
    return bool(_find_spots(-contrast, -fine, scale))


def _wide_blur(picture: F64, sigma: float) -> F64:
    """Blur widely with two running means, whose cost does not depend on the width."""
    size = max(3, round(sigma * math.sqrt(6.0)) | 1)
    blurred: F64 = ndimage.uniform_filter(ndimage.uniform_filter(picture, size), size)
    return blurred


def _find_spots(contrast: F64, fine: F64, scale: float) -> list[tuple[int, int]]:
    """Return (row, column) of the brightest separate maxima above the noise, at most 12."""
    noise = 1.4826 * float(np.median(np.abs(contrast - np.median(contrast)))) + 1e-9
    top = float(contrast.max())
    if top < MIN_CONTRAST * noise or top < 0.01 * float(np.ptp(fine)) + 1e-9:
        return []
    separate = ndimage.maximum_filter(contrast, size=round(6 * scale) | 1) == contrast
    rows, columns = np.nonzero(separate & (contrast > max(0.35 * top, MIN_CONTRAST * noise)))
    order = np.argsort(contrast[rows, columns])[::-1][:12]
    return [(int(rows[i]), int(columns[i])) for i in order]


def _spot_near(contrast: F64, near: tuple[float, float]) -> list[tuple[int, int]]:
    """Return (row, column) of the brightest pixel near a place if it is above the noise, else nothing."""
    noise = 1.4826 * float(np.median(np.abs(contrast - np.median(contrast)))) + 1e-9
    reach = max(3, round(0.05 * min(contrast.shape)))
    top, left = (max(0, round(place) - reach) for place in near)
    part = contrast[top : round(near[0]) + reach + 1, left : round(near[1]) + reach + 1]
    row, column = np.unravel_index(int(np.argmax(part)), part.shape)
    if part[row, column] < MIN_CONTRAST * noise:
        return []
    return [(top + int(row), left + int(column))]


def _mirror_correlation(contrast: F64, column: int, row: int) -> float:
    """Return the correlation of the surroundings of a column with their mirror image, -1 to 1 (0 near the edge)."""
    height, width = contrast.shape
    reach = min(column, width - 1 - column, width // 3)
    if reach < width // 12:
        return 0.0
    rows = slice(max(0, row - height // 4), row + height // 4)
    left = np.clip(contrast[rows, column - reach : column][:, ::-1], 0, None)
    right = np.clip(contrast[rows, column + 1 : column + reach + 1], 0, None)
    skip = max(2, width // 100)
    return correlation(left[:, skip:], right[:, skip:])


def _half_widths(fine: F64, row: int, column: int) -> tuple[float, float]:
    """Return the full widths at half maximum in px along y and x."""
    return _width_along(fine[:, column], row), _width_along(fine[row], column)


def _width_along(line: F64, at: int) -> float:
    floor = float(np.percentile(line, 20))
    below = line < 0.5 * (line[at] + floor)
    left, right = np.flatnonzero(below[:at]), np.flatnonzero(below[at:])
    first = int(left[-1]) if len(left) else 0
    last = at + int(right[0]) if len(right) else len(line) - 1
    return float(max(2, last - first - 1))


def _centroid(fine: F64, row: int, column: int, fwhm_y: float, fwhm_x: float) -> tuple[float, float]:
    y0, y1 = max(0, round(row - fwhm_y)), round(row + fwhm_y) + 1
    x0, x1 = max(0, round(column - fwhm_x)), round(column + fwhm_x) + 1
    part = fine[y0:y1, x0:x1]
    weight = np.clip(part - 0.5 * (part.max() + part.min()), 0, None)
    if weight.sum() <= 0:
        return float(row), float(column)
    y, x = ndimage.center_of_mass(weight)
    return y0 + float(y), x0 + float(x)


def _streak_rows(contrast: F64, row: int, column: int, widths: tuple[float, float]) -> tuple[int, int]:
    """Return the rows of the streaks next to the specular spot; they may be nearer to the shadow edge than the spot."""
    height, width = contrast.shape
    away = np.abs(np.arange(width) - column) > 1.5 * widths[1]
    outside = np.clip(contrast[:, away], 0, None).std(axis=1) if away.any() else contrast.std(axis=1)
    strength = ndimage.uniform_filter1d(outside, max(3, round(0.2 * widths[0])))
    first, last = max(0, row - round(0.45 * height)), min(height, row + max(4, round(0.15 * height)))
    top = first + int(np.argmax(strength[first:last]))
    strong = strength > 0.3 * strength[top]
    above, below = np.flatnonzero(~strong[:top]), np.flatnonzero(~strong[top:])
    low = max(first, int(above[-1]) + 1 if len(above) else 0)
    high = min(last, top + int(below[0]) if len(below) else height)
    return low, max(high, low + 1)


def find_spacing(profile: F64, x0: float, fwhm: float) -> float | None:
    """Return the streak spacing in px of a column profile (W,) from pairs of peaks symmetric about ``x0``, or None.

    The spacing is the smallest distance of a pair with more than 0.4 of the height of the strongest pair, so that
    weaker fractional orders do not count.
    """
    level = profile - ndimage.minimum_filter1d(ndimage.uniform_filter1d(profile, 3), max(9, round(8 * fwhm)))
    noise = 1.4826 * float(np.median(np.abs(np.diff(profile)))) / math.sqrt(2.0) + 1e-9
    peaks, heights = find_maxima(level, max(5.0 * noise, 0.02 * float(level.max())), distance=3)
    offsets = peaks - x0
    pairs: list[tuple[float, float]] = []
    for offset, height in zip(offsets, heights, strict=True):
        if offset > 1.5 * fwhm:
            partners = np.abs(offsets + offset) < max(2.5, 0.5 * fwhm, 0.05 * offset)
            if partners.any():
                partner = float(offsets[partners][np.argmax(heights[partners])])
                pairs.append((0.5 * (offset - partner), min(float(height), float(heights[partners].max()))))
    if not pairs:
        return None
    strongest = max(h for _, h in pairs)
    return float(min(d for d, h in pairs if h > 0.4 * strongest))
